"""Requests to the running node: goals and their cancels, parameters, lifecycle transitions.

Every goal has to end, every request has to be answered, and after each example a valid image and a valid goal must be
answered as ever.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

from harness.example import Example
from harness.messages import change_message, image_message, to_tree
from harness.mutations import TEXTS, changes
from harness.running_node import NodeTarget, RunningNode, camera_info, wait_for
from harness.target import ACCEPTED, Verdict, WrongAnswerError, check_finite
from hypothesis import strategies as st

END_S = 20.0  # time in which a goal ends once it is canceled, and a request is answered
RUN_S = 1.0  # time that goals are given before they are canceled
PARAMETERS = (
    'instruction', 'score_threshold', 'max_new_tokens', 'suppress_duplicates', 'answer', 'trigger',
    'depth_tolerance_s', 'depth_timeout_s', 'target_frame', 'tracking', 'cameras', 'model', 'device', 'dtype',
    'compile',
    'mode', 'image_transport', 'autostart', 'use_sim_time', 'no_such_parameter', '', 'a' * 300,
)  # fmt: skip
LABELS = (
    'configure',
    'activate',
    'deactivate',
    'cleanup',
    'activate',
    'deactivate',
    'none',
    '',
    'shut',
    '\u202e',
    'create',
)


class Goals(NodeTarget):
    """Requests of clients."""

    name: ClassVar[str] = 'goals'
    time_limit_s: ClassVar[float] = 90.0
    memory_mb: ClassVar[int] = 1000

    def examples(self) -> st.SearchStrategy[Example]:
        """Return the strategy: goals, parameters or transitions."""
        goal_options = st.fixed_dictionaries(
            {
                'times': st.sampled_from([1, 1, 1, 3, 20]),
                'cancel': st.sampled_from(['no', 'at once', 'later']),
                'image': st.booleans(),  # the node's camera sends one meanwhile
            }
        )
        goal = st.builds(
            Example, st.sampled_from(['goal', 'goal', 'goal with image']), changes(files=False).map(tuple), goal_options
        )
        value = st.one_of(
            st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=20),
            st.sampled_from(TEXTS), st.lists(st.text(max_size=5), max_size=3), st.lists(st.floats(), max_size=3),
            st.none(),
        )  # fmt: skip
        types = st.sampled_from([None, None, None]) | st.integers(0, 255)  # None: that of the value
        settings = st.lists(st.tuples(st.sampled_from(PARAMETERS), value, types), min_size=1, max_size=3)
        parameters = st.builds(Example, st.just('parameters'), st.just(()), st.fixed_dictionaries({'set': settings}))
        transition = st.one_of(st.sampled_from(LABELS), st.integers(0, 255))
        lifecycle = st.builds(
            Example, st.just('lifecycle'), st.just(()),
            st.fixed_dictionaries(
                {'transitions': st.lists(transition, min_size=1, max_size=5), 'goals': st.integers(0, 3)}
            ),
        )  # fmt: skip
        return st.one_of(goal, goal, goal, parameters, lifecycle)

    def open(self, folder: Path) -> None:
        """Prepare the node, which starts when it is needed."""
        self._node = RunningNode(memory_mb=self.memory_mb)
        self._expected: Any = None

    def begin(self, example: Example) -> None:
        """Start the node again if the last example ended it."""
        self._node.begin()

    def run(self, example: Example, folder: Path) -> Verdict:
        """Send the requests; check the node afterwards."""
        kind = {'parameters': self._parameters, 'lifecycle': self._lifecycle}.get(example.seed, self._goals)
        verdict = kind(example)
        if self._node.node.process.poll() is None and self._node.robot.state() == 'finalized':
            self._node.stop()  # as it was asked to
            return verdict
        self._node.probe()
        self._probe_goal()
        self._node.check()
        return verdict

    # Goals

    def _goal(self, seed: str) -> Any:
        """Return a valid goal."""
        from instructsam_ros.action import Segment

        goal = Segment.Goal(instruction='the red and the green thing', timeout_s=10.0)
        if seed == 'goal with image':
            goal.image = image_message('rgb8')
            goal.depth = image_message('16UC1', is_depth=True)
            goal.camera_info = camera_info()
            goal.camera_info.header.stamp = goal.image.header.stamp
            goal.points = True
        return goal

    def _goals(self, example: Example) -> Verdict:
        goal = change_message(self._goal(example.seed), example.changes)
        fields = {name: getattr(goal, name) for name in goal.get_fields_and_field_types() if name != 'instruction'}
        robot, options = self._node.robot, example.options
        sent = [robot.ask(goal.instruction, **fields) for _ in range(options['times'])]
        for each in sent[::2] if options['cancel'] == 'at once' else ():
            self._cancel(each)
        if options['image']:
            self._node.stamp += 1
            self._node.see(self._node.stamp)
        wait_for(lambda: all(self._has_ended(each) for each in sent), RUN_S)
        if not example.changes and options['cancel'] == 'no' and (options['image'] or example.seed != 'goal'):
            wait_for(lambda: all(self._has_ended(each) for each in sent), END_S)
        for each in sent:
            if not self._has_ended(each):
                self._cancel(each)
        if not wait_for(lambda: all(self._has_ended(each) for each in sent), END_S):
            open_ones = sum(not self._has_ended(each) for each in sent)
            how = ', '.join(_progress(each) for each in sent if not self._has_ended(each))
            self._node.fail(f'{open_ones} of {len(sent)} goals have no end {END_S:.0f} s after their cancel; {how}')
        kinds = [self._judge(each) for each in sent]
        return ACCEPTED if 'succeeded' in kinds else Verdict('refused', kinds[0])

    def _has_ended(self, goal: Any) -> bool:
        if self._node.node.process.poll() is not None:
            self._node.fail(f'a goal ends the node, exit code {self._node.node.process.returncode}')
        return goal.response is not None or (goal.sent is not None and not goal.sent.accepted)

    def _cancel(self, goal: Any) -> None:
        wait_for(lambda: goal.sent is not None, END_S)
        if goal.sent is not None and goal.sent.accepted:
            self._node.robot.in_executor(goal.sent.cancel_goal_async)

    def _judge(self, goal: Any) -> str:
        """Check the end of a goal; return it in a word."""
        from action_msgs.msg import GoalStatus

        if not goal.sent.accepted:
            return 'rejected'
        answer, points = goal.response.result.answer, goal.response.result.points
        check_finite(to_tree(answer))
        status = goal.response.status
        if status == GoalStatus.STATUS_SUCCEEDED:
            if answer.status == answer.STATUS_ERROR:
                raise WrongAnswerError(f'a goal succeeds with an error: {answer.message}')
            if points.width * points.height * points.point_step != len(points.data):
                raise WrongAnswerError('points whose size is not that of their data')
            return 'succeeded'
        if not answer.message:
            raise WrongAnswerError('a goal ends without a reason')
        return 'aborted' if status == GoalStatus.STATUS_ABORTED else 'canceled'

    def _probe_goal(self) -> None:
        """Send a valid goal with its own image; check its answer."""
        goal = self._goal('goal with image')
        fields = {name: getattr(goal, name) for name in ('image', 'depth', 'camera_info', 'points')}
        sent = self._node.robot.ask(goal.instruction, **fields)
        if not wait_for(lambda: self._has_ended(sent), END_S):
            self._node.fail(f'a valid goal has no end; {_progress(sent)}')
        if self._judge(sent) != 'succeeded':
            self._node.fail(f'a valid goal fails: {sent.response and sent.response.result.answer.message!r}')
        answer = sent.response.result.answer
        found = [(each.phrase, list(each.mask.counts), each.has_geometry) for each in answer.instances]
        points = sent.response.result.points.width
        if self._expected is None:
            self._expected = found, points
        if (found, points) != self._expected or len(found) != 2:
            self._node.fail(
                f'a valid goal is answered otherwise than before: {answer.message!r}, {answer.geometry_message!r}'
            )

    # Parameters

    def _parameters(self, example: Example) -> Verdict:
        """Set parameters; one that is taken must have the value then. Set all back."""
        from rcl_interfaces.srv import GetParameters, SetParameters
        from rclpy.parameter import Parameter

        robot = self._node.robot

        def read(name: str) -> Any:
            values = robot.call(GetParameters, 'get_parameters', GetParameters.Request(names=[name])).values
            return values[0] if values else None  # none: it is not declared

        before = {name: read(name) for name, _, _ in example.options['set']}
        results = []
        for name, value, kind in example.options['set']:
            try:
                message = Parameter(name, value=_of_ros(value)).to_parameter_msg()
            except (TypeError, ValueError, AssertionError, OverflowError):
                continue  # no ROS parameter can hold it
            if kind is not None:
                message.value.type = kind
            answer = robot.call(SetParameters, 'set_parameters', SetParameters.Request(parameters=[message]))
            if len(answer.results) != 1:
                raise WrongAnswerError(f'{len(answer.results)} results for one parameter')
            result = answer.results[0]
            if not result.successful and not result.reason:
                raise WrongAnswerError(f'{name} is refused without a reason')
            now = read(name)
            if result.successful and value is not None and kind is None and not _same(now, message.value):
                raise WrongAnswerError(f'{name} is set to {value!r} and reads {now}')
            results.append(result.successful)
        for name, value in before.items():
            if value is not None and value.type:
                parameter = Parameter.from_parameter_msg(_parameter_message(name, value))
                robot.call(
                    SetParameters, 'set_parameters', SetParameters.Request(parameters=[parameter.to_parameter_msg()])
                )
        robot.say('the red and the green thing')
        return ACCEPTED if any(results) else Verdict('refused', 'parameter')

    # Lifecycle

    def _lifecycle(self, example: Example) -> Verdict:
        """Request transitions while goals wait; bring the node back to active."""
        from lifecycle_msgs.srv import ChangeState

        robot = self._node.robot
        goals = [robot.ask('the red thing', freshness=1) for _ in range(example.options['goals'])]
        changed = []
        for transition in example.options['transitions']:
            request = ChangeState.Request()
            if isinstance(transition, str):
                request.transition.label = transition
            else:
                request.transition.id = transition
            changed.append(robot.call(ChangeState, 'change_state', request, attempts=1).success)
        end_s = time.monotonic() + END_S
        while (state := robot.state()) not in ('active', 'finalized'):
            if time.monotonic() > end_s:
                self._node.fail(f'the node does not become active again, it is {state}')
            robot.change_state({'unconfigured': 'configure', 'inactive': 'activate'}.get(state, 'none'))
        for goal in goals:
            self._cancel(goal)
        if state == 'active' and not wait_for(lambda: all(self._has_ended(goal) for goal in goals), END_S):
            self._node.fail(f'a goal has no end after transitions; {", ".join(map(_progress, goals))}')
        return ACCEPTED if any(changed) else Verdict('refused', 'transition')

    def close(self) -> None:
        """End the node."""
        self._node.stop()


def _progress(goal: Any) -> str:
    """Return how far a goal came."""
    if goal.sent is None:
        return 'not answered'
    if not goal.sent.accepted:
        return 'rejected'
    return f'accepted, stages {goal.stages}' if goal.response is None else 'ended'


def _of_ros(value: Any) -> Any:
    """Return the value with text that ROS can carry."""
    if isinstance(value, str):
        return value.encode('utf-8', 'replace').decode().replace('\0', '')
    return [_of_ros(each) for each in value] if isinstance(value, list) else value


def _same(one: Any, other: Any) -> bool:
    """Return whether two ParameterValues are equal, also if both are NaN."""
    return repr(one) == repr(other)


def _parameter_message(name: str, value: Any) -> Any:
    from rcl_interfaces.msg import Parameter

    return Parameter(name=name, value=value)


TARGET = Goals()
