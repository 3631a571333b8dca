"""A scene as a recording of a robot's RGB-D camera that moves about it: `instructsam tabletop bag`.

    /camera/color/image_raw/compressed             sensor_msgs/CompressedImage, JPEG
    /camera/color/camera_info                      sensor_msgs/CameraInfo, of both images
    /camera/aligned_depth_to_color/image_raw       sensor_msgs/Image, 16UC1: mm along the optical axis
    /tf                                            the camera's optical frame in `world`

A ROS 2 bag (mcap, zstd). Beside it, truth.jsonl has a line a frame: what `tabletop generate` writes of a scene.
"""

import json
from contextlib import ExitStack

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from instructsam.train.tabletop.generate import depth_mm
from instructsam.train.tabletop.records import scene_facts
from instructsam.train.tabletop.scenes.motion import swayed
from instructsam.train.tabletop.scenes.scene import photograph_things, staged
from instructsam.train.tabletop.world.splits import generator

COLOR = '/camera/color/image_raw/compressed'
INFO = '/camera/color/camera_info'
DEPTH = '/camera/aligned_depth_to_color/image_raw'
FRAME_ID = 'camera_color_optical_frame'
START_S = 1_767_225_600  # 2026-01-01, of every recording


def write_bag(folder, split, seed, index, size, seconds, fps):
    """Writes the bag `folder`, which must not exist yet; a frame is a scene of the same things. Returns the frames."""
    things, room, camera = staged(split, index, seed, size)
    store = get_typestore(Stores.ROS2_JAZZY)
    kinds = {COLOR: 'CompressedImage', INFO: 'CameraInfo', DEPTH: 'Image'}
    names = {**{topic: f'sensor_msgs/msg/{kind}' for topic, kind in kinds.items()}, '/tf': 'tf2_msgs/msg/TFMessage'}
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    frames = max(1, round(seconds * fps))
    with ExitStack() as stack:
        stack.enter_context(writer)
        topics = {topic: writer.add_connection(topic, name, typestore=store) for topic, name in names.items()}
        truth = stack.enter_context((folder / 'truth.jsonl').open('w', encoding='utf-8'))
        for frame in range(frames):
            rng = generator(split, seed, index, 'sensor')  # one camera, whose settings stay
            eye = swayed(camera, frame / fps)
            shot = photograph_things(things, room, eye, rng, (split, seed, index))
            time_ns = START_S * 10**9 + round(frame / fps * 1e9)
            for topic, message in zip(topics, _messages(store, shot, time_ns)):
                writer.write(topics[topic], time_ns, store.serialize_cdr(message, names[topic]))
            facts = {**scene_facts(shot), 'stamp_ns': time_ns}
            del facts['image'], facts['depth']
            truth.write(json.dumps(facts) + '\n')
    return frames


def _messages(store, shot, time_ns):
    """Colour, camera info, depth and pose of a shot."""

    def of(name, *values):
        return store.types[name](*values)

    stamp = of('builtin_interfaces/msg/Time', time_ns // 10**9, time_ns % 10**9)
    header = of('std_msgs/msg/Header', stamp, FRAME_ID)
    height, width = shot.depth.shape
    k = shot.camera.intrinsics
    region = of('sensor_msgs/msg/RegionOfInterest', 0, 0, 0, 0, False)
    p = np.hstack([k, np.zeros((3, 1))]).ravel()
    depth = depth_mm(shot.depth).astype('<u2')
    vector, quaternion = shot.camera.position.tolist(), Rotation.from_matrix(shot.camera.rotation).as_quat().tolist()
    pose = of(
        'geometry_msgs/msg/Transform',
        of('geometry_msgs/msg/Vector3', *vector),
        of('geometry_msgs/msg/Quaternion', *quaternion),
    )
    world = of('std_msgs/msg/Header', stamp, 'world')
    return (
        of('sensor_msgs/msg/CompressedImage', header, 'rgb8; jpeg compressed bgr8', np.frombuffer(shot.jpeg, np.uint8)),
        of(
            'sensor_msgs/msg/CameraInfo',
            header,
            height,
            width,
            'plumb_bob',
            np.zeros(5),
            k.ravel(),
            np.eye(3).ravel(),
            p,
            0,
            0,
            region,
        ),
        of('sensor_msgs/msg/Image', header, height, width, '16UC1', 0, 2 * width, depth.view(np.uint8).ravel()),
        of('tf2_msgs/msg/TFMessage', [of('geometry_msgs/msg/TransformStamped', world, FRAME_ID, pose)]),
    )
