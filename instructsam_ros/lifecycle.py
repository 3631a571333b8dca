"""rclpy's lifecycle services, made so that a slow transition runs in another thread and a wrong request is refused."""
from lifecycle_msgs.msg import Transition
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin
from rclpy.task import Future

AT_ONCE = (Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE, 'activate', 'deactivate')


class PatientLifecycleMixin(LifecycleNodeMixin):
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

    @property
    def state(self):
        """The lifecycle state's name."""
        return self._state_machine.current_state[1]

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

    async def _on_change_state(self, request, response):
        """rclpy's own callback keeps the executor for as long as the transition takes, and where a client asks for a
        transition that the state does not have, its exception ends the process."""
        wanted = request.transition.label or request.transition.id
        try:
            if wanted in AT_ONCE:
                return self._rclpy_change_state(request, response)
            return await self.elsewhere(lambda: self._rclpy_change_state(request, response))
        except RuntimeError as error:
            self.get_logger().error(f'transition {wanted} refused in state {self.state}: {error}')
            response.success = False
            return response
