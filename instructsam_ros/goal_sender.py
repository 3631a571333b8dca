"""Sends goals to the action of a perception node and waits for their results, from any thread.

rclpy's ActionClient neither repeats a request without a response nor withdraws one that nobody waits for any more.
"""

import threading
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from rclpy.action.client import ActionClient, ClientGoalHandle
from unique_identifier_msgs.msg import UUID

from instructsam.core.errors import CancelledError, InstructSAMError
from instructsam_ros.action import Segment
from instructsam_ros.node import qos
from instructsam_ros.own_node import OwnNode

GRACE_S = 2.0  # longest time in which close() waits for the calls of other threads
RETRY_S = 1.0  # time until the first repetition of a request that got no response
STEP_S = 0.2  # longest uninterrupted wait; Ctrl-C and close() take effect between two waits


class PerceptionError(InstructSAMError, RuntimeError):
    """There is no answer; the message says why.

    An answer in which nothing matches is not an error but an empty Detections.
    """


class GoalSender:
    """Client of the action `segment` of a perception node.

    Args:
        ros: The node that it belongs to, whose thread has to be started; close() closes it.
        server: Name of the perception node, including its namespace, without the leading slash.

    Attributes:
        action: rclpy's client of the action.
    """

    def __init__(self, ros: OwnNode, server: str) -> None:
        self._ros = ros
        self._server = server
        self._is_closed = False
        self._changed = threading.Condition()  # guards _is_closed and _users
        self._users = 0  # blocks of in_use(), and goals whose cancellation is not answered yet; close() waits for 0
        self.action: Any = ActionClient(
            ros.node,
            Segment,
            f'/{server}/segment',
            goal_service_qos_profile=qos.ACTION,
            result_service_qos_profile=qos.ACTION,
            cancel_service_qos_profile=qos.ACTION,
            feedback_sub_qos_profile=qos.ACTION,
        )

    def wait_for_server(self, timeout: float, cancelled: Callable[[], bool] | None = None) -> None:
        """Wait for the action to appear.

        Raises:
            PerceptionError: It did not within `timeout` seconds.
            CancelledError: `cancelled` returned true.
        """
        with self.in_use():
            if not self.wait(self.action.wait_for_server, timeout, cancelled):
                raise PerceptionError(
                    f'there is no node /{self._server} with an action segment: start it, or check its name'
                )

    def send(
        self,
        goal: Any,
        on_stage: Callable[[str], object] | None,
        end_s: float,
        cancelled: Callable[[], bool] | None,
    ) -> Any:
        """Send a goal and return the action's response: its status and result.

        The goal is cancelled if there is no response.

        Args:
            goal: The goal.
            on_stage: Called with the name of each stage when it begins, in the thread of the callbacks.
            end_s: Time of time.monotonic() by which there must be a response.
            cancelled: Checked several times per second.

        Raises:
            PerceptionError: There is no response by `end_s`.
            CancelledError: `cancelled` returned true.
            Exception: What `on_stage` or `cancelled` raises.
        """
        errors: list[Exception] = []
        sent: list[tuple[Any, Any]] = []  # the id of each request's goal, and the future of its handle
        followed: Any = None  # the goal whose feedback counts: of several requests, each makes a goal

        def send() -> Any:
            nonlocal followed
            goal_id: Any = UUID(uuid=list(uuid.uuid4().bytes))
            followed = goal_id

            def on_feedback(message: Any) -> None:
                try:
                    if on_stage is not None and goal_id == followed:
                        on_stage(message.feedback.stage)
                except Exception as error:  # raised below, in the caller's thread
                    errors.append(error)

            sent.append((goal_id, self.action.send_goal_async(goal, on_feedback, goal_id)))
            return sent[-1][1]

        def raise_error() -> None:
            if errors:
                raise errors[0]

        def is_cancelled() -> bool:
            raise_error()
            return cancelled is not None and cancelled()

        with ExitStack() as end:
            end.enter_context(self.in_use())
            try:
                handle = self._response(send, end_s, is_cancelled)
                followed = handle.goal_id
                self._ros.run_soon(lambda: [self._cancel(*each) for each in sent if each[0] != handle.goal_id])
                response = self._response(handle.get_result_async, end_s, is_cancelled)
                raise_error()
                return response
            except BaseException:  # nothing will fetch the answer, so the node need not compute it
                self._ros.run_soon(partial(self._cancel_all, sent, end.pop_all()))
                raise

    def _cancel_all(self, sent: Sequence[tuple[Any, Any]], end: ExitStack) -> None:
        """Cancel goals; `end` is closed once the node has answered all cancellations."""
        open_ids = {bytes(goal_id.uuid) for goal_id, _ in sent}

        def on_answer(goal_id: Any) -> None:
            open_ids.discard(bytes(goal_id.uuid))
            if not open_ids:
                end.close()

        for goal_id, accepted in sent:
            self._cancel(goal_id, accepted, partial(on_answer, goal_id))
        if not sent:
            end.close()

    def _cancel(self, goal_id: Any, accepted: Any, on_answer: Callable[[], object] = bool) -> None:
        """Cancel a goal, now and again once it is accepted, since the node may not know it yet.

        Args:
            goal_id: The goal's UUID.
            accepted: The future of its handle, which never comes if the node's response is lost.
            on_answer: Called when the node has answered the last request.
        """
        handle: Any = ClientGoalHandle(self.action, goal_id, None)

        def on_cancelled(_: object) -> None:
            on_answer()

        def cancel(_: object) -> None:
            handle.cancel_goal_async().add_done_callback(on_cancelled)

        if not accepted.done():
            handle.cancel_goal_async()
            accepted.add_done_callback(cancel)
        else:
            cancel(None)

    def close(self) -> None:
        """Let the calls of other threads end, and close the node."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            # The other threads cancel their goals first. A request that the node has not taken would end with this
            # client.
            self._changed.wait_for(lambda: not self._users, GRACE_S)
        self._ros.stop()
        self.action.destroy()
        self._ros.close()

    @contextmanager
    def in_use(self) -> Generator[None, None, None]:
        """Let close() wait for the end of the block. Raises PerceptionError if the client is closed."""
        with self._changed:
            self.raise_if_closed()
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def _response(self, request: Callable[[], Any], end_s: float, cancelled: Callable[[], bool] | None = None) -> Any:
        """Return the result of the future that `request()` returns. Raises CancelledError if `cancelled()` is true.

        The request is repeated at growing intervals until there is a response: the first response of a server to a new
        client is lost if their endpoints have not discovered each other yet.
        """
        done, retry_s = threading.Event(), RETRY_S
        futures: list[Any] = []
        errors: list[Exception] = []

        def on_done(_: object) -> None:
            done.set()

        def send() -> None:
            try:
                futures.append(request())
                futures[-1].add_done_callback(on_done)
            except Exception as error:  # raised below, in the caller's thread
                errors.append(error)
                done.set()

        while not done.is_set() and time.monotonic() < end_s:
            # rclpy registers a request after sending it. Sent from the thread that takes the responses, none of these
            # can come in between, where it would be lost.
            self._ros.run_soon(send)
            self.wait(done.wait, min(retry_s, end_s - time.monotonic()), cancelled)
            retry_s *= 2
        if errors:
            raise errors[0]
        for future in futures:
            if future.done():
                return future.result()
        raise PerceptionError(f'/{self._server} does not answer: it may have ended')

    def wait(self, wait: Callable[[float], bool], timeout: float, cancelled: Callable[[], bool] | None = None) -> bool:
        """Call `wait(seconds)` in short steps until it returns true; return whether it did within `timeout` seconds.

        Raises:
            PerceptionError: The client is closed meanwhile.
            CancelledError: `cancelled` returned true.
        """
        end_s = time.monotonic() + timeout
        while not wait(max(0.0, min(STEP_S, end_s - time.monotonic()))):
            self.raise_if_closed()
            if cancelled is not None and cancelled():
                raise CancelledError('the caller no longer wants this answer')
            if time.monotonic() >= end_s:
                return False
        return True

    def raise_if_closed(self) -> None:
        """Raise PerceptionError after close()."""
        if self._is_closed:
            raise PerceptionError('the client was closed')
