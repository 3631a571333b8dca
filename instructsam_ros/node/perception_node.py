"""The perception node: images and instructions in, instances out. The model runs in the thread of Worker."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]  (Humble has it only here)
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args, try_shutdown

from instructsam.core.standard_streams import finish
from instructsam.core.text import one_line, shorten
from instructsam_ros.conversions.transports import TRANSPORTS, type_name
from instructsam_ros.dds import configure_dds
from instructsam_ros.node import diagnostics, parameters, signals
from instructsam_ros.node.camera_subscriber import REMIND_S, CameraSubscriber
from instructsam_ros.node.guarded_executor import GuardedExecutor, run
from instructsam_ros.node.instruction_subscriber import InstructionSubscriber
from instructsam_ros.node.lifecycle import AsyncLifecycleNode
from instructsam_ros.node.segment_action import SegmentAction
from instructsam_ros.node.tf_buffer import create_tf_buffer
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.error_log import FAILURES, explain
from instructsam_ros.pipeline.scheduling.jobs import JobContext
from instructsam_ros.pipeline.scheduling.mask_thread import MaskThread
from instructsam_ros.pipeline.scheduling.result_publisher import ResultPublisher
from instructsam_ros.pipeline.scheduling.scheduler import Scheduler
from instructsam_ros.pipeline.scheduling.worker import Worker, free_device_memory
from instructsam_ros.pipeline.transforms import TransformLookup

if TYPE_CHECKING:  # importing the engine imports torch
    from instructsam.core import InstructSAM

WAIT_FOR_CLIENTS_S = 0.3  # time for clients to be sent the end of their goals
WAIT_FOR_MODEL_S = 0.5  # time for the model to return, at the end of the process
DIAGNOSTICS_PERIOD_S = 1.0
NAMESAKE_S = 30.0  # longer than the lease duration of Fast DDS


def load_engine(model: str, revision: str, device: str, dtype: str, mode: str, compile: str) -> 'InstructSAM':  # noqa: A002
    """Load the engine."""
    # Imports torch, which a node without a model does not need.
    from instructsam.core import InstructSAM  # noqa: PLC0415

    return InstructSAM.from_pretrained(model, device=device, dtype=dtype, mode=mode, revision=revision, compile=compile)


class PerceptionNode(AsyncLifecycleNode):
    """Lifecycle node `perception`: connects the topics, the action and the lifecycle to the pipeline.

    Everything here runs in the executor's one thread and returns at once, except on_configure, on_cleanup and
    on_shutdown: these load or free the model, so they run in the worker's thread while the executor continues.
    """

    def __init__(self, engine_factory: 'Callable[..., InstructSAM]' = load_engine, **kwargs: Any) -> None:
        """Create the node and start its worker.

        Args:
            engine_factory: Called with the parameters model, device, dtype, mode and compile at each configure.
            kwargs: For rclpy's Node.

        Raises:
            ParameterException: A parameter's initial value cannot be used; the message says why.
        """
        super().__init__('perception', **kwargs)
        self._transforms = TransformLookup(partial(create_tf_buffer, self))
        self._node_parameters = parameters.NodeParameters(self, on_target_frame=self._transforms.subscribe)
        self._engine_factory = engine_factory
        self._load_error = ''
        self._was_active = False
        self._alone_s = time.monotonic()  # latest time at which no other node had this name
        self._next_warning_s: dict[tuple[str, str], float] = {}  # {(topic, unexpected types): time.monotonic()}
        names = self._node_parameters.value('cameras')
        publish = partial(
            ResultPublisher, self.create_lifecycle_publisher, vision_msgs=self._node_parameters.value('vision_msgs')
        )
        streams = {name: CameraStream(name, publish(name)) for name in names}
        self._streams = list(streams.values())
        self._scheduler = Scheduler(self._streams, self._node_parameters, self.statistics)
        self._masks = MaskThread(
            self._streams, self._node_parameters, self._scheduler, self._transforms, self.statistics, self.log
        )
        context = JobContext(
            self._scheduler,
            self._transforms,
            self.statistics,
            self.log,
            self.get_clock(),
            self._masks.put_answer,
        )
        self._worker = Worker(context)
        self._cameras = [
            CameraSubscriber(self, stream, self._scheduler, self._transforms, self._masks.offer)
            for stream in self._streams
        ]
        self._worker.start()
        self._masks.start()
        self._instruct(self._node_parameters.value('instruction'))
        InstructionSubscriber(self, self._instruct, partial(self.log.warning, 'older instruction'))

        # Steady, because both must work while simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._action = SegmentAction(self, self._scheduler, streams, self._node_parameters, steady)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)
        if self._node_parameters.value('autostart'):
            group = ReentrantCallbackGroup()
            self._autostart_timer = self.create_timer(0.0, self._autostart, callback_group=group, clock=steady)

    def end_goals(self, executor: Executor, timeout_s: float = WAIT_FOR_CLIENTS_S) -> None:
        """Abort all goals and notify their clients, before the process ends."""
        if not self._action.is_idle:
            self._scheduler.deactivate('the node is shutting down')
            end_s = time.monotonic() + timeout_s
            while time.monotonic() < end_s:  # rclpy does not report when a result has been sent
                executor.spin_once(0.01)

    def close(self, timeout_s: float = WAIT_FOR_MODEL_S) -> bool:
        """End the threads. Returns whether they have ended, see Worker.close."""
        has_ended = self._worker.close(timeout_s)
        return self._masks.close(timeout_s) and has_ended

    # Lifecycle

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` in the worker's thread."""
        self._scheduler.submit(job)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model. Runs in the worker's thread."""
        arguments = {
            name: self._node_parameters.value(name)
            for name in ('model', 'revision', 'device', 'dtype', 'mode', 'compile')
        }
        model = shorten(arguments['model'])
        self.log.info('loading a model', f"loading model '{model}'")
        start_s = time.monotonic()
        try:
            engine = self._worker.load_model(self._engine_factory, **arguments)
        except FAILURES as error:
            self._load_error, _ = explain(error)
            self.log.error(
                'model not loaded',
                f"model '{model}' could not be loaded: {self._load_error} "
                f'(correct the parameter, then configure and activate {self.get_fully_qualified_name()})',
            )
            return TransitionCallbackReturn.FAILURE
        self._load_error = ''
        seconds = time.monotonic() - start_s
        self.log.info(
            'model loaded',
            f"model '{shorten(engine.name)}' on {engine.device} in {engine.precision} after {seconds:.1f} s",
        )
        if engine.warning:
            self.log.warning('model warning', engine.warning)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and start a session."""
        transports = {parameter: self._node_parameters.value(parameter) for parameter in TRANSPORTS}
        if self._was_active:  # Time may have gone back meanwhile, and the images would not show it.
            self._transforms.forget()
        self._was_active = True
        try:
            for camera in self._cameras:
                camera.open(transports)
            returned = super().on_activate(state)
        except FAILURES as error:  # Nothing of a session is left, so that the transition can be requested again.
            self.log.report_bug('on_activate', error)
            self.on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        self._scheduler.activate()
        return returned

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the session, which cancels running work and goals, and unsubscribe; does not wait for the model."""
        self._end_session()
        self._close_cameras()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model. Runs in the worker's thread."""
        self._worker.unload_model()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything. Runs in the worker's thread."""
        self._end_session()
        self.run_in_executor(self._close_cameras)
        super().on_deactivate(state)
        return self.on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything after a transition has failed with an exception; the node can be configured again.

        Runs in the thread of that transition.
        """
        self._scheduler.deactivate('a transition of the node failed')
        self._masks.clear()
        self.run_in_executor(self._close_cameras)
        self._scheduler.submit(self._worker.unload_model)
        return super().on_error(state)

    def _end_session(self) -> None:
        self._scheduler.deactivate()
        self._masks.clear()
        self._scheduler.submit(free_device_memory)  # frees the memory of the encoded images

    def _close_cameras(self) -> None:
        for camera in self._cameras:
            camera.close()

    async def _autostart(self) -> None:
        self._autostart_timer.cancel()
        try:
            if await self.run_in_worker(self.trigger_configure) == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()
        except RuntimeError as error:  # Another client has requested a transition first.
            self.log.warning('autostart', f'autostart was skipped: {error}')

    # Input and output

    def _instruct(self, text: str) -> None:
        before, now = self._scheduler.instruction, self._scheduler.instruct(text)
        if now is not before:
            self.log.info('instruction', f"instruction {now.id}: '{shorten(now.text)}'" if now else 'stopped')

    def _warn_of_namesake(self) -> None:
        """Warn that another node has this node's name, so that each image gets two results.

        A process that ended without notice stays known for the lease duration of DDS.
        """
        name = self.get_name(), self.get_namespace()
        if self.get_node_names_and_namespaces().count(name) < 2:
            self._alone_s = time.monotonic()
        elif time.monotonic() - self._alone_s > NAMESAKE_S:
            self.log.warning(
                'namesake',
                f'another node is named {self.get_fully_qualified_name()} as well, and publishes on the same topics: '
                'end one of them, or give it another name or namespace',
            )

    def _warn_of_other_types(self) -> None:
        """Log which subscribed topics are published as another type, since such messages are never received."""
        now_s, next_warning_s = time.monotonic(), {}
        for topic, expected in {each.topic_name: type_name(each.msg_type) for each in self.subscriptions}.items():
            types = {publisher.topic_type for publisher in self.get_publishers_info_by_topic(topic)}
            others = ', '.join(sorted(types - {expected}))
            if not others:
                continue
            due_s = self._next_warning_s.get((topic, others), now_s)
            next_warning_s[topic, others] = due_s if now_s < due_s else now_s + REMIND_S
            if now_s >= due_s:
                hint = '; check image_transport and depth_transport' if expected.endswith('Image') else ''
                self.log.warning(
                    f'type of {topic}',
                    f'{topic} is published as {shorten(others)}, expected {expected}: it is not received{hint}',
                )
        self._next_warning_s = next_warning_s

    def _publish_diagnostics(self) -> None:
        self.log.flush()
        self._warn_of_namesake()
        self._warn_of_other_types()
        state, engine, instruction = self.state, self._worker.engine, self._scheduler.instruction
        silence_s = 0.0
        if state == 'active':
            silence_s = max(camera.silence_s for camera in self._cameras)
            for camera in self._cameras:
                camera.warn_if_much_is_lost()
            if instruction is not None:
                for camera in self._cameras:
                    camera.warn_if_silent()
                    camera.warn_if_depth_is_elsewhere()
        assessment = diagnostics.assess(
            state,
            self._load_error,
            engine.warning if engine else '',
            instruction.text if instruction else '',
            silence_s,
            self.statistics,
            is_worker_alive=self._worker.is_alive(),
        )
        device = str(engine.device) if engine else ''
        lost = [camera.lost for camera in self._cameras]
        values = {
            'state': state,
            'model': shorten(self._node_parameters.value('model')),
            'revision': getattr(engine, 'revision', ''),
            'device': device,
            'instruction': shorten(instruction.text) if instruction else '',
            'instruction_id': instruction.id if instruction else 0,
        } | diagnostics.status_values(self.statistics, self._streams, lost, device)
        name = self.get_fully_qualified_name().strip('/')
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics.status_array(name, device, stamp, assessment, values))


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog='instructsam-perception',
        description='Answers instructions about camera images with instance masks (ROS 2 lifecycle node).',
        epilog=f'parameters (--ros-args -p name:=value):\n{parameters.help_text()}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main(args: list[str] | None = None, engine_factory: 'Callable[..., InstructSAM]' = load_engine) -> int:
    """Run the node until SIGINT, SIGTERM or SIGHUP; return the exit code of the process."""
    caught = signals.catch()
    sys.setswitchinterval(0.001)  # s; limits the executor's wait for a model that runs Python code (default: 5 ms)
    cv2.setNumThreads(1)  # waking OpenCV's threads takes longer than their work here
    try:
        _parser().parse_args(remove_ros_args(args if args is not None else sys.argv)[1:])
        configure_dds()
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = PerceptionNode(engine_factory)
    except (ParameterException, NameValidationException, RuntimeError, ValueError) as error:
        print(f'instructsam-perception: {one_line(error)}', file=sys.stderr)
        return 2
    executor = GuardedExecutor(node.log.report_bug)
    executor.add_node(node)
    code = run('instructsam-perception', executor, caught, at_end=lambda: node.end_goals(executor))
    is_idle = node.close()
    executor.shutdown()
    node.destroy_node()
    try_shutdown()
    signals.ignore()
    if not is_idle:
        # The interpreter must not be finalized under a running model, whose threads would crash.
        finish(sys.stdout)
        finish(sys.stderr)
        os._exit(code)
    return code


if __name__ == '__main__':
    sys.exit(main())
