"""Images, masks, boxes, points and scores as entities of Rerun (https://rerun.io), a viewer of data over time.

    camera                    labels and colors of the objects, by class; the class follows the track id
    camera/image              pinhole camera
    camera/image/color        image (JPEG)
    camera/image/masks        segmentation image, 0: background
    camera/image/boxes        boxes of the masks, with ids, phrases and scores
    camera/image/depth        depth image
    camera/objects/boxes      oriented boxes in 3D, m, in the camera's optical frame
    camera/objects/points     points in 3D
    frames/FRAME/objects/...  boxes and points instead, if the node measures in a target frame
    scores/id_N, object_N     score of the object with track id N, or of the N-th best one, over time
    log                       instruction, status, phrases, reasons and errors

The timeline `stamp` is the images' time, `bag_time` that of a recording. Rerun shows the newest values before the time
that is looked at, so whatever an answer does not have is logged as empty: nothing is shown on another answer's image.
"""
# Recent versions of Rerun refuse Python 3.10 at import, and pyright checks for 3.10: it sees no names behind that.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from inspect import signature
from typing import Any

import numpy as np
import rerun as rr  # pyright: ignore[reportMissingImports]  # of the extra rerun
import rerun.blueprint as rrb  # pyright: ignore[reportMissingImports]
from builtin_interfaces.msg import Time

from instructsam.core.display.jpeg import encode_jpeg
from instructsam.core.display.overlay import id_text, instance_color, number_of
from instructsam.core.errors import InstructSAMError
from instructsam.core.result import UNTRACKED, Instance, Result
from instructsam.core.spatial.camera_model import CameraModel
from instructsam.core.text import shorten
from instructsam_ros.conversions.poses import position_of
from instructsam_ros.conversions.stamps import is_set, nanoseconds
from instructsam_ros.msg import InstanceArray
from instructsam_ros.viewer.labels import class_ids, class_map, describe, label
from instructsam_ros.viewer.sinks import Sink

APPLICATION = 'instructsam'
LONGEST_FLUSH_S = 30.0
FLUSH_LIMIT = (
    {'timeout_sec': LONGEST_FLUSH_S} if 'timeout_sec' in signature(rr.RecordingStream.flush).parameters else {}
)
"""Arguments of RecordingStream.flush: early releases of Rerun had no limit."""

IMAGE, OBJECTS = 'camera/image', 'camera/objects'
LEVELS = {
    InstanceArray.STATUS_OK: rr.TextLogLevel.INFO,
    InstanceArray.STATUS_NO_TARGET: rr.TextLogLevel.INFO,
    InstanceArray.STATUS_ERROR: rr.TextLogLevel.ERROR,
}


class Recording:
    """A recording; a context manager.

    Args:
        sink: Where it goes.

    Raises:
        ViewerError: The viewer cannot be started or reached.
        OSError: The file cannot be written. Every other method may raise it as well.
    """

    def __init__(self, sink: Sink) -> None:
        self._stream: Any = rr.RecordingStream(APPLICATION)
        self._sink = sink
        with self._explained():
            sink.open(self._stream)
            self._stream.flush(**FLUSH_LIMIT)
        self._of_answer: set[str] = set()  # entities that are empty until an answer's own are logged
        self._plotted: set[str] = set()  # entities of scores that have a name and a color
        self._scored: set[str] = set()  # those of the previous answer
        self._object_frames = {OBJECTS}  # entities that objects in 3D are logged to
        self._objects = OBJECTS
        self._log('camera', rr.ViewCoordinates.RDF, static=True)  # of an optical frame (REP 103)
        self._send_blueprint()

    def set_time(self, stamp: Time, bag_time_ns: int | None = None) -> None:
        """Set the time of everything that is logged next: the stamp of its image, and the bag time if there is one."""
        if is_set(stamp):
            self._stream.set_time('stamp', timestamp=np.datetime64(nanoseconds(stamp), 'ns'))
        else:
            self._stream.disable_timeline('stamp')
        if bag_time_ns is not None:
            self._stream.set_time('bag_time', timestamp=np.datetime64(bag_time_ns, 'ns'))

    def log_image(self, image: np.ndarray) -> None:
        """Log an image, [H, W, 3] uint8 RGB."""
        self._log_of_answer(f'{IMAGE}/color', rr.EncodedImage(contents=encode_jpeg(image), media_type='image/jpeg'))

    def log_camera(self, camera: CameraModel) -> None:
        """Log the pinhole of a camera model. Rerun knows no lens: distorted images and 3D differ at the borders."""
        k = camera.intrinsics.copy()
        k[2, 2] = 1.0
        self._log(IMAGE, rr.Pinhole(image_from_camera=k, resolution=[camera.width, camera.height]))

    def log_depth(self, depth_m: np.ndarray) -> None:
        """Log depth, [H, W] m, 0 where there is none, as mm; Rerun shows its points through the pinhole."""
        depth_mm = np.rint(1e3 * depth_m).clip(0, 65_535).astype(np.uint16)
        self._log_of_answer(f'{IMAGE}/depth', rr.DepthImage(depth_mm, meter=1000.0))

    def log_points(self, points: np.ndarray, classes: np.ndarray) -> None:
        """Log the points [N, 3] m of an answer's objects, after the answer; classes: [N] uint16, see class_ids."""
        self._log(f'{self._objects}/points', rr.Points3D(points, class_ids=classes))

    def log_answer(self, message: InstanceArray, result: Result) -> None:
        """Log masks, boxes, scores and texts of an answer; `result` is the same, as result_from_msg returns it.

        Raises GeometryError if a position is not finite.
        """
        for entity in self._of_answer:
            self._log(entity, rr.Clear(recursive=False))
        instances, classes = result.instances, class_ids(result.instances)
        labels = list(map(label, instances))
        infos = {0: (0, 'background', (0, 0, 0, 0))}
        for index, (number, instance) in enumerate(zip(classes.tolist(), instances, strict=True)):
            infos[number] = number, labels[index], (*instance_color(number_of(instance, index)), 255)
        self._log('camera', rr.AnnotationContext(list(infos.values())))
        if result.height and result.width:  # an error may not know the size
            masks = class_map(result)
            self._log(f'{IMAGE}/masks', rr.SegmentationImage(masks.astype(np.min_scalar_type(max(infos)))))
        else:
            self._log(f'{IMAGE}/masks', rr.Clear(recursive=False))
        boxes = np.array([each.box for each in instances], np.float32).reshape(-1, 4)
        self._log(
            f'{IMAGE}/boxes',
            rr.Boxes2D(array=boxes, array_format=rr.Box2DFormat.XYXY, labels=labels, class_ids=classes),
        )
        self._log_located(message, labels, classes)
        self._log_scores(instances)
        self._log('log', rr.TextLog(describe(message), level=LEVELS.get(message.status, rr.TextLogLevel.WARN)))

    def log_warning(self, text: str) -> None:
        """Log a line of text."""
        self._log('log', rr.TextLog(shorten(text), level=rr.TextLogLevel.WARN))

    def close(self) -> None:
        """Send or write everything that is left."""
        try:
            with self._explained():
                self._stream.flush(**FLUSH_LIMIT)
        finally:
            self._stream.disconnect()
            self._sink.close()

    def __enter__(self) -> 'Recording':
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(InstructSAMError):  # the error of the block is the first
                self.close()

    def _log_located(self, message: InstanceArray, labels: Sequence[str], classes: np.ndarray) -> None:
        """Log the oriented boxes in 3D, and drop those of another frame and the points, which come later."""
        frame, camera_frame = message.geometry_frame_id.lstrip('/'), message.header.frame_id.lstrip('/')
        self._objects = OBJECTS
        if frame and frame != camera_frame:
            self._objects = f'{rr.new_entity_path(["frames", shorten(frame)])}/objects'
        if self._objects not in self._object_frames:
            self._object_frames.add(self._objects)
            # REP 103: frames other than optical ones have x forward, y left, z up.
            axes = rr.ViewCoordinates.RDF if 'optical' in frame else rr.ViewCoordinates.FLU
            self._log(_frame_of(self._objects), axes, static=True)
            self._send_blueprint()
        for entity in self._object_frames - {self._objects}:
            self._log(entity, rr.Clear(recursive=True))
        located = [index for index, each in enumerate(message.instances) if each.has_geometry]
        geometries = [each.geometry for each in message.instances if each.has_geometry]
        boxes = rr.Boxes3D(
            centers=np.array([position_of(each.pose.position) for each in geometries]).reshape(-1, 3),
            half_sizes=np.array([position_of(each.size) / 2 for each in geometries]).reshape(-1, 3),
            quaternions=[rr.Quaternion(xyzw=_xyzw(each.pose.orientation)) for each in geometries],
            labels=[labels[index] for index in located],
            class_ids=classes[located],
        )
        self._log(f'{self._objects}/boxes', boxes)
        self.log_points(np.zeros((0, 3), np.float32), classes[:0])

    def _log_scores(self, instances: Sequence[Instance]) -> None:
        """Log the score of each object, and end the lines of those that are gone."""
        scored = set()
        for index, instance in enumerate(instances):
            is_tracked = instance.track_id != UNTRACKED
            entity = f'scores/id_{instance.track_id}' if is_tracked else f'scores/object_{index + 1}'
            scored.add(entity)
            if entity not in self._plotted:
                self._plotted.add(entity)
                name = f'{id_text(instance)}{shorten(instance.phrase)}' if is_tracked else f'object {index + 1}'
                color = instance_color(number_of(instance, index))
                self._log(entity, rr.SeriesLines(names=name, colors=[color]), static=True)
            self._log(entity, rr.Scalars(instance.score))
        for entity in self._scored - scored:
            self._log(entity, rr.Clear(recursive=False))
        self._scored = scored

    def _send_blueprint(self) -> None:
        """Lay out the views: image, 3D, scores and log."""
        views_3d = [
            rrb.Spatial3DView(origin=frame, name=frame) for frame in map(_frame_of, sorted(self._object_frames))
        ]
        image = rrb.Spatial2DView(origin=IMAGE, name='image', contents=['$origin/**', '- $origin/depth'])
        below = rrb.Horizontal(rrb.TimeSeriesView(origin='scores', name='scores'), rrb.TextLogView(origin='log'))
        layout = rrb.Vertical(rrb.Horizontal(image, *views_3d), below, row_shares=[2, 1])
        self._stream.send_blueprint(rrb.Blueprint(layout, collapse_panels=True))

    @contextmanager
    def _explained(self) -> Generator[None, None, None]:
        """Raise the error of this recording for those of Rerun."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise self._sink.error(shorten(error)) from error

    def _log_of_answer(self, entity: str, values: Any) -> None:
        self._of_answer.add(entity)
        self._log(entity, values)

    def _log(self, entity: str, values: Any, *, static: bool = False) -> None:
        self._sink.check()
        # strict: a mistake is an exception, not a warning and nothing in the recording.
        self._stream.log(entity, values, static=static, strict=True)


def _frame_of(objects: str) -> str:
    """Return the entity of the coordinate frame that an entity of objects is in."""
    return objects.removesuffix('/objects')


def _xyzw(quaternion: Any) -> list[float]:
    return [quaternion.x, quaternion.y, quaternion.z, quaternion.w]
