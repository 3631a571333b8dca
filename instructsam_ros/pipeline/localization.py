"""From a result and a depth image to instances in 3D, in the camera's optical frame or in the target frame."""

import time
from dataclasses import dataclass, replace

from std_msgs.msg import Header

from instructsam.core.errors import GeometryError
from instructsam.core.result import Result
from instructsam.core.spatial.geometry import locate
from instructsam_ros.conversions.depth import camera_model, to_depth
from instructsam_ros.conversions.images import ImageFormatError
from instructsam_ros.conversions.instances import to_msg
from instructsam_ros.node.transforms import TransformError
from instructsam_ros.pipeline.depth_sync import NoDepthError


@dataclass(frozen=True, eq=False)
class Answer:
    """What the node says about one image: the engine's result, and where its objects are."""

    result: Result
    frame_id: str = ''  # of the instances' geometry; '' where nothing was measured
    message: str = ''  # why not

    def to_msg(self, image_header, instruction, instruction_id):
        """The InstanceArray; the arguments as in messages.to_msg."""
        return to_msg(self.result, image_header, instruction, instruction_id, self.frame_id, self.message)

    def header(self, image_header):
        """That of everything in 3D: the image's stamp, and the frame of the geometry."""
        return Header(stamp=image_header.stamp, frame_id=self.frame_id or image_header.frame_id)


class Locator:
    """Measures results. Used in the worker's thread."""

    def __init__(self, frames):
        self._frames = frames

    def answer(self, result, header, find, settings):
        """The Answer of `result` on the image of `header`. find: called with its stamp, gives (depth image, camera
        info) or raises NoDepthError; settings: parameters.Settings.
        """
        start = time.perf_counter()
        if not result.instances:
            return Answer(result)
        try:
            depth, info = find(header.stamp)
            frame_id = header.frame_id
            result = locate(result, to_depth(depth), camera_model(info))
            if settings.target_frame and settings.target_frame != frame_id:
                frame_id = settings.target_frame
                turn = self._frames.between(frame_id, header.frame_id, header.stamp, settings.depth_timeout_s)
                result = _moved(result, *turn)
        except (NoDepthError, ImageFormatError, GeometryError, TransformError) as error:
            return Answer(_without_geometry(result), message=str(error))
        times_ms = result.timings_ms | {'geometry': (time.perf_counter() - start) * 1e3}
        return Answer(replace(result, timings_ms=times_ms), frame_id)


def _moved(result, rotation, translation):
    return replace(
        result,
        instances=tuple(
            replace(each, geometry=each.geometry.moved(rotation, translation)) if each.geometry is not None else each
            for each in result.instances
        ),
    )


def _without_geometry(result):
    return replace(result, instances=tuple(replace(each, geometry=None) for each in result.instances))
