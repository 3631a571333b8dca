"""Checks of ROS: where it comes from, its middleware, shared memory, messages and network, without a node."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from instructsam.core.doctor.check import Check, fault, note, ok
from instructsam.core.errors import InstructSAMError
from instructsam.core.text import shorten
from instructsam_ros import dds

Import = Callable[[str], Any]
MESSAGES = (
    'action_msgs',
    'diagnostic_msgs',
    'geometry_msgs',
    'lifecycle_msgs',
    'rcl_interfaces',
    'sensor_msgs',
    'std_msgs',
    'visualization_msgs',
)
"""Packages of messages that the node imports, besides this package."""

NETWORK = (
    'ROS_DOMAIN_ID',
    'ROS_AUTOMATIC_DISCOVERY_RANGE',
    'ROS_LOCALHOST_ONLY',
    'ROS_STATIC_PEERS',
    'ROS_DISCOVERY_SERVER',
)
FILES = (*dds.PROFILE_VARIABLES, 'CYCLONEDDS_URI', 'ZENOH_SESSION_CONFIG_URI')
"""Variables that name a file of settings of a middleware."""


def check_source(
    environ: Mapping[str, str] = os.environ,
    import_module: Import = importlib.import_module,
    version: tuple[int, ...] = sys.version_info[:3],
) -> Iterator[Check]:
    """Check that rclpy can be imported, and that it is that of the sourced ROS, if one is sourced."""
    prefixes = [Path(entry) for entry in environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if entry]
    sourced = [prefix for prefix in prefixes if (prefix / 'share/rclpy').is_dir()]
    try:
        place = Path(import_module('rclpy').__file__).parent
        import_module('rclpy._rclpy_pybind11')
    except Exception as error:
        yield _no_rclpy(error, sourced, version)
        return
    name = environ.get('ROS_DISTRO', 'of unknown release')
    outside = sourced and not any(prefix.resolve() in place.resolve().parents for prefix in sourced)
    if outside:
        yield fault(
            'ROS',
            f'{sourced[0]} is sourced, but rclpy comes from {place}: two ROS in one process end it without a message',
            f'use a virtual environment without the ROS wheels, or a shell in which {sourced[0]} is not sourced',
        )
    elif sourced:
        yield ok('ROS', f'{name}, sourced from {sourced[0]}')
    else:
        yield ok('ROS', f'wheels from PyPI in {place.parent}')


def _no_rclpy(error: Exception, sourced: list[Path], version: tuple[int, ...]) -> Check:
    text = f'rclpy cannot be imported: {type(error).__name__}: {shorten(error)}'
    folders = [folder for prefix in sourced for folder in prefix.glob('**/*-packages') if (folder / 'rclpy').is_dir()]
    if others := [folder.parent.name for folder in folders if folder.parent.name != f'python{version[0]}.{version[1]}']:
        return fault('ROS', text, f'the sourced ROS is for {others[0]}: use that Python, as scripts/setup does')
    if sourced:
        return fault('ROS', text, f'source {sourced[0]}/setup.bash again; PYTHONPATH lacks its modules')
    return fault('ROS', text, 'source a ROS 2 workspace with instructsam_ros, or install this package with pip')


def check_middleware(
    environ: Mapping[str, str] = os.environ, import_module: Import = importlib.import_module
) -> Iterator[Check]:
    """Load the middleware, and check its settings and the shared memory."""
    try:
        name = import_module('rclpy.utilities').get_rmw_implementation_identifier()
    except ModuleNotFoundError:  # check_source says so
        return
    except Exception as error:
        chosen = environ.get('RMW_IMPLEMENTATION', '')
        package = f'ros-{environ.get("ROS_DISTRO", "DISTRO")}-{(chosen or "rmw_fastrtps_cpp").replace("_", "-")}'
        yield fault(
            'middleware',
            f'RMW_IMPLEMENTATION is {chosen!r}, and it cannot be loaded: {shorten(error)}',
            f'apt install {package}, or unset RMW_IMPLEMENTATION',
        )
        return
    yield ok('middleware', name)
    for variable in FILES:
        path = environ.get(variable, '')
        if variable == 'CYCLONEDDS_URI':  # A list of files and XML; often $CYCLONEDDS_URI,<...>, where it was empty.
            path = path.partition(',')[0]
        path = path.removeprefix('file://')
        if path and not path.lstrip().startswith('<') and not os.path.isfile(path):
            yield fault('middleware', f'{variable} names {path}, which is not a file', f'correct or unset {variable}')


def check_shared_memory() -> Iterator[Check]:
    """Check the free shared memory; without enough of it, Fast DDS is killed."""
    try:
        free_mb = dds.check_shared_memory()
    except InstructSAMError as error:
        text, _, advice = str(error).partition(': ')
        yield fault('shared memory', text, advice)
        return
    if free_mb is not None:
        yield ok('shared memory', f'{dds.SHARED_MEMORY} has {free_mb:,.0f} MB left')


def check_network(environ: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Check the variables that decide which nodes find each other."""
    try:
        dds.check_environment()
    except InstructSAMError as error:
        yield fault('network', error, 'correct the variable, in every shell alike')
        return
    values = ', '.join(f'{name}={environ[name]}' for name in NETWORK if environ.get(name))
    text = values or 'domain 0, the whole subnet'
    if environ.get('ROS_SECURITY_ENABLE') == 'true' and not os.path.isdir(environ.get('ROS_SECURITY_KEYSTORE', '')):
        yield fault(
            'network',
            f'ROS_SECURITY_ENABLE is true, but ROS_SECURITY_KEYSTORE is {environ.get("ROS_SECURITY_KEYSTORE", "")!r}',
            'name the folder of the keystore (docs/security.md)',
        )
    elif environ.get('ROS_LOCALHOST_ONLY') == '1' or environ.get(dds.RANGE_VARIABLE) in ('LOCALHOST', 'OFF'):
        yield note('network', text, 'only nodes of this machine find each other')
    else:
        yield ok('network', text)


def check_messages(
    environ: Mapping[str, str] = os.environ, import_module: Import = importlib.import_module
) -> Iterator[Check]:
    """Import the messages and their compiled parts."""
    for package in MESSAGES:
        try:
            import_module(f'{package}.msg')
        except Exception as error:
            apt = f'ros-{environ.get("ROS_DISTRO", "DISTRO")}-{package.replace("_", "-")}'
            yield fault('messages', f'{package}: {type(error).__name__}: {shorten(error)}', f'apt install {apt}')
    try:
        messages = import_module('instructsam_ros.msg')
        import_module('rclpy.type_support').check_for_type_support(messages.InstanceArray)
    except Exception as error:
        yield fault(
            'messages',
            f'those of instructsam_ros cannot be used: {type(error).__name__}: {shorten(error)}',
            'build them: colcon build --packages-select instructsam_ros && source install/setup.bash, or pip install .',
        )
        return
    yield ok('messages', f'instructsam_ros in {Path(messages.__file__).parents[1]}')


def check_launch(
    environ: Mapping[str, str] = os.environ,
    run: Callable[..., Any] = subprocess.run,
    modules: Iterable[str] = ('torch', 'transformers', 'rclpy', 'instructsam_ros'),
) -> Iterator[Check]:
    """Check that the Python that `ros2 launch` and `ros2 run` start finds the same packages as this one."""
    if not environ.get('AMENT_PREFIX_PATH'):
        return
    python = shutil.which('python3', path=environ.get('PATH', os.defpath))
    if python is None:
        yield fault('ros2 launch', 'there is no python3 in PATH', 'apt install python3')
        return
    script = (
        'import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n) is None])'  # imports none
    )
    done = run([python, '-c', script, *modules], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode or done.stdout.split():
        missing = ', '.join(done.stdout.split()) or shorten(done.stderr)
        yield fault(
            'ros2 launch',
            f'the nodes start with {python}, which lacks {missing}',
            'run scripts/setup --ros-workspace in the package, then source install/setup.bash again',
        )
    else:
        yield ok('ros2 launch', f'the nodes start with {python}, which has {", ".join(modules)}')


def check_optional(import_module: Import = importlib.import_module) -> Iterator[Check]:
    """Name the parts of the node that need a missing package."""
    try:
        import_module('tf2_ros')
    except ImportError:
        yield note('tf2', 'tf2_ros is not installed', 'needed by the parameter target_frame only')
