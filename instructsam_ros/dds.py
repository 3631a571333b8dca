"""Settings of the DDS middleware for the processes of this package, checked and made before rclpy starts."""

import os
from contextlib import suppress
from pathlib import Path

from instructsam.core.errors import InstructSAMError

PROFILES = Path(__file__).parent / 'data'
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
"""Names of the variable in Fast DDS 2 and, since 2.12, in all later releases."""

RANGE_VARIABLE = 'ROS_AUTOMATIC_DISCOVERY_RANGE'

LARGEST_DOMAIN = 232
"""DDS computes its UDP ports from the domain; those of the next one are above 65535."""


SHARED_MEMORY = '/dev/shm'
SEGMENT_MB, PROFILE_SEGMENT_MB = 1, 18
"""Shared memory that a process of Fast DDS needs: with its defaults, and with the profiles of this package."""


class RosEnvironmentError(InstructSAMError, ValueError):
    """An environment variable keeps ROS from starting."""


def check_environment() -> None:
    """Raise RosEnvironmentError for faults that the middleware would report in several lines, or by a crash."""
    domain = 0
    with suppress(ValueError):  # rcl says that it is not a number
        domain = int(os.environ.get('ROS_DOMAIN_ID', ''), 0)
    if not 0 <= domain <= LARGEST_DOMAIN and 'zenoh' not in os.environ.get('RMW_IMPLEMENTATION', ''):
        raise RosEnvironmentError(f'ROS_DOMAIN_ID is {domain}, expected 0 to {LARGEST_DOMAIN}')
    if not any(os.environ.get(variable) for variable in ('ROS_LOG_DIR', 'ROS_HOME', 'HOME')):
        raise RosEnvironmentError('ROS has no folder for its logs: set HOME, ROS_HOME or ROS_LOG_DIR')


def configure_dds(*, publishes_images: bool = False) -> None:
    """Listen on the loopback interface only if discovery is limited to it, and make room for images.

    With ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST rmw_fastrtps discovers no other machine, but its sockets are bound to
    0.0.0.0; data/fastdds_loopback.xml says how they are moved. That profile replaces the variable, which is why it is
    used only where the middleware is known to read it. Nothing is changed if the environment names a profile or static
    peers, which are on other machines.

    Args:
        publishes_images: Whether the process publishes raw images. With the defaults of Fast DDS most of them are lost
            on their way; the profile for large images says why.

    Raises:
        RosEnvironmentError: As `check_environment` does, and if the shared memory is full.
    """
    check_environment()
    needed_mb = SEGMENT_MB
    if not any(os.environ.get(variable) for variable in PROFILE_VARIABLES):
        is_local = _is_local() and _uses_fast_dds()
        if is_local or publishes_images:
            needed_mb = PROFILE_SEGMENT_MB
            _select('fastdds_loopback.xml' if is_local else 'fastdds_images.xml')
        if is_local:
            os.environ[RANGE_VARIABLE] = 'SYSTEM_DEFAULT'
    check_shared_memory(needed_mb)


def check_shared_memory(needed_mb: int = PROFILE_SEGMENT_MB) -> float | None:
    """Return the free shared memory, MB; None if there is none, or another middleware than Fast DDS is chosen.

    Raises RosEnvironmentError if Fast DDS would be killed (SIGBUS) when it writes to it.
    """
    if 'fastrtps' not in os.environ.get('RMW_IMPLEMENTATION', '') and os.environ.get('RMW_IMPLEMENTATION'):
        return None
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    free_mb = status.f_bavail * status.f_frsize / 1e6
    if free_mb < needed_mb:
        raise RosEnvironmentError(
            f'{SHARED_MEMORY} has {free_mb:.1f} MB left, Fast DDS needs {needed_mb}: delete the files fastrtps_* '
            'of processes that have ended, or make it larger (docker run --shm-size)'
        )
    return free_mb


def _is_local() -> bool:
    return os.environ.get(RANGE_VARIABLE) == 'LOCALHOST' and not os.environ.get('ROS_STATIC_PEERS')


def _uses_fast_dds() -> bool:
    # Loads the middleware, which takes long: not at the import of this module.
    from rclpy.utilities import get_rmw_implementation_identifier  # noqa: PLC0415

    return get_rmw_implementation_identifier() in ('rmw_fastrtps_cpp', 'rmw_fastrtps_dynamic_cpp')


def _select(profile: str) -> None:
    for variable in PROFILE_VARIABLES:
        os.environ[variable] = str(PROFILES / profile)
