"""A lifecycle node whose slow transitions run in another thread, and which survives impossible requests."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import ParameterType, SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.service import Service
from rclpy.task import Future

from instructsam.core.text import shorten
from instructsam_ros.pipeline.scheduling.error_log import FAILURES, ErrorLog
from instructsam_ros.pipeline.scheduling.statistics import Statistics

Returned = TypeVar('Returned')

ServiceCallback = Callable[[Any, Any], Any]
TransitionCallback = Callable[[LifecycleState], TransitionCallbackReturn]

IMMEDIATE = (Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE, 'activate', 'deactivate')
"""Transitions that run in the executor's thread, by id and by label."""


TYPES = range(ParameterType.PARAMETER_NOT_SET, ParameterType.PARAMETER_STRING_ARRAY + 1)
"""The types of a parameter's value."""


def _has_known_types(request: Any) -> bool:
    """Return whether a request sets no parameter, or only parameters whose types exist."""
    is_setting = isinstance(request, (SetParameters.Request, SetParametersAtomically.Request))
    return not is_setting or all(parameter.value.type in TYPES for parameter in request.parameters)


def _refusal(request: Any, response: Any) -> Any:
    """Refuse all parameters of a request, with the first one whose type does not exist as the reason."""
    parameter = next(each for each in request.parameters if each.value.type not in TYPES)
    reason = f'{shorten(parameter.name)} is of type {parameter.value.type}, expected one of {TYPES[0]} to {TYPES[-1]}'
    result = SetParametersResult(successful=False, reason=f'{reason} (rcl_interfaces/ParameterType); nothing was set')
    if isinstance(request, SetParameters.Request):
        response.results = [result] * len(request.parameters)
    else:
        response.result = result
    return response


class AsyncLifecycleNode(LifecycleNodeMixin, Node):
    """Lifecycle node that stays responsive during slow transitions.

    on_activate and on_deactivate run in the executor and return at once. on_configure, on_cleanup and on_shutdown run
    in the thread that submit() uses, while the executor serves everything else, other lifecycle services included.

    Why not rclpy's LifecycleNode: it runs every transition in the executor, so the node could not answer anything while
    the model loads, and an impossible transition raises an exception that ends the process.
    """

    _state_machine: Any  # rclpy's, which is implemented in C++ and not annotated
    _service_change_state: Any

    def __init__(self, name: str, **kwargs: Any) -> None:
        """Create the node; `kwargs` are those of rclpy's Node."""
        Node.__init__(self, name, **kwargs)
        self.statistics = Statistics()
        self.log = ErrorLog(self.get_logger(), self.statistics)
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        try:
            assert self.state
            self._rclpy_change_state = self._service_change_state.callback
            self._callbacks = {state: self._log_exceptions(callback) for state, callback in self._callbacks.items()}
        except AttributeError as error:  # These are not part of rclpy's interface.
            raise RuntimeError(f'this version of rclpy cannot be used, its lifecycle nodes differ: {error}') from error
        self._service_change_state.callback = self._on_change_state

    def create_service(self, srv_type: Any, srv_name: str, callback: ServiceCallback, **kwargs: Any) -> Service:
        """Create a service, rclpy's own for parameters included, that answers even if `callback` raises.

        The answer is then the default response; the exception is reported. Parameters of types that do not exist, on
        which rclpy's callbacks raise, are refused with a reason.
        """

        def answer(request: Any, response: Any) -> Any:
            try:
                return callback(request, response) if _has_known_types(request) else _refusal(request, response)
            except FAILURES as error:
                self.log.report_bug(f'the service {srv_name}', error)
                return response

        return super().create_service(srv_type, srv_name, answer, **kwargs)

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` in another thread; to be implemented by the subclass."""
        raise NotImplementedError

    @property
    def state(self) -> str:
        """Name of the lifecycle state."""
        return self._state_machine.current_state[1]

    def destroy_node(self) -> None:
        """Destroy the node and its state machine, with which rclpy would keep the DDS participant."""
        super().destroy_node()
        self._state_machine = None

    async def run_in_worker(self, function: Callable[[], Returned]) -> Returned:
        """Run `function` via submit() and await its result. Raises what it raises."""
        future: Any = Future()  # not generic in every ROS distribution
        executor = self.executor
        assert executor is not None, 'run_in_worker is awaited by an executor'
        future.add_done_callback(lambda _: executor.wake())

        def job() -> None:
            try:
                future.set_result(function())
            except FAILURES as error:
                future.set_exception(error)

        self.submit(job)
        return await future

    def run_in_executor(self, function: Callable[[], None]) -> None:
        """Schedule `function` in the executor's thread. Subscriptions are destroyed there, since it may use them."""
        if self.executor is None:  # nothing can use the node then
            function()
        else:
            self.executor.create_task(function)

    def _log_exceptions(self, transition: TransitionCallback) -> TransitionCallback:
        """Return `transition` with its exceptions reported; rclpy only turns them into a failed transition."""

        @functools.wraps(transition)
        def run(state: LifecycleState) -> TransitionCallbackReturn:
            try:
                return transition(state)
            except FAILURES as error:
                self.log.report_bug(transition.__name__, error)
                return TransitionCallbackReturn.ERROR

        return run

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Serve a transition request instead of rclpy's callback.

        rclpy's own would occupy the executor for the whole transition, and its exception would end the process if the
        current state does not have the requested transition.
        """
        wanted = request.transition.label or request.transition.id
        name = shorten(wanted)
        try:
            if wanted not in {key for each in self._state_machine.available_transitions for key in each[:2]}:
                raise RuntimeError('there is no such transition from this state')
            if wanted in IMMEDIATE:
                return self._rclpy_change_state(request, response)
            return await self.run_in_worker(functools.partial(self._rclpy_change_state, request, response))
        except RuntimeError as error:  # rclpy's, if another request was first
            self.log.warning('refused transition', f"transition '{name}' refused in state {self.state}: {error}")
        except FAILURES as error:
            self.log.report_bug(f"transition '{name}'", error)
        response.success = False
        return response
