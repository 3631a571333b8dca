"""rclpy's lifecycle services, made so that a slow transition runs in another thread and a wrong request is refused."""

import functools
import traceback

from lifecycle_msgs.msg import Transition
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin
from rclpy.task import Future

AT_ONCE = (Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE, 'activate', 'deactivate')


class AsyncLifecycleMixin(LifecycleNodeMixin):
    """Use with rclpy.node.Node, as LifecycleNodeMixin.

    on_activate and on_deactivate run in the executor and return at once. on_configure, on_cleanup and on_shutdown run
    where `submit` takes them, and meanwhile the executor serves everything else, other lifecycle services included.
    """

    def __init__(self, submit):
        """`submit` is given a callable without arguments and runs it in another thread."""
        super().__init__(callback_group=ReentrantCallbackGroup())
        self._submit = submit
        self._rclpy_change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state
        self._callbacks = {state: self._telling(callback) for state, callback in self._callbacks.items()}

    @property
    def state(self):
        """The lifecycle state's name."""
        return self._state_machine.current_state[1]

    def destroy_node(self):
        """Gives up the state machine too: with it rclpy would keep the DDS participant."""
        super().destroy_node()
        self._state_machine = None

    async def elsewhere(self, function):
        """What function() returns or raises when `submit` has run it."""
        future = Future()
        future.add_done_callback(lambda _, executor=self.executor: executor.wake())

        def job():
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self._submit(job)
        return await future

    def _telling(self, transition):
        """`transition` with its exceptions logged, which rclpy only turns into a failed transition."""

        @functools.wraps(transition)
        def run(state):
            try:
                return transition(state)
            except Exception:
                self.get_logger().error(f'{transition.__name__} failed:\n{traceback.format_exc()}')
                raise

        return run

    async def _on_change_state(self, request, response):
        """In place of rclpy's own, which keeps the executor for as long as the transition takes, and whose exception
        ends the process where a client asks for a transition that the state does not have.
        """
        wanted = request.transition.label or request.transition.id
        possible = {key for transition in self._state_machine.available_transitions for key in transition[:2]}
        try:
            if wanted not in possible:
                raise RuntimeError('this state does not have it')
            if wanted in AT_ONCE:
                return self._rclpy_change_state(request, response)
            return await self.elsewhere(lambda: self._rclpy_change_state(request, response))
        except RuntimeError as error:  # rclpy's, where another request came first
            self.get_logger().warning(f"transition '{wanted}' refused in state {self.state}: {error}")
            response.success = False
            return response
