"""The thread that owns the model: goals first, then the cameras in turn; images and instructions in, results out."""

import threading
import time
import traceback
from collections import deque
from functools import partial

from instructsam.core import CancelledError, InstructionError
from instructsam_ros.action import Segment
from instructsam_ros.conversions.point_clouds import cloud
from instructsam_ros.pipeline.answer import Question, depth_of, explain, timed, work_out
from instructsam_ros.pipeline.camera_frame import Shot
from instructsam_ros.pipeline.instruction import Instruction
from instructsam_ros.pipeline.settings import CONTINUOUS, ON_INSTRUCTION

REPEAT_S = 30.0  # the same kind of error is logged this often
MOST_REQUESTS = 100  # that wait
Stage = Segment.Feedback


class Worker(threading.Thread):
    """Loads, runs and frees the model, so that no other thread ever waits for it.

    A new instruction supersedes the one before: running work is given up at the engine's next chance, and nothing
    that belongs to the old one is published once instruct() has returned. A request (a goal) goes before the streams:
    work on them is given up for it, and taken up again. A daemon thread: the process may end while the model is busy.
    """

    def __init__(self, streams, locator, settings, statistics, latency_s, logger):
        """Args:
        streams: a list of Stream, one a camera.
        locator: measures results in 3D, see Locator.
        settings: called without arguments, gives the Settings of that moment.
        statistics: where results and times are counted.
        latency_s: called with a header stamp, gives the seconds since.
        """
        super().__init__(name='model', daemon=True)
        self.engine = None  # set and dropped by jobs, that is in this thread
        self._streams = streams
        self._turns = deque(streams)  # the one whose turn it is first
        self._locator = locator
        self._settings = settings
        self._statistics = statistics
        self._latency_s = latency_s
        self._logger = logger

        self._wake = threading.Condition()  # guards everything below, and the streams
        self._jobs = deque()
        self._requests = []  # that wait, in the order in which they came
        self._serving = []  # that are worked on together
        self._is_closed = False
        self._session = None  # an object from activate() to deactivate(): work of an earlier session is void
        self._instruction = None  # None: stopped, or none has come yet
        self._instructions = 0
        self._refused = None  # an instruction that the engine cannot use; that is told once
        self._logged_s = {}  # kind of error -> when it was logged last

    # Called from any thread; none of these waits for the model.

    def offer(self, stream, message):
        """An image has come; it is only stored."""
        shot = Shot(message, time.perf_counter())
        with self._wake:
            wanting = [request for request in self._requests if request.stream is stream and request.wants(shot.header)]
            for request in wanting:
                request.shot = shot
            stream.offer(shot, is_used=bool(wanting))
            self._wake.notify()

    def instruct(self, text):
        """Makes `text` the current instruction; '' stops. Returns the Instruction now in force, or None.

        A repetition of the text in force changes nothing in continuous mode, and in any mode while its answer is
        still being worked on: a publisher that repeats itself must not keep the model from ever finishing.
        """
        with self._wake:
            current = self._instruction
            if current is not None and text == current.text:
                is_answered = all(current is stream.answered for stream in self._streams)
                if not is_answered or self._settings().trigger == CONTINUOUS:
                    return current
            self._instruction = None
            for stream in self._streams:
                stream.owes = False
            self._logged_s = {}
            if text:
                self._instructions += 1
                self._instruction = Instruction(text, self._instructions)
            self._wake.notify()
            return self._instruction

    @property
    def instruction(self):
        """The Instruction in force, or None."""
        return self._instruction

    def ask(self, request):
        """A goal has come; it waits for its turn, or ends at once with the reason."""
        with self._wake:
            reason = self._objection(request)
            if not reason:
                self._requests.append(request)
                self._wake.notify()
        if reason:
            request.abort(reason)
        elif request.is_ready():
            request.stage(Stage.QUEUED)
        else:
            request.stage(Stage.WAITING)

    def _objection(self, request):
        if self._session is None:
            return 'the node is not active: configure and activate it, then ask again'
        if len(self._requests) >= MOST_REQUESTS:
            return f'{MOST_REQUESTS} goals wait already: ask again later'
        if not request.has_own_image and request.goal.freshness == request.goal.STAMP:
            try:
                request.shot = request.stream.with_stamp(request.goal.stamp)
            except ValueError as error:
                return str(error)
        return ''

    def activate(self):
        """Images and instructions are worked on from now on."""
        with self._wake:
            self._session = object()
            self._wake.notify()

    def deactivate(self, reason='the node was deactivated'):
        """Gives up running work and the encoded images. Nothing is published once this has returned."""
        with self._wake:
            self._session = None
            for stream in self._streams:
                stream.clear()
            given_up = [*self._serving, *self._requests]
            self._requests = []
        for request in given_up:
            request.abort(reason)

    def submit(self, job):
        """Runs `job`, a callable without arguments, in this thread once the model is idle."""
        with self._wake:
            self._jobs.append(job)
            self._wake.notify()

    def close(self, timeout_s):
        """Ends the thread. Returns whether it has ended: it has not where the model cannot be interrupted."""
        with self._wake:
            self._is_closed = True
            self._session = None
            self._wake.notify()
        self.join(timeout_s)
        return not self.is_alive()

    # Everything below runs in the thread.

    def run(self):
        while True:
            with self._wake:
                while not self._is_closed and (work := self._next()) is None:
                    self._wake.wait()
                if self._is_closed:
                    return
            try:
                work()
            except Exception:  # a fault of this package; the next image may fare better
                self._logger.error(f'this should not have happened:\n{traceback.format_exc()}')
            del work  # it may hold device memory

    def _next(self):
        """What to do next, a callable; None where there is nothing. Under the lock, as the three below."""
        if self._jobs:
            return self._jobs.popleft()
        if (request := self._ready_request()) is not None:
            return partial(self._serve, self._session, *self._share(request))
        settings, instruction = self._settings(), self._instruction
        if self._session is None or instruction is None or instruction is self._refused:
            return None
        for stream in list(self._turns):
            if stream.has_work(instruction, settings.trigger):
                self._turns.remove(stream)
                self._turns.append(stream)
                shot = stream.next_shot(settings.trigger)
                return partial(self._attempt, self._session, stream, instruction, shot, settings)
        return None

    def _ready_request(self):
        return next((request for request in self._requests if request.is_open and request.is_ready()), None)

    def _share(self, first):
        """(shot, requests): the image that `first` is about, and all requests that the answer will be for."""
        shot = first.shot or first.stream.newest()
        self._serving = [r for r in self._requests if r.is_open and (r is first or r.shares(first, shot))]
        self._requests = [r for r in self._requests if r.is_open and r not in self._serving]
        for request in self._serving:
            request.shot = shot
        return shot, self._serving

    def _serve(self, session, shot, requests):
        """Answers goals that ask the same of the same image."""
        first = requests[0]

        def is_void():
            return self._session is not session or not any(request.is_open for request in requests)

        def tell(stage):
            for request in requests:
                request.stage(stage)

        text = first.goal.instruction
        if first.has_own_image:
            find, series, track = depth_of(first.goal), first, lambda result, image: result
        else:
            current = self._instruction
            series = current if current is not None and current.text == text else text
            find = first.stream.find_depth(first.settings, is_void)
            track = first.stream.tracking(series, shot.received_s)
        question = Question(text, first.settings, find, track, series, tell)
        try:
            answer = work_out(self.engine, shot, question, self._locator, is_void, is_void, {})
            made = answer.to_msg(shot.header, text, 0)
            points = None
            if any(request.goal.points for request in requests):
                points = cloud(answer.result, shot.image, answer.header(shot.header))
            for request in requests:
                request.succeed(made, points if request.goal.points else None)
        except CancelledError:
            pass  # each has been told already
        except Exception as error:
            message = self._explain(error)
            for request in requests:
                request.abort(message)
        finally:
            with self._wake:
                self._serving = []
                kept = [stream.shot for stream in self._streams] + [request.shot for request in self._requests]
            if not any(shot is other for other in kept):
                shot.release()

    def _attempt(self, session, stream, instruction, shot, settings):
        """Answers `instruction` on `shot`, unless it is overtaken by another one, a goal or the end of the session."""

        def is_overtaken():
            is_void = self._session is not session or self._instruction is not instruction
            return is_void or bool(self._jobs) or self._ready_request() is not None

        def is_encoding_void():
            # an encoded image serves any instruction: one that came is no reason to stop, unless it wants a newer image
            is_superseded = self._instruction is not instruction and settings.trigger == ON_INSTRUCTION
            request = self._ready_request()
            is_needed = request is not None and not (request.stream is stream and request.may_use(shot))
            wants_newer = is_superseded and stream.mailbox.waiting
            return self._session is not session or wants_newer or is_needed or bool(self._jobs)

        times_ms = {}
        is_new = shot.is_new
        error, is_refused = '', False
        find = stream.find_depth(settings, is_overtaken)
        track = stream.tracking(instruction, shot.received_s)
        question = Question(instruction.text, settings, find, track, instruction)
        try:
            answer = work_out(self.engine, shot, question, self._locator, is_overtaken, is_encoding_void, times_ms)
            with timed(times_ms, 'messages'):
                made = stream.outputs.answer(shot, instruction, answer)
        except CancelledError:
            made = []
        except Exception as exception:
            if self._is_closed:  # the node may be gone already
                return
            error, is_refused = self._explain(exception), isinstance(exception, InstructionError)
            made = stream.outputs.failure(shot, instruction, error)
        if self._deliver(session, stream, instruction, made, is_refused):
            self._statistics.count_result(error, self._latency_s(shot.header.stamp))
            if not error:
                self._count_times(times_ms, shot, is_new)

    def _deliver(self, session, stream, instruction, made, is_refused):
        """Publishes `made` if it is still wanted; returns whether. The lock is the one that instruct() takes."""
        with self._wake:
            if self._session is not session:
                return False
            if self._instruction is not instruction:
                self._statistics.superseded += 1
            if self._instruction is not instruction or not made:
                stream.owes = self._instruction is not None
                return False
            stream.answered = instruction
            self._refused = instruction if is_refused else None
            for publisher, message in made:
                publisher.publish(message)
            return True

    def _count_times(self, times_ms, shot, is_new):
        """An image that had been encoded before leaves no zeros among the times of encoding."""
        if is_new:
            times_ms['receive_to_publish'] = (time.perf_counter() - shot.received_s) * 1e3
        else:
            times_ms = {stage: ms for stage, ms in times_ms.items() if stage not in ('conversion', 'image_encoders')}
        for stage, ms in times_ms.items():
            self._statistics.add_time(stage, ms)

    def _explain(self, error):
        """One line for the result. The log gets it too, with the traceback where the cause is not the input."""
        message, is_expected = explain(error)
        now_s = time.monotonic()
        if now_s - self._logged_s.get(type(error), float('-inf')) > REPEAT_S:
            self._logged_s[type(error)] = now_s
            self._logger.error(message if is_expected else f'{message}\n{traceback.format_exc()}')
        return message
