"""From one image and a question to the Answer: convert, encode, segment, measure in 3D, keep ids."""

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace

from instructsam.core import CancelledError, InstructSAMError
from instructsam_ros.action import Segment
from instructsam_ros.conversions.images import ImageFormatError
from instructsam_ros.conversions.text import one_line
from instructsam_ros.pipeline.depth_sync import NoDepthError

Stage = Segment.Feedback


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a Shot.

    find_depth: called with a stamp, gives (depth image, camera info), raises NoDepthError; track: called with a
    Result and its picture [H, W, 3], gives it with ids; series: whose ids these are; stage: is told what begins.
    """

    text: str
    settings: object  # parameters.Settings
    find_depth: object
    track: object
    series: object
    stage: object = lambda name: None


def work_out(engine, shot, question, locator, is_void, is_encoding_void, times_ms):
    """The Answer of `question` on `shot`; the same question on the same shot is worked out once.

    is_void, is_encoding_void: asked on the way, whether nobody wants the answer or even the encoded image any more.
    times_ms: gets the time of each stage, where it was worked out now. Raises CancelledError and what the stages raise.
    """
    asked = (question.series, question.settings.engine_key(question.text))
    if asked in shot.answers:
        return shot.answers[asked]
    with timed(times_ms, 'conversion'):
        shot.convert()
    question.stage(Stage.ENCODING)
    shot.encode(engine, is_encoding_void)
    if is_void():
        raise CancelledError('nobody wants this result any more')
    question.stage(Stage.SEGMENTING)
    result = shot.segment(engine, question.text, question.settings, is_void)
    question.stage(Stage.LOCATING)
    answer = locator.answer(result, shot.header, question.find_depth, question.settings)
    times_ms |= answer.result.timings_ms
    if is_void():  # the depth may have been waited for; ids are not kept of what nobody sees
        raise CancelledError('nobody wants this result any more')
    with timed(times_ms, 'tracking'):
        answer = replace(answer, result=question.track(answer.result, shot.image))
    shot.answers[asked] = answer
    return answer


def depth_of(goal):
    """For Question.find_depth: the depth that came with a goal's own image."""

    def find(stamp):
        if not goal.depth.data:
            raise NoDepthError('the goal has an image but no depth')
        return goal.depth, goal.camera_info

    return find


def explain(error):
    """(one line about it for a person, whether the input is its cause and not a fault of this package)."""
    is_expected = isinstance(error, (InstructSAMError, ImageFormatError))
    return one_line(error if is_expected else f'{type(error).__name__}: {error}'), is_expected


@contextmanager
def timed(times_ms, stage):
    """Adds the milliseconds that the block takes, where it does not raise."""
    start = time.perf_counter()
    yield
    times_ms[stage] = (time.perf_counter() - start) * 1e3
