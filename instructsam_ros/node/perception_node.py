"""The ROS 2 node: images and instructions in, instances out; the model runs in a thread of its own (see Worker)."""

import argparse
import gc
import os
import sys
import time
import traceback

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from std_msgs.msg import String

from instructsam_ros.conversions.text import shorten
from instructsam_ros.node import diagnostics, parameters, qos, signals
from instructsam_ros.node.camera_subscriber import Camera
from instructsam_ros.node.lifecycle import AsyncLifecycleMixin
from instructsam_ros.node.result_publisher import Outputs
from instructsam_ros.node.segment_action import SegmentAction
from instructsam_ros.node.transforms import Frames
from instructsam_ros.pipeline.answer import explain
from instructsam_ros.pipeline.camera_stream import Stream
from instructsam_ros.pipeline.localization import Locator
from instructsam_ros.pipeline.statistics import Statistics
from instructsam_ros.pipeline.worker import Worker

WAIT_FOR_CLIENTS_S = 0.3  # to be sent the end of their goals
WAIT_FOR_MODEL_S = 0.5  # at the end of the process
DIAGNOSTICS_PERIOD_S = 1.0


def load_engine(model, device, dtype, mode):
    """The engine; torch is imported here and not before, so that a node without a model is light."""
    from instructsam.core import InstructSAM

    return InstructSAM.from_pretrained(model, device=device, dtype=dtype, mode=mode)


class PerceptionNode(AsyncLifecycleMixin, Node):
    """Lifecycle node `perception`.

    Everything here runs in the executor's one thread and returns at once, except on_configure, on_cleanup and
    on_shutdown: these load or free the model, so they run in the worker's thread while the executor goes on.
    """

    def __init__(self, engine_factory=load_engine, **kwargs):
        """Args:
            engine_factory: called with model, device, dtype and mode (parameters) at each configure.
            kwargs: for rclpy's Node.

        Raises:
            ParameterException: a parameter's initial value cannot be used; the message says why.
        """
        Node.__init__(self, 'perception', **kwargs)
        AsyncLifecycleMixin.__init__(self, lambda job: self._worker.submit(job))
        parameters.declare(self, lambda: self.state)

        self._engine_factory = engine_factory
        self._load_error = ''
        self._statistics = Statistics()
        names = self.get_parameter('cameras').value
        self._streams = {name: Stream(name, Outputs(self, name), self._statistics) for name in names}
        frames = Frames(self)
        self._worker = Worker(
            list(self._streams.values()),
            Locator(frames),
            lambda: parameters.settings(self),
            self._statistics,
            self._seconds_since,
            self.get_logger(),
        )
        self._cameras = [Camera(self, stream, self._worker, self._statistics) for stream in self._streams.values()]
        self._worker.start()
        self._instruct(self.get_parameter('instruction').value)
        self.create_subscription(String, 'instruction', lambda message: self._instruct(message.data), qos.LATCHED)

        # steady: both must work while simulated time stands still
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._action = SegmentAction(self, self._worker, self._streams, self._statistics, steady)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)
        if self.get_parameter('autostart').value:
            group = ReentrantCallbackGroup()
            self._autostart_timer = self.create_timer(0.0, self._autostart, callback_group=group, clock=steady)

    def end_goals(self, executor, timeout_s=WAIT_FOR_CLIENTS_S):
        """Aborts all goals and lets their clients know, before the process ends."""
        if not self._action.is_idle:
            self._worker.deactivate('the node is shutting down')
            end_s = time.monotonic() + timeout_s
            while time.monotonic() < end_s:  # rclpy does not say when a result has been sent
                executor.spin_once(0.01)

    def close(self, timeout_s=WAIT_FOR_MODEL_S):
        """Ends the worker's thread. Returns whether it has ended, see Worker.close."""
        return self._worker.close(timeout_s)

    # Lifecycle

    def on_configure(self, state):
        """Loads the model. Runs in the worker's thread."""
        names = ('model', 'device', 'dtype', 'mode')
        wanted = {name: self.get_parameter(name).value for name in names}
        self.get_logger().info(f"loading model '{wanted['model']}'")
        start = time.monotonic()
        try:
            engine = self._worker.engine = self._engine_factory(**wanted)
        except Exception as error:
            self._load_error, _ = explain(error)
            self.get_logger().error(
                f"model '{wanted['model']}' could not be loaded: {self._load_error} "
                f'(set the parameter right, then configure and activate {self.get_fully_qualified_name()})'
            )
            self.get_logger().debug(traceback.format_exc())
            _free_device_memory()
            return TransitionCallbackReturn.FAILURE
        self._load_error = ''
        seconds = time.monotonic() - start
        self.get_logger().info(f"model '{engine.name}' on {engine.device} after {seconds:.1f} s")
        if engine.warning:
            self.get_logger().warning(engine.warning)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state):
        """Begins to listen to the cameras."""
        is_compressed = self.get_parameter('image_transport').value == parameters.COMPRESSED
        for camera in self._cameras:
            camera.open(is_compressed)
        returned = super().on_activate(state)
        self._worker.activate()
        return returned

    def on_deactivate(self, state):
        """Stops listening to the cameras and gives up running work and goals, without waiting for it."""
        self._worker.deactivate()
        self._worker.submit(_free_device_memory)  # of the encoded images
        for camera in self._cameras:
            camera.close()
        return super().on_deactivate(state)

    def on_cleanup(self, state):
        """Frees the model. Runs in the worker's thread."""
        self._worker.engine = None
        _free_device_memory()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state):
        """Frees everything. Runs in the worker's thread."""
        self.on_deactivate(state)
        return self.on_cleanup(state)

    async def _autostart(self):
        self._autostart_timer.cancel()
        try:
            if await self.elsewhere(self.trigger_configure) == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()
        except RuntimeError as error:  # somebody else asked for a transition first
            self.get_logger().warning(f'autostart gave way: {error}')

    # Input and output

    def _instruct(self, text):
        before, now = self._worker.instruction, self._worker.instruct(text)
        if now is not before:
            shown = f"instruction {now.id}: '{shorten(now.text)}'" if now else 'stopped'
            self.get_logger().info(shown)

    def _seconds_since(self, stamp):
        return self.get_clock().now().nanoseconds * 1e-9 - (stamp.sec + stamp.nanosec * 1e-9)

    def _frames(self):
        """Counts of all cameras together."""
        first, *others = [stream.mailbox.counts() for stream in self._streams.values()]
        return sum(others, start=first)

    def _publish_diagnostics(self):
        state = self.state
        engine = self._worker.engine
        instruction = self._worker.instruction
        silence_s = 0.0
        if state == 'active':
            silence_s = max(camera.silence_s(tell=instruction is not None) for camera in self._cameras)
        level, summary = diagnostics.assess(
            state,
            self._load_error,
            engine.warning if engine else '',
            instruction.text if instruction else '',
            silence_s,
            self._statistics,
        )
        device = str(engine.device) if engine else ''
        values = {
            'state': state,
            'model': self.get_parameter('model').value,
            'device': device,
            'instruction': shorten(instruction.text) if instruction else '',
            'instruction_id': instruction.id if instruction else 0,
        } | diagnostics.values(self._statistics, self._frames(), device)
        name = self.get_fully_qualified_name().strip('/')
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics.array(name, device, stamp, level, summary, values))


def _free_device_memory():
    """Gives what is no longer used back to the device."""
    gc.collect()  # a model has reference cycles
    torch = sys.modules.get('torch')  # absent where no model was ever loaded
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _parser():
    return argparse.ArgumentParser(
        prog='instructsam-perception',
        description='Answers instructions about camera images with instance masks (ROS 2 lifecycle node).',
        epilog=f'parameters (--ros-args -p name:=value):\n{parameters.help_text()}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main(args=None, engine_factory=load_engine):
    """Runs the node until SIGINT or SIGTERM; returns the process's exit code."""
    caught = signals.catch()
    sys.setswitchinterval(0.001)  # s; the executor waits this often and not 5 ms for a model that is busy in Python
    cv2.setNumThreads(1)  # waking its threads takes longer than what they would do here
    try:
        _parser().parse_args(remove_ros_args(args if args is not None else sys.argv)[1:])
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = PerceptionNode(engine_factory)
    except (ParameterException, NameValidationException, RuntimeError, ValueError) as error:
        print(f'instructsam-perception: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    signals.spin_until(caught, executor)

    node.end_goals(executor)
    is_idle = node.close()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    signals.ignore()
    if not is_idle:
        # the interpreter must not be taken down under a running model: its threads would crash in it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


if __name__ == '__main__':
    sys.exit(main())
