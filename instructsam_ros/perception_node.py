"""The ROS 2 node: images and instructions in, instances out; the model runs in a thread of its own (see Worker)."""
import argparse
import gc
import os
import sys
import time
import traceback

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from instructsam.core import InstructSAMError
from instructsam_ros import diagnostics, parameters, signals
from instructsam_ros.lifecycle import PatientLifecycleMixin
from instructsam_ros.outputs import Outputs
from instructsam_ros.worker import Worker

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

# Sensor data, but deeper than the usual 5: images that come in a burst, or while this process is not let run, would be
# replaced in the middleware, where nobody counts them (seen: 1 of 17,940 at 30 Hz on a busy machine).
SENSOR_QOS = QoSProfile(depth=15, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
WAIT_FOR_MODEL_S = 0.5  # at the end of the process
DIAGNOSTICS_PERIOD_S = 1.0
MUCH_LOST = 0.1  # images, against those that came
REMIND_S = 30.0  # of what goes on being wrong


def load_engine(model, device, dtype, mode):
    """The engine; torch is imported here and not before, so that a node without a model is light."""
    from instructsam.core import InstructSAM

    return InstructSAM.from_pretrained(model, device=device, dtype=dtype, mode=mode)


class PerceptionNode(PatientLifecycleMixin, Node):
    """Lifecycle node `perception`.

    Everything here runs in the executor's one thread and returns at once, except on_configure, on_cleanup and
    on_shutdown: these load or free the model, so they run in the worker's thread while the executor goes on.
    """

    def __init__(self, engine_factory=load_engine, **kwargs):
        """
        Args:
            engine_factory: called with model, device, dtype and mode (parameters) at each configure.
            kwargs: for rclpy's Node.

        Raises:
            ParameterException: a parameter's initial value cannot be used; the message says why.
        """
        Node.__init__(self, 'perception', **kwargs)
        PatientLifecycleMixin.__init__(self, lambda job: self._worker.submit(job))
        parameters.declare(self, lambda: self.state)

        self._engine_factory = engine_factory
        self._load_error = ''
        self._image_subscription = None
        self._last_image_s = None  # time.monotonic(); None before the first since activation
        self._activated_s = 0.0
        self._statistics = diagnostics.Statistics()
        self._worker = Worker(
            Outputs(self), lambda: parameters.settings(self), self._statistics, self._seconds_since, self.get_logger()
        )
        self._worker.start()
        self._instruct(self.get_parameter('instruction').value)
        self.create_subscription(String, 'instruction', lambda message: self._instruct(message.data), COMMAND_QOS)

        # steady: both must work while simulated time stands still
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)
        if self.get_parameter('autostart').value:
            group = ReentrantCallbackGroup()
            self._autostart_timer = self.create_timer(0.0, self._autostart, callback_group=group, clock=steady)

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
            is_expected = isinstance(error, InstructSAMError)
            self._load_error = diagnostics.one_line(error if is_expected else f'{type(error).__name__}: {error}')
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
        """Begins to listen to images."""
        self._last_image_s = None
        self._activated_s = time.monotonic()
        topic, message_type = self.resolve_topic_name('image'), Image
        if self.get_parameter('image_transport').value == parameters.COMPRESSED:
            topic, message_type = f'{topic}/compressed', CompressedImage
        self._image_subscription = self.create_subscription(
            message_type, topic, self._on_image, SENSOR_QOS,
            event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_message_lost),
        )  # fmt: skip
        returned = super().on_activate(state)
        self._worker.activate()
        return returned

    def on_deactivate(self, state):
        """Stops listening to images and gives up running work, without waiting for it."""
        self._worker.deactivate()
        self._worker.submit(_free_device_memory)  # of the encoded image
        if self._image_subscription is not None:
            self.destroy_subscription(self._image_subscription)
            self._image_subscription = None
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
            shown = f"instruction {now.id}: '{diagnostics.shorten(now.text)}'" if now else 'stopped'
            self.get_logger().info(shown)

    def _on_image(self, message):
        if self._last_image_s is None:
            kind = message.format if isinstance(message, CompressedImage) else (
                f'{message.width} x {message.height} {message.encoding}'
            )
            self.get_logger().info(f'first image: {kind}')
        self._last_image_s = time.monotonic()
        self._worker.offer(message)

    def _on_message_lost(self, event):
        self._statistics.lost += event.total_count_change
        lost, received = self._statistics.lost, self._worker.mailbox.counts().received
        if lost > MUCH_LOST * received:
            self.get_logger().warning(
                f'{lost} images were lost on the way to the node, {received} came: the publisher\'s middleware has too '
                'little room for them (Fast DDS: see config/fastdds_images.xml)',
                throttle_duration_sec=REMIND_S,
            )

    def _seconds_since(self, stamp):
        return self.get_clock().now().nanoseconds * 1e-9 - (stamp.sec + stamp.nanosec * 1e-9)

    def _publish_diagnostics(self):
        state = self.state
        engine = self._worker.engine
        instruction = self._worker.instruction
        silence_s = time.monotonic() - (self._last_image_s or self._activated_s)
        if state == 'active' and instruction and silence_s > diagnostics.SILENCE_S:
            topic = self._image_subscription.topic_name
            self.get_logger().warning(
                f'no image on {topic} for {silence_s:.0f} s ({self.count_publishers(topic)} publishers)',
                throttle_duration_sec=REMIND_S,
            )
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
            'instruction': diagnostics.shorten(instruction.text) if instruction else '',
            'instruction_id': instruction.id if instruction else 0,
        } | diagnostics.values(self._statistics, self._worker.mailbox.counts(), device)
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
