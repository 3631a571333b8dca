"""A scene as a recording of a robot's RGB-D camera that moves about it: `instructsam tabletop bag`.

    /camera/color/image_raw/compressed             sensor_msgs/CompressedImage, JPEG
    /camera/color/camera_info                      sensor_msgs/CameraInfo, of both images
    /camera/aligned_depth_to_color/image_raw       sensor_msgs/Image, 16UC1: mm along the optical axis
    /tf                                            the camera's optical frame in `world`

It is a ROS 2 bag (mcap, zstd). The file truth.jsonl in the same folder holds the ground truth, one line per frame with
the keys that `tabletop generate` writes for a scene.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from instructsam.core.spatial.rotations import matrix_to_quaternion
from instructsam.train.tabletop.generate import depth_mm
from instructsam.train.tabletop.records import scene_facts
from instructsam.train.tabletop.scenes.motion import swayed
from instructsam.train.tabletop.scenes.scene import Scene, photograph_objects, stage_scene
from instructsam.train.tabletop.world.splits import generator

COLOR = '/camera/color/image_raw/compressed'
INFO = '/camera/color/camera_info'
DEPTH = '/camera/aligned_depth_to_color/image_raw'
TF = '/tf'
TYPES = {
    COLOR: 'sensor_msgs/msg/CompressedImage',
    INFO: 'sensor_msgs/msg/CameraInfo',
    DEPTH: 'sensor_msgs/msg/Image',
    TF: 'tf2_msgs/msg/TFMessage',
}
FRAME_ID = 'camera_color_optical_frame'
START_S = 1_767_225_600  # stamp of the first frame of every recording: 2026-01-01


def write_bag(
    folder: Path, split: str, seed: int, index: int, size: tuple[int, int], duration_s: float, fps: float
) -> int:
    """Write a bag in which every frame shows the same objects, and return the number of frames.

    Args:
        folder: The folder to create; it must not exist.
        split: One of `splits.SPLITS`.
        seed: Seed of the dataset.
        index: Number of the scene.
        size: (width, height) px.
        duration_s: Length of the recording.
        fps: Frames per second.
    """
    objects, room, camera = stage_scene(split, index, seed, size)
    store = get_typestore(Stores.ROS2_JAZZY)
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    frames = max(1, round(duration_s * fps))
    with ExitStack() as stack:
        stack.enter_context(writer)
        topics = {topic: writer.add_connection(topic, name, typestore=store) for topic, name in TYPES.items()}
        ground_truth = stack.enter_context((folder / 'truth.jsonl').open('w', encoding='utf-8'))
        for frame in range(frames):
            # The generator is the same for all frames, because the camera's settings do not change.
            rng = generator(split, seed, index, 'sensor')
            scene = photograph_objects(objects, room, swayed(camera, frame / fps), rng, (split, seed, index))
            time_ns = START_S * 10**9 + round(frame / fps * 1e9)
            for topic, message in _messages(store, scene, time_ns).items():
                writer.write(topics[topic], time_ns, store.serialize_cdr(message, TYPES[topic]))
            facts = {**scene_facts(scene), 'stamp_ns': time_ns}
            del facts['image'], facts['depth']  # names of files that a bag does not contain
            ground_truth.write(json.dumps(facts) + '\n')
    return frames


def _messages(store: Typestore, scene: Scene, time_ns: int) -> dict[str, Any]:
    """Return the messages of one frame by topic."""

    def new(name: str, *values: Any) -> Any:
        return store.types[name](*values)

    stamp = new('builtin_interfaces/msg/Time', time_ns // 10**9, time_ns % 10**9)
    header = new('std_msgs/msg/Header', stamp, FRAME_ID)
    height, width = scene.depth.shape
    k = scene.camera.intrinsics
    p = np.hstack([k, np.zeros((3, 1))]).ravel()
    no_binning, whole = (0, 0), new('sensor_msgs/msg/RegionOfInterest', 0, 0, 0, 0, False)
    distortion = ('plumb_bob', np.zeros(5))
    depth = depth_mm(scene.depth).astype('<u2')
    pose = new(
        'geometry_msgs/msg/Transform',
        new('geometry_msgs/msg/Vector3', *scene.camera.position.tolist()),
        new('geometry_msgs/msg/Quaternion', *matrix_to_quaternion(scene.camera.rotation).tolist()),
    )
    in_world = new('std_msgs/msg/Header', stamp, 'world')
    return {
        COLOR: new(TYPES[COLOR], header, 'rgb8; jpeg compressed bgr8', np.frombuffer(scene.jpeg, np.uint8)),
        INFO: new(TYPES[INFO], header, height, width, *distortion, k.ravel(), np.eye(3).ravel(), p, *no_binning, whole),
        DEPTH: new(TYPES[DEPTH], header, height, width, '16UC1', 0, 2 * width, depth.view(np.uint8).ravel()),
        TF: new(TYPES[TF], [new('geometry_msgs/msg/TransformStamped', in_world, FRAME_ID, pose)]),
    }
