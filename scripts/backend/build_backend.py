"""PEP 517 backend: setuptools' own, with build requirements that depend on where ROS 2 comes from."""

from ros_source import build_requirements, ros_source
from setuptools.build_meta import *  # noqa: F403 every hook that is not redefined below


def get_requires_for_build_wheel(config_settings=None):
    """Return the build requirements of a wheel (PEP 517)."""
    return build_requirements(ros_source()[0])


get_requires_for_build_editable = get_requires_for_build_wheel
