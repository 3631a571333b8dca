"""Fresh environments to install into: ROS wheels from a folder that is filled once, torch from the running Python."""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'scripts/backend'))

import ros_source  # noqa: E402

COLCON = ['colcon-core', 'colcon-bash', 'colcon-cmake', 'colcon-library-path', 'colcon-recursive-crawl', 'colcon-ros']
GENERATED = shutil.ignore_patterns('.*', '__pycache__', '*.so')
GENERATED_IN_ROOT = {'build', 'data', 'dist', 'install', 'log', 'runs'}


def _not_sources(folder, names):
    """Return the names in `folder` that do not belong to the sources; an `ignore` function for shutil.copytree."""
    return GENERATED(folder, names) | (GENERATED_IN_ROOT if Path(folder) == ROOT else set())


def run(*command, variables=None, cwd=None):
    """Run a command without the settings of ROS or of this Python; return stdout and stderr together.

    Args:
        *command: The program and its arguments.
        variables: Environment variables added to the cleaned environment.
        cwd: Working directory.

    Returns:
        The output as text. A command that fails raises an AssertionError with its output.
    """
    ours = ('AMENT_', 'CMAKE_PREFIX', 'COLCON_', 'INSTRUCTSAM_', 'LD_LIBRARY_PATH', 'PYTHON', 'ROS_', '_ROS_')
    env = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    env['PATH'] = ros_source.joined(p for p in env['PATH'].split(os.pathsep) if not p.startswith(sys.prefix))
    command = [str(part) for part in command]
    done = subprocess.run(
        command,
        env={**env, **(variables or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f'{command} exited with {done.returncode}:\n{done.stdout[-6000:]}'
    return done.stdout


class Environment:
    """A virtual environment in `prefix` that installs packages only from the folder `wheelhouse`."""

    def __init__(self, prefix, wheelhouse, requirements):
        venv.create(prefix, symlinks=True)
        self.prefix = prefix
        self.wheelhouse = wheelhouse
        self.site = prefix / f'lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages'
        if requirements:
            self.pip('install', *requirements)

    def run(self, program, *arguments, **options):
        """Run a program of this environment's bin folder; see `run` above."""
        return run(self.prefix / 'bin' / program, *arguments, **options)

    def pip(self, *arguments, variables=None):
        """Run pip on this environment, without an index and without compiling modules ahead; return its output."""
        offline = ['--no-index', '--find-links', self.wheelhouse, '--disable-pip-version-check']
        variables = {'PIP_COMPILE': '0', **(variables or {})}  # reaches the pip that makes the build environment, too
        command = (sys.executable, '-m', 'pip', '-v', '--python', self.prefix, *arguments, *offline)
        return run(*command, variables=variables)

    def borrow_torch(self):
        """Make the packages of the running environment importable, after those installed here."""
        (self.site / 'borrowed.pth').write_text(sysconfig.get_paths()['purelib'])

    def distributions(self):
        """Return the distributions that pip has installed here, by lower-case name."""
        distributions = importlib.metadata.distributions(path=[str(self.site)])
        return {distribution.metadata['Name'].lower(): distribution for distribution in distributions}

    @property
    def as_underlay(self):
        """The variables that sourcing this prefix's ROS would set."""
        libraries = [self.prefix / 'lib', *self.site.glob('ros_*.libs')]
        return {
            'AMENT_PREFIX_PATH': str(self.prefix),
            'CMAKE_PREFIX_PATH': str(self.prefix),
            'LD_LIBRARY_PATH': ros_source.joined(libraries),
            'PYTHONPATH': str(self.site),
        }


@pytest.fixture(scope='session')
def wheelhouse(pytestconfig):
    """A folder with the wheels of everything installed below except torch and its dependencies; filled once."""
    if ros_source.ros_source(environ={})[0] != ros_source.WHEELS:
        pytest.skip('there are no ROS wheels for this platform')
    groups = [
        [*ros_source.build_requirements(ros_source.WHEELS), *ros_source.RUN_WHEELS, 'setuptools>=77', 'wheel'],
        ros_source.build_requirements(ros_source.SOURCED),
        COLCON,
    ]
    key = hashlib.sha256(repr((groups, sys.version)).encode()).hexdigest()[:16]
    folder = pytestconfig.cache.mkdir('wheelhouse')
    if not (folder / key).exists():
        for requirements in groups:
            run(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--wheel-dir', folder, *requirements)
        (folder / key).touch()
    return folder


@pytest.fixture(scope='session')
def environment(wheelhouse, tmp_path_factory):
    """A function that creates a fresh environment with packages: `environment('ros-rclpy', ...)`."""
    return lambda *requirements: Environment(tmp_path_factory.mktemp('env'), wheelhouse, requirements)


@pytest.fixture(scope='session')
def underlay(environment):
    """A ROS installation to source, made of the wheels."""
    made = environment(*ros_source.build_requirements(ros_source.WHEELS), *ros_source.RUN_WHEELS, 'setuptools')
    made.borrow_torch()
    return made


@pytest.fixture(scope='session')
def colcon(environment):
    """Colcon in an environment of its own: it needs an older setuptools than the rest."""
    return environment(*COLCON)


@pytest.fixture(name='run')
def run_fixture():
    return run


@pytest.fixture
def tree(tmp_path):
    """A copy of the sources without generated files."""
    folder = tmp_path / 'src/instructsam_ros'
    shutil.copytree(ROOT, folder, ignore=_not_sources)
    for kind in ('action', 'msg', 'srv'):
        shutil.rmtree(folder / 'instructsam_ros' / kind, ignore_errors=True)
    return folder


@pytest.fixture
def check(tree, domain_id):
    """Runs check_install.py against the copied sources: `check(environment.run, 'python', variables=...)`."""
    script = Path(__file__).with_name('check_install.py')
    domain = {'ROS_DOMAIN_ID': str(domain_id), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}

    def run_check(runner, *command, variables=None):
        runner(*command, script, tree, variables={**domain, **(variables or {})}, cwd=tree.parent)

    return run_check
