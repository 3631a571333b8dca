"""`instructsam demo`: a camera (replayed), the perception node and a user, three processes that share only DDS.

The user is this process: it sends an instruction, waits for the answer on the topics, prints it and keeps the overlay.
It does so for a recording of a rendered table and for a picture of a real one, or for a recording of the caller's.
With --live the camera is simulated instead and has depth, see live_demo.
"""

import os
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import String

from instructsam.core import DEFAULT_MODEL
from instructsam.core.commands.arguments import seconds, text
from instructsam.core.display.table import print_result
from instructsam.core.errors import InstructSAMError
from instructsam.core.image_file import check_image_path, write_image
from instructsam_ros.bag.recordings import RecordingError, open_recording
from instructsam_ros.conversions.images import to_rgb
from instructsam_ros.conversions.instances import result_from_msg
from instructsam_ros.demo.listener import Listener, keep
from instructsam_ros.demo.processes import NoResultError, isolation, node_command, running
from instructsam_ros.msg import InstanceArray
from instructsam_ros.node import qos

DATA = Path(__file__).parents[1] / 'data'
TABLE = DATA / 'tabletop_bag'  # a bag, see the README.md beside it
FRAME = DATA / 'roborefit_frame'  # one picture, see the README.md beside it
SHOWN = ((TABLE, 'something to cut paper with'), (FRAME, 'the black objects'))
IMAGE_TOPIC = '/camera/image'
NODE = 'instructsam_perception'


def add_arguments(parser):
    parser.add_argument(
        '--recording',
        metavar='PATH',
        type=Path,
        help='a bag, picture or folder of pictures (default: the two that ship)',
    )
    parser.add_argument('--live', action='store_true', help='a simulated RGB-D camera: masks, 3D and grasp candidates')
    parser.add_argument('--seed', metavar='N', type=int, help='the table that it sees, with --live (default: 0)')
    parser.add_argument('--instruction', type=text, help='(default: one that suits what is shown)')
    parser.add_argument(
        '--model', default=DEFAULT_MODEL, help='built-in model, folder or hub id (default: %(default)s)'
    )
    parser.add_argument(
        '--out',
        metavar='FILE',
        default='instructsam_demo.png',
        help='where the overlays go, side by side (default: %(default)s)',
    )
    parser.add_argument(
        '--timeout',
        metavar='S',
        type=seconds,
        default=180.0,
        help='how long to wait for a result (default: %(default)s)',
    )


def run(args):
    """Returns 0 where results came (also 'no target'), else 1. Raises InstructSAMError for useless arguments."""
    check_image_path(args.out)
    if args.live and args.recording:
        raise InstructSAMError('give --recording or --live, not both')
    if args.seed is not None and not args.live:
        raise InstructSAMError('--seed chooses the table of --live: give that, too')
    if args.recording and not args.instruction:
        raise InstructSAMError('give an --instruction for your recording')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the children are ended, too
    os.environ.update(isolation())
    try:
        _show_live(args) if args.live else _show_recordings(args)
    except NoResultError as error:
        print(f'instructsam: error: {error}', file=sys.stderr)
        return 1
    return 0


def _show_live(args):
    from instructsam_ros.demo import live as live_demo  # here: it takes more than a recording does

    write_image(args.out, live_demo.show(args.seed or 0, args.instruction, args.model, args.timeout))
    print(f'masks and grasp candidates: {Path(args.out).resolve()}')


def _show_recordings(args):
    shown = [(args.recording, '')] if args.recording else SHOWN
    overlays = [
        _show(recording, args.instruction or instruction, args.model, args.timeout) for recording, instruction in shown
    ]
    write_image(args.out, _side_by_side(overlays))
    if args.model == DEFAULT_MODEL and not args.recording:
        print('The built-in model has seen rendered tables only. The left picture is what it was made for; on a real')
        print('one, as on the right, its masks are guesses that no robot should act on.')
    print(f'overlays from /{NODE}/overlay: {Path(args.out).resolve()}')


def _show(recording, instruction, model, timeout_s):
    """Asks the node about a recording and prints the answer; its overlay. Raises InstructSAMError: no recording,
    and NoResultError.
    """
    try:
        topic, is_compressed = _image_topic(recording)
    except RecordingError as error:
        raise InstructSAMError(f'{error}') from error
    with running(_commands(model, recording, topic, is_compressed)) as check:
        domain = os.environ['ROS_DOMAIN_ID']
        print(f'ROS domain {domain}: replay of {recording.name} on {IMAGE_TOPIC}, node /{NODE} with model {model}')
        with _User() as user:
            start = time.monotonic()
            print(f'instruction sent: {instruction}', flush=True)
            answer, overlay = user.ask(instruction, timeout_s, check)
    print(f'result received on /{NODE}/instances after {time.monotonic() - start:.1f} s, loading the model included\n')
    print_result(result_from_msg(answer))
    return overlay


def _image_topic(recording):
    """The recording's first topic of color images, and whether it is of compressed ones. Raises RecordingError."""
    types = open_recording(recording).types
    for kind in ('Image', 'CompressedImage'):
        for topic, name in types.items():
            if name == f'sensor_msgs/msg/{kind}' and 'depth' not in topic:
                return topic, kind == 'CompressedImage'
    raise RecordingError(f'{recording} has no topic of images')


def _side_by_side(pictures):
    """Pictures [H, W, 3] in a row, at the height of the highest."""
    height = max(len(picture) for picture in pictures)
    return np.hstack(
        [
            cv2.resize(each, (round(each.shape[1] * height / len(each)), height), interpolation=cv2.INTER_CUBIC)
            for each in pictures
        ]
    )


def _commands(model, recording, topic, is_compressed):
    """{name: command line} of the child processes."""
    parameters = {'model': model}
    if is_compressed:
        parameters['image_transport'] = 'compressed'
    replay = [sys.executable, '-m', 'instructsam_ros.simulation.replay_node', str(recording), '--loop', '--ros-args']
    heard = f'{IMAGE_TOPIC}/compressed' if is_compressed else IMAGE_TOPIC
    return {
        'perception node': node_command('node.perception_node', parameters, f'image:={IMAGE_TOPIC}', f'__node:={NODE}'),
        'replay': [*replay, '-r', f'{topic}:={heard}'],
    }


class _User(Listener):
    """Asks, and listens to answers and overlays."""

    def __init__(self):
        super().__init__('instructsam_demo')
        self._answers, self._overlays = {}, {}  # by the image's stamp
        self._node.create_subscription(InstanceArray, f'/{NODE}/instances', self._on_answer, 10)
        self._node.create_subscription(Image, f'/{NODE}/overlay', self._on_overlay, 10)
        self._instruction = self._node.create_publisher(String, 'instruction', qos.LATCHED)

    def ask(self, instruction, timeout_s, check):
        """Sends `instruction`; returns (InstanceArray, overlay [H, W, 3] uint8) of one image.

        check: called now and then, raises where waiting is in vain. Raises NoResultError after `timeout_s` and where
        the node reports an error.
        """
        self._instruction.publish(String(data=instruction))
        deadline_s = time.monotonic() + timeout_s
        self.wait_for(self._common, check, deadline_s, f'no result within {timeout_s:g} s.')
        stamp = self._common().pop()
        return self._answers[stamp], self._overlays[stamp]

    def _common(self):
        return self._answers.keys() & self._overlays.keys()

    def _on_answer(self, message):
        if message.status == InstanceArray.STATUS_ERROR:
            raise NoResultError(f'the node reports: {message.message}')
        keep(self._answers, message.header.stamp, message)

    def _on_overlay(self, message):
        keep(self._overlays, message.header.stamp, to_rgb(message))
