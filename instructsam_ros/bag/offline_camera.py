"""The node's way of answering, over a bag: every image in order, with its depth, in its own time."""

import struct
from collections import deque
from dataclasses import dataclass

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from instructsam_ros.bag.topics import COMPRESSED
from instructsam_ros.conversions import instances as messages
from instructsam_ros.conversions.images import ImageFormatError
from instructsam_ros.conversions.instances import result_from_msg
from instructsam_ros.conversions.text import one_line
from instructsam_ros.pipeline.answer import Question, explain, work_out
from instructsam_ros.pipeline.camera_frame import Shot
from instructsam_ros.pipeline.camera_stream import Stream
from instructsam_ros.pipeline.depth_sync import KEPT, LATER, nanoseconds
from instructsam_ros.pipeline.localization import Locator
from instructsam_ros.pipeline.statistics import Statistics

LOOK_AHEAD_NS = 1_000_000_000  # of bag time that an image waits for its depth at most


@dataclass(frozen=True, eq=False)
class Frame:
    """One recorded image and what is asked of it."""

    index: int  # from 0, among the images of the topic
    time_ns: int  # of the bag
    data: bytes  # as recorded
    instruction: object  # a worker.Instruction, or None
    depths: int  # images of depth that were recorded before it


class Camera:
    """What the node's camera and worker are to live images: gives frames, and answers them one after the other."""

    def __init__(self, bag, topics, script, settings):
        """Args:
        bag: a BagFile; topics: its bag_topics.Topics; script: a bag_script.Script.
        settings: parameters.Settings.
        """
        self._bag, self._topics, self._script, self._settings = bag, topics, script, settings
        self._kind = CompressedImage if bag.types[topics.image] == COMPRESSED else Image
        self._stream = Stream('', outputs=None, statistics=Statistics())
        self._locator = Locator(frames=None)  # no target frame: geometry stays in the camera's
        self._depths = 0  # read so far
        self._stamps_ns = deque(maxlen=KEPT)  # of the latest, each with its number
        self._has_info = False
        self.unreadable = 0  # depth images and camera infos

    def frames(self):
        """Yields every Frame in order, each once its depth has come or will not. Raises RecordingError."""
        image, depth, info = self._topics.image, self._topics.depth, self._topics.camera_info
        waiting, index = deque(), 0
        for connection, time_ns, data in self._bag.messages({image, depth, info}):
            if connection.topic == image:
                waiting.append(Frame(index, time_ns, data, self._script.at(time_ns), self._depths))
                index += 1
            elif connection.topic == depth:
                self._take_depth(data)
            else:
                self._take_info(data)
            while waiting and (time_ns - waiting[0].time_ns > LOOK_AHEAD_NS or self._is_decided(waiting[0])):
                yield waiting.popleft()
        yield from waiting

    def _is_decided(self, frame):
        """Whether the frame's depth has come, or one so late that its own will not."""
        wanted_ns = stamp_ns(frame.data)
        if not self._topics.depth or frame.instruction is None or wanted_ns is None:
            return True
        late_ns = wanted_ns + self._settings.depth_tolerance_s * 1e9 + LATER
        # what was recorded before the image tells nothing about what comes: stamps may have begun anew in between
        return self._has_info and any(
            came_ns == wanted_ns or (number >= frame.depths and came_ns > late_ns)
            for number, came_ns in self._stamps_ns
        )

    def _take_depth(self, data):
        if (message := self._read(data, Image)) is not None:
            self._stream.depths.put(message)
            self._stamps_ns.append((self._depths, nanoseconds(message.header.stamp)))
            self._depths += 1

    def _take_info(self, data):
        if (message := self._read(data, CameraInfo)) is not None:
            self._stream.depths.put_info(message)
            self._has_info = True

    def _read(self, data, kind):
        try:
            return deserialize_message(data, kind)
        except Exception:  # what rclpy raises for bytes that are no message depends on the middleware
            self.unreadable += 1
            return None

    def answer(self, engine, frame):
        """(InstanceArray, error or None) of a Frame that has an instruction, as the node would publish it."""
        instruction = frame.instruction
        try:
            message = deserialize_message(frame.data, self._kind)
        except Exception as error:  # as above
            text = f'the recorded message is no {self._kind.__name__}: {one_line(error)}'
            return messages.error_msg(text, Header(), instruction.text, instruction.id), ImageFormatError(text)
        shot = Shot(message, frame.index)
        find = self._stream.find_depth(self._settings, _never)
        track = self._stream.tracking(instruction, frame.index)
        question = Question(instruction.text, self._settings, find, track, instruction)
        try:
            answer = work_out(engine, shot, question, self._locator, _never, _never, {})
            return answer.to_msg(shot.header, instruction.text, instruction.id), None
        except Exception as error:
            text, _ = explain(error)
            return messages.error_msg(text, shot.header, instruction.text, instruction.id, shot.size), error
        finally:
            shot.release()

    def recall(self, frame, made):
        """Takes the ids of a Frame's finished InstanceArray up, so that those after it go on from there."""
        if made.status != made.STATUS_ERROR:
            shot = Shot(deserialize_message(frame.data, self._kind), frame.index)
            shot.convert()
            self._stream.tracking(frame.instruction, frame.index)(result_from_msg(made), shot.image)


def stamp_ns(data):
    """The header's stamp of a serialized message that begins with one; None where it is too short for that."""
    if len(data) < 12:
        return None
    sec, nanosec = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)  # data[1]: byte order, see CDR
    return sec * 1_000_000_000 + nanosec


def _never():
    return False
