"""Overhead of the node: image in to result out, with a stand-in engine that returns ten prepared masks.

    python test/bench/bench_ros_cost.py [--size 1280x720] [--frames 500] [--depth | --label-image] [--track]
                                        [--model-ms 20]

The stand-in waits for --model-ms without the processor, as for a GPU; that time is measured and subtracted everywhere.
With 0 it returns at once, so that nothing of the node's work can be done meanwhile.

receive_to_publish is measured inside the node, from its image callback to the return of publish. end_to_end is measured
by another process, from before it publishes the image until it has the result: both DDS hops and (de)serialization in
Python are included. With --depth every image has a depth image of a table with ten objects; geometry is the time of all
3D steps, including the search for the depth image. With --track the masks are also carried to every image
(track_rate_hz), and a program subscribes to them. Every image is also sent to a bare rclpy node (echo.py) that returns
its header: `echo` is the end_to_end of that, and ratios to it depend less on the machine. Exits with 1 unless the
median of receive_to_publish, or of geometry with --depth, is below its goal; with --label-image there is no goal.
"""

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault('FASTRTPS_DEFAULT_PROFILES_FILE', str(ROOT / 'instructsam_ros' / 'data' / 'fastdds_images.xml'))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
sys.path.insert(0, str(ROOT / 'test' / 'ros' / 'support'))

import numpy as np  # noqa: E402
from robot import Robot  # noqa: E402
from scenery import table  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from instructsam_ros.conversions.instances import image_msg  # noqa: E402
from instructsam_ros.msg import TrackedInstanceArray  # noqa: E402

GOALS_MS = {'receive_to_publish': 5.0, 'geometry': 12.0}
STEPS = 'receive_to_publish', 'conversion', 'tracking', 'messages', 'geometry'
WARM_UP = 50  # number of images before the measurement
LOST_S = 1.0  # an image without a result after this time is lost


class Echo:
    """A bare node in another process, and the time of its answers."""

    def __init__(self, robot, image):
        self._robot, self._headers, self.times_ms = robot, [], []
        self.node = robot.start(command=(sys.executable, str(Path(__file__).with_name('echo.py'))))
        self._publisher = robot.node.create_publisher(Image, 'echo/image', 10)
        robot.node.create_subscription(Header, 'echo/header', robot.keep(self._headers), 10)
        robot.wait(lambda: self._publisher.get_subscription_count() and robot.node.count_publishers('echo/header'))
        self._image = image

    def ask(self, number):
        """Send an image and wait for its header."""
        start_s = time.perf_counter()
        message = image_msg(self._image, Header())
        message.header.stamp.sec = number
        self._publisher.publish(message)
        if self._robot.wait_or_time_out(lambda: self._headers and self._headers[-1].stamp.sec == number, LOST_S):
            self.times_ms.append((time.perf_counter() - start_s) * 1e3)


def size(text):
    """Return the (width, height) of `text`, e.g. 1280x720."""
    width, height = map(int, text.split('x'))
    return width, height


def measure(args):
    """Return {step: (p50, p95)} in ms and the number of images without a result; args: see main()."""
    width, height = args.size
    depth = table(height, width) if args.depth else None
    k = [width, 0.0, (width - 1) / 2, 0.0, width, (height - 1) / 2, 0.0, 0.0, 1.0]
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    robot = Robot(random.randrange(1, 102))
    try:
        model = f'model:=heavy {args.model_ms / 1e3}' if args.model_ms else 'model:=immediate'
        node = robot.start_active(model, 'score_threshold:=0.0', f'track_rate_hz:={240.0 if args.track else 0.0}')
        echo = Echo(robot, image)
        if args.track:
            robot.look_at('perception/tracked/instances', TrackedInstanceArray)
        if args.label_image:
            robot.look_at('perception/label_image')
        robot.say('ten masks')
        robot.next_result()
        round_trips_ms, lost = [], 0
        next_s = time.monotonic()
        for number in range(WARM_UP + args.frames):
            next_s += 1 / args.rate
            time.sleep(max(0.0, next_s - time.monotonic()))
            start_s = time.perf_counter()
            if depth is not None:
                robot.measure(depth, stamp=robot.frames + 1, k=k)
            stamp = robot.see(image)
            answered = robot.wait_or_time_out(
                lambda stamp=stamp: robot.results and robot.results[-1].header.stamp.sec == stamp, LOST_S
            )
            lost += not answered
            if answered and number >= WARM_UP:
                round_trips_ms.append((time.perf_counter() - start_s) * 1e3)
            echo.ask(number)
        assert len(robot.results[-1].instances) == 10
        assert all(each.has_geometry for each in robot.results[-1].instances) == (depth is not None)
        status = robot.status()
        for each in (node, echo.node):
            each.interrupt()
            each.exit_code()
    finally:
        robot.close()
    times_ms = {}
    steps = STEPS[: None if depth is not None else -1] + (('carrying',) if args.track else ())
    for step in steps:
        times_ms[step] = tuple(float(status[f'{step}_ms_p{percent}']) for percent in (50, 95))
    times_ms['end_to_end'] = tuple(map(float, np.percentile(round_trips_ms, (50, 95))))
    if args.model_ms:
        own_ms = float(status['image_encoders_ms_p50'])
        for step in ('receive_to_publish', 'end_to_end'):
            times_ms[step] = tuple(ms - own_ms for ms in times_ms[step])
    times_ms['echo'] = tuple(map(float, np.percentile(echo.times_ms[WARM_UP:], (50, 95))))
    return times_ms, lost


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=size, default='1280x720', help='of the rgb8 image, px (default: %(default)s)')
    parser.add_argument('--frames', type=int, default=500, help='measured images (default: %(default)s)')
    parser.add_argument('--rate', type=float, default=30.0, help='images per second (default: %(default)s)')
    extra = parser.add_mutually_exclusive_group()
    extra.add_argument('--depth', action='store_true', help='publish depth images, so that instances are located')
    extra.add_argument(
        '--label-image', action='store_true', help='subscribe to the label image, so that it is published'
    )
    parser.add_argument('--track', action='store_true', help='also carry the masks to every image')
    parser.add_argument('--model-ms', type=float, default=20.0, help='time of the model, ms (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='also write the numbers to this file')
    args = parser.parse_args()

    times_ms, lost = measure(args)
    name = 'x'.join(map(str, args.size))
    extra = 'depth' if args.depth else 'label image' if args.label_image else 'no depth, no label image'
    print(f'{name} rgb8, ten masks, {extra}, {args.frames} images, without {args.model_ms:g} ms of the model')
    print(f'{"ms":<20}{"median":>10}{"p95":>10}{"to echo":>10}')
    for step, (median, p95) in times_ms.items():
        print(f'{step:<20}{median:>10.2f}{p95:>10.2f}{median / times_ms["echo"][0]:>10.2f}')
    if lost:
        print(f'{lost} images without a result')
    if args.json:
        args.json.write_text(json.dumps({'size': name, 'lost': lost, 'times_ms': times_ms}, indent=1))
    if args.label_image:
        return 0
    step = 'geometry' if args.depth else 'receive_to_publish'
    is_met = times_ms[step][0] < GOALS_MS[step]
    print(f'goal: median of {step} under {GOALS_MS[step]} ms: {"met" if is_met else "NOT MET"}')
    return int(not is_met)


if __name__ == '__main__':
    sys.exit(main())
