"""Builds the wheel: the Python packages and the ROS messages, which CMake (rosidl) generates and compiles."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from setuptools import Command, find_packages, setup
from setuptools.command.build import build
from setuptools.dist import Distribution

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / 'scripts/backend'))

from requirements import requirements  # noqa: E402
from ros_source import NONE, build_environment, ros_source  # noqa: E402

NAME = 'instructsam_ros'
INTERFACES = ('msg', 'srv', 'action')  # both folder names and file extensions
ROS, WHY = ros_source()
# Headers, files that contain the build's own paths, and commands, which pip creates itself.
LEFT_OUT = {'include', 'parent_prefix_path', 'environment', 'bin'}


class BuildRos(Command):
    """Generates and compiles the ROS interfaces with the same CMakeLists.txt as colcon."""

    description = 'generate and compile the ROS interfaces'
    user_options: ClassVar = []
    editable_mode = False  # Set by setuptools; the interfaces are then generated into the source tree.
    build_lib = None

    def initialize_options(self):
        """Do nothing; setuptools requires the method."""

    def finalize_options(self):
        """Take the build folder from the command `build`."""
        self.set_undefined_options('build', ('build_lib', 'build_lib'))

    def get_source_files(self):
        """Return the files that a source distribution needs for this command."""
        return ['package.xml', 'CMakeLists.txt', *(str(p) for kind in INTERFACES for p in Path(kind).glob(f'*.{kind}'))]

    def get_outputs(self):
        """Return no files: `run` adds the outputs to the package itself."""
        return []

    def get_output_mapping(self):
        """Return no links: the outputs do not mirror source files."""
        return {}

    def run(self):
        """Build the interfaces, and add them and the other installed files to the distribution."""
        if ROS == NONE:
            self.warn(f'{NAME} is built WITHOUT ROS messages and nodes: {WHY}')
            return
        self.announce(f'building the ROS messages with {WHY}', logging.INFO)
        build_tree = ROOT / 'build' / f'ros-{sys.implementation.cache_tag}'
        stage = build_tree / 'stage'
        shutil.rmtree(build_tree, ignore_errors=True)  # an earlier build may have used another ROS
        self.compile(build_tree, stage)
        site = next(stage.glob('**/*-packages'))
        package = ROOT / NAME if self.editable_mode else Path(self.build_lib) / NAME
        not_python = shutil.ignore_patterns('*.c', '__pycache__')
        for kind in INTERFACES:
            shutil.copytree(site / NAME / kind, package / kind, dirs_exist_ok=True, ignore=not_python)
        for library in (site / NAME).glob('*.so'):
            (package / library.name).unlink(missing_ok=True)  # overwriting it would crash a process that has it loaded
            shutil.copy2(library, package)
        # The rest (lib/*.so, lib/instructsam_ros/*, share/**) is installed into the environment's prefix.
        for path in sorted(stage.rglob('*')):
            inside = path.relative_to(stage)
            if path.is_file() and site not in path.parents and not LEFT_OUT & set(inside.parts):
                self.distribution.data_files.append((str(inside.parent), [str(path.relative_to(ROOT))]))

    def compile(self, build_tree, stage):
        """Configure in `build_tree`, build, and install to `stage`."""
        rpath = ['$ORIGIN', '$ORIGIN/../../..']  # lib/, relative to itself and to the package's folder
        if self.editable_mode:
            rpath.append(f'{sys.prefix}/lib')
        env = build_environment(ROS)
        generator = ['-G', 'Ninja'] if shutil.which('ninja') else []
        settings = {
            'CMAKE_BUILD_TYPE': 'Release',
            'BUILD_TESTING': 'OFF',
            'CMAKE_INSTALL_PREFIX': stage,
            'CMAKE_INSTALL_RPATH': ';'.join(rpath),
            'Python3_EXECUTABLE': sys.executable,
        }
        options = [f'-D{key}={value}' for key, value in settings.items()]
        subprocess.run(['cmake', '-S', ROOT, '-B', build_tree, *generator, *options], env=env, check=True)
        subprocess.run(['cmake', '--build', build_tree, '--target', 'install', '--parallel'], env=env, check=True)


class Build(build):
    """The command `build`, which also builds the ROS interfaces."""

    sub_commands: ClassVar = [*build.sub_commands, ('build_ros', None)]

    def run(self):
        """Build into an empty folder, so that modules deleted since the last build are not packed."""
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class RosDistribution(Distribution):
    """A distribution with compiled code and data files."""

    def has_ext_modules(self):
        """Return whether the wheel contains compiled code."""
        return ROS != NONE

    def has_data(self):
        """Return whether there are data files; without this, setuptools' editable_wheel omits them."""
        return bool(self.data_files)


def package_folders():
    """Return the folder of every package and subpackage, by import name."""
    tops = {'instructsam.core': 'core', 'instructsam.train': 'train'}
    subs = {
        f'{name}.{sub}': f'{folder}/{sub.replace(".", "/")}'
        for name, folder in tops.items()
        for sub in find_packages(folder)
    }
    if ROS == NONE:
        return {**tops, **subs}
    # The interfaces, which an editable build generates into the source tree, are added by build_ros.
    rooms = find_packages(NAME, exclude=[pattern for kind in INTERFACES for pattern in (kind, f'{kind}.*')])
    nodes = {f'{NAME}.{room}': f'{NAME}/{room.replace(".", "/")}' for room in rooms}
    return {**tops, **subs, NAME: NAME, **nodes}


commands = ['instructsam = instructsam.core.cli:main']
if ROS != NONE:
    commands += [
        'instructsam-perception = instructsam_ros.entry_points:perception_node',
        'instructsam-replay = instructsam_ros.entry_points:replay',
        'instructsam-simulated-camera = instructsam_ros.entry_points:simulated_camera',
    ]

setup(
    packages=list(package_folders()),
    package_dir=package_folders(),
    # Markers for type checkers (PEP 561), the built-in model, samples and style of the page, training configurations,
    # the template of evaluation reports, and the demo's data.
    package_data={
        'instructsam.core': ['py.typed', 'pretrained/**/*', 'benchmark/*.json', 'web/samples/*', 'web/style.css'],
        'instructsam.train': ['py.typed', 'configs/**/*', '**/*.jinja'],
        NAME: ['py.typed', 'data/**/*'],
    },
    exclude_package_data={'': ['*.pyc']},
    data_files=[],
    install_requires=requirements(ROS),
    entry_points={'console_scripts': commands},
    cmdclass={'build': Build, 'build_ros': BuildRos},
    distclass=RosDistribution,
)
