"""The thread that owns the model: newest image and current instruction in, published results out."""
import threading
import time
import traceback
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from instructsam.core import Cancelled, InstructionError, InstructSAMError
from instructsam_ros.diagnostics import one_line
from instructsam_ros.images import ImageFormatError
from instructsam_ros.mailbox import Mailbox
from instructsam_ros.parameters import CONTINUOUS, ON_INSTRUCTION
from instructsam_ros.shot import Shot

REPEAT_S = 30.0  # the same kind of error is logged this often


@dataclass(frozen=True, eq=False)
class Instruction:
    """Compared by identity: the same words said twice are two instructions."""

    text: str
    id: int  # from 1


class Worker(threading.Thread):
    """Loads, runs and frees the model, so that no other thread ever waits for it.

    A new instruction supersedes the one before: running work is given up at the engine's next chance, and nothing
    that belongs to the old one is published once instruct() has returned. A daemon thread: the process may end while
    the model is busy.
    """

    def __init__(self, outputs, settings, statistics, latency_s, logger):
        """
        Args:
            outputs: makes messages of results, see Outputs.
            settings: called without arguments, gives the Settings of that moment.
            statistics: where results and times are counted.
            latency_s: called with a header stamp, gives the seconds since.
        """
        super().__init__(name='model', daemon=True)
        self.engine = None  # set and dropped by jobs, that is in this thread
        self.mailbox = Mailbox()
        self._outputs = outputs
        self._settings = settings
        self._statistics = statistics
        self._latency_s = latency_s
        self._logger = logger

        self._wake = threading.Condition()  # guards everything below
        self._jobs = deque()
        self._is_closed = False
        self._session = None  # an object from activate() to deactivate(): work of an earlier session is void
        self._instruction = None  # None: stopped, or none has come yet
        self._instructions = 0
        self._answered = None  # the latest instruction with a published result
        self._refused = None  # an instruction that the engine cannot use; that is told once
        self._shot = None  # the latest image taken, kept for the next instruction
        self._is_interrupted = False  # work on it was given up for an instruction that still waits
        self._logged_s = {}  # kind of error -> when it was logged last

    # Called from any thread; none of these waits for the model.

    def offer(self, message):
        """An image has come; it is only stored."""
        with self._wake:
            self.mailbox.put((message, time.perf_counter()))
            self._wake.notify()

    def instruct(self, text):
        """Makes `text` the current instruction; '' stops. Returns the Instruction now in force, or None.

        A repetition of the text in force changes nothing in continuous mode, and in any mode while its answer is
        still being worked on: a publisher that repeats itself must not keep the model from ever finishing.
        """
        with self._wake:
            current = self._instruction
            if current is not None and text == current.text:
                if current is not self._answered or self._settings().trigger == CONTINUOUS:
                    return current
            self._instruction = None
            self._is_interrupted = False
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

    def activate(self):
        """Images and instructions are worked on from now on."""
        with self._wake:
            self._session = object()
            self._wake.notify()

    def deactivate(self):
        """Gives up running work and the encoded image. Nothing is published once this has returned."""
        with self._wake:
            self._session = None
            self._shot = None
            self._is_interrupted = False
            self.mailbox.clear()

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
                self._wake.wait_for(lambda: self._is_closed or self._jobs or self._has_work())
                if self._is_closed:
                    return
                work = self._jobs.popleft() if self._jobs else partial(self._attempt, *self._next())
            try:
                work()
            except Exception:  # a fault of this package; the next image may fare better
                self._logger.error(f'this should not have happened:\n{traceback.format_exc()}')
            del work  # it may hold device memory

    def _has_work(self):
        instruction = self._instruction
        if self._session is None or instruction is None or instruction is self._refused:
            return False
        if instruction is not self._answered:
            return self.mailbox.waiting or self._shot is not None
        return (self.mailbox.waiting or self._is_interrupted) and self._settings().trigger == CONTINUOUS

    def _next(self):
        """(session, instruction, shot, settings) of the next attempt: the newest image there is.

        In continuous mode an instruction that came in the midst of an image is answered on that image at once, since
        it is encoded already; a newer one follows anyway.
        """
        settings = self._settings()
        keep = self._is_interrupted and settings.trigger == CONTINUOUS
        if self.mailbox.waiting and not keep:
            self._shot = Shot(*self.mailbox.take())
        self._is_interrupted = False
        return self._session, self._instruction, self._shot, settings

    def _attempt(self, session, instruction, shot, settings):
        """Answers `instruction` on `shot`, unless it is overtaken by another one or by the end of the session."""

        def is_overtaken():
            return self._session is not session or self._instruction is not instruction or bool(self._jobs)

        def is_encoding_void():
            # an encoded image serves any instruction: a new one is no reason to stop, unless it wants a newer image
            wants_newer = settings.trigger == ON_INSTRUCTION and self.mailbox.waiting
            is_superseded = self._instruction is not instruction and wants_newer
            return self._session is not session or is_superseded or bool(self._jobs)

        times_ms = {}
        is_new = shot.is_new
        error, is_refused = '', False
        try:
            with _timed(times_ms, 'conversion'):
                shot.convert()
            shot.encode(self.engine, is_encoding_void)
            if is_overtaken():
                raise Cancelled
            result = shot.segment(self.engine, instruction.text, settings, is_overtaken)
            times_ms |= result.timings_ms
            with _timed(times_ms, 'messages'):
                made = self._outputs.answer(shot, instruction, result)
        except Cancelled:
            made = []
        except Exception as exception:
            if self._is_closed:  # the node may be gone already
                return
            error, is_refused = self._explain(exception), isinstance(exception, InstructionError)
            made = self._outputs.failure(shot, instruction, error)
        if self._deliver(session, instruction, made, is_refused):
            self._statistics.count_result(error, self._latency_s(shot.header.stamp))
            if not error:
                self._count_times(times_ms, shot, is_new)

    def _deliver(self, session, instruction, made, is_refused):
        """Publishes `made` if it is still wanted; returns whether. The lock is the one that instruct() takes."""
        with self._wake:
            if self._session is not session:
                return False
            if self._instruction is not instruction:
                self._statistics.superseded += 1
            if self._instruction is not instruction or not made:
                self._is_interrupted = self._instruction is not None
                return False
            self._answered = instruction
            self._refused = instruction if is_refused else None
            for publisher, message in made:
                publisher.publish(message)
            return True

    def _count_times(self, times_ms, shot, is_new):
        """An image that had been encoded before leaves no zeros among the times of encoding."""
        if is_new:
            times_ms['receive_to_publish'] = (time.perf_counter() - shot.received_s) * 1e3
        else:
            del times_ms['conversion'], times_ms['image_encoders']
        for stage, ms in times_ms.items():
            self._statistics.add(stage, ms)

    def _explain(self, error):
        """One line for the result. The log gets it too, with the traceback where the cause is not the input."""
        is_expected = isinstance(error, (InstructSAMError, ImageFormatError))
        message = one_line(error if is_expected else f'{type(error).__name__}: {error}')
        now_s = time.monotonic()
        if now_s - self._logged_s.get(type(error), float('-inf')) > REPEAT_S:
            self._logged_s[type(error)] = now_s
            self._logger.error(message if is_expected else f'{message}\n{traceback.format_exc()}')
        return message


@contextmanager
def _timed(times_ms, stage):
    start = time.perf_counter()
    yield
    times_ms[stage] = (time.perf_counter() - start) * 1e3
