"""`instructsam bag`: answers instructions on every image of a ROS 2 bag and writes a bag that has the results, too.

The answers are the node's: the same engine, depth pairing, geometry, ids and messages (see bag_frames), only that no
image is left out. `instructsam bag show` draws them (see bag_show).
"""

import dataclasses
import re
import statistics
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from rclpy.serialization import deserialize_message, serialize_message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from instructsam.core import DEFAULT_MODEL
from instructsam.core.commands.arguments import count, probability, seconds, text
from instructsam.core.errors import InstructSAMError
from instructsam.core.modes import DTYPES, INFERENCE_MODES
from instructsam.core.version import version
from instructsam_ros.bag import show as bag_show
from instructsam_ros.bag import timeline as bag_script
from instructsam_ros.bag import topics as bag_topics
from instructsam_ros.bag.bag_file import BagFile, Copy
from instructsam_ros.bag.journal import Journal
from instructsam_ros.bag.offline_camera import OfflineCamera
from instructsam_ros.bag.recordings import RecordingError
from instructsam_ros.conversions import instances as messages
from instructsam_ros.conversions.instances import result_from_msg
from instructsam_ros.msg import InstanceArray
from instructsam_ros.pipeline.settings import ANSWERS, GENERATE, Settings

SHOW = 'show'
NAME = re.compile(r'/?[a-z_]\w*(/[a-z_]\w*)*', re.ASCII | re.IGNORECASE)
PREFIX = '/perception'  # the node's name, which its topics begin with


def add_arguments(parser):
    parser.usage = (
        'instructsam bag IN OUT [--instruction TEXT | --instructions FILE] [options]\n'
        '       instructsam bag show OUT FILE.(mp4|gif|png) [options]'
    )
    parser.epilog = (
        'A run that was cut off goes on where it was when the same command is given again: finished results are kept '
        'in OUT.journal until OUT is whole. Exit code: 0, also where nothing matches; 1 where every image ended in an '
        'error; 2 for input that cannot be used.'
    )
    parser.add_argument('input', metavar='IN', help='a bag: its folder, .mcap or .db3 file (or the word show)')
    parser.add_argument('output', metavar='OUT', help='the bag to write, a folder that does not exist yet')
    parser.add_argument('file', metavar='FILE', nargs='?', help='of show: the video, animation or picture to write')
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument('--instruction', type=text, help='what to look for in the whole bag')
    asked.add_argument(
        '--instructions',
        metavar='FILE',
        help=f'a YAML list of what to look for from when on, such as {bag_script.EXAMPLE}; seconds from '
        'the first message',
    )
    asked.add_argument(
        '--instruction-topic',
        metavar='TOPIC',
        help='a recorded std_msgs/String (default, without the two: `instruction`)',
    )

    def option(name, description, default=None, **kwargs):
        shown = '' if default is None else ' (default: %(default)s)'
        parser.add_argument(name, default=default, help=description + shown, **kwargs)

    option('--topic', 'of the images (default: the only one of colour images)', metavar='TOPIC')
    option(
        '--depth',
        'of depth aligned to the images (default: found by its name, such as aligned_depth_to_color; off: none)',
        metavar='TOPIC',
    )
    option('--camera-info', "of the images' intrinsics (default: beside the images)", metavar='TOPIC')
    option('--name', 'what the topics of results begin with', PREFIX, metavar='NAME')
    parser.add_argument('--label-images', action='store_true', help='write NAME/label_image as well')
    option('--model', 'built-in model, folder or hub id', DEFAULT_MODEL)
    option(
        '--mode',
        "consistent: as trained; reference: bit-faithful to the authors' inference",
        'consistent',
        choices=INFERENCE_MODES,
    )
    option('--device', 'auto, cpu, cuda, cuda:1, ...', 'auto')
    option('--dtype', 'precision of the weights', 'auto', choices=DTYPES)
    option(
        '--answer',
        'generate: the language model writes its answer; instruction: that is the instruction itself',
        GENERATE,
        choices=ANSWERS,
    )
    option('--threshold', 'lowest score, 0 to 1', Settings.score_threshold, type=probability)
    option('--max-new-tokens', 'limit of an answer', Settings.max_new_tokens, type=count, metavar='N')
    option(
        '--depth-tolerance',
        "how far a depth image's stamp may be off (default: they are equal)",
        type=seconds,
        metavar='S',
    )
    parser.add_argument('--keep-duplicates', action='store_true', help='keep masks that overlap by more than 0.8 IoU')
    bag_show.add_arguments(parser)


def run(args):
    """Returns the exit code, see add_arguments. Raises InstructSAMError."""
    try:
        if args.input == SHOW:
            return bag_show.run(args)
        return _process(args)
    except RecordingError as error:
        raise InstructSAMError(f'{error}') from error
    except OSError as error:  # such as a full disk
        where = error.filename or args.output
        raise InstructSAMError(f'{where}: {error.strerror}; mend that and run the same again') from error


def _process(args):
    out = Path(args.output)
    if args.file is not None:
        raise InstructSAMError(f'there is a third name, {args.file}: that is for `instructsam bag show OUT FILE`')
    bag = BagFile(args.input)
    topics = bag_topics.choose(bag, args.topic, args.depth, args.camera_info)
    script = _script(bag, args)
    made = _Made(args.name, args.label_images)
    made.check(bag)
    settings = _settings(args)
    journal = _journal(out, _asked(args, bag, topics, script, settings))
    try:
        if not journal.is_merged:
            _answer(args, bag, topics, OfflineCamera(bag, topics, script, settings), journal)
            _merge(bag, topics, made, journal)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and (done := journal.done):
            print(f'stopped; the same command goes on after {done} images (see {journal.folder})', file=sys.stderr)
        journal.close()
        raise
    return _tell(args, bag, topics, made, journal)


def _script(bag, args):
    if args.instruction is not None:
        return bag_script.constant(bag, args.instruction)
    if args.instructions is not None:
        return bag_script.timeline(bag, args.instructions)
    if args.instruction_topic is not None:
        bag_topics.check_instruction_topic(bag, args.instruction_topic)
    return bag_script.recorded(bag, args.instruction_topic or bag_topics.instruction_topic(bag))


def _settings(args):
    """As the node's parameters would have it."""
    return Settings(
        answer=args.answer,
        score_threshold=args.threshold,
        max_new_tokens=args.max_new_tokens,
        suppress_duplicates=not args.keep_duplicates,
        depth_tolerance_s=args.depth_tolerance or 0.0,
        depth_timeout_s=0.0,  # what comes is read before the image is answered
    )


def _journal(out, asked):
    journal = out.with_name(f'{out.name}.journal')
    if out.exists() and not journal.exists():
        raise InstructSAMError(f'{out} exists already: delete it or give another name')
    if not out.absolute().parent.is_dir():
        raise InstructSAMError(f'cannot write {out}: there is no folder {out.absolute().parent}')
    opened = Journal(out, asked)
    if out.exists() and not opened.is_merged:
        opened.close()
        raise InstructSAMError(f'{out} exists already, and {journal} has results for it: delete or rename one of them')
    return opened


def _asked(args, bag, topics, script, settings):
    """All that decides the results, for the journal."""
    return {
        'version': version(),
        'input': [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in bag.files],
        'topics': list(dataclasses.astuple(topics)),
        'instructions': [[time_ns - bag.start_ns, words] for time_ns, words in script.said],
        **{name: getattr(args, name) for name in ('model', 'mode', 'device', 'dtype', 'name', 'label_images')},
        **dataclasses.asdict(settings),
    }


def _answer(args, bag, topics, camera, journal):
    """Works out what the journal does not have yet; the model is loaded where there is something."""
    engine, told, done = None, set(), journal.done
    last = _read(journal.get(done - 1)) if done else None
    with _progress() as progress:
        if done:
            progress.console.print(f'going on after {done} images that are done (see {journal.folder})')
        task = progress.add_task('answering', total=bag.counts[topics.image])
        for frame in camera.frames():
            if frame.index < done:
                if frame.instruction and frame.instruction.id == last.instruction_id:
                    camera.recall(frame, _read(journal.get(frame.index)))
            elif frame.instruction:
                if engine is None:
                    engine = _load(args, progress.console)
                start = time.perf_counter()
                message, error = camera.answer(engine, frame, frame.instruction)
                journal.add(frame.index, (time.perf_counter() - start) * 1e3, serialize_message(message))
                if error is not None and type(error) not in told:
                    told.add(type(error))
                    progress.console.print(Text(f'image {frame.index}: {message.message}'), soft_wrap=True)
                    if not isinstance(error, InstructSAMError):  # a fault that should be known
                        progress.console.print(Text(''.join(traceback.format_exception(error))), soft_wrap=True)
            progress.advance(task)
        if camera.unreadable:
            progress.console.print(f'{camera.unreadable} messages of depth and camera info cannot be read')


def _load(args, console):
    from instructsam.core import InstructSAM  # torch comes with it: after all cheap checks

    engine = InstructSAM.from_pretrained(args.model, device=args.device, dtype=args.dtype, mode=args.mode)
    if engine.warning:
        console.print(Text(f'WARNING: {engine.warning}'), soft_wrap=True)
    return engine


class _Made:
    """The topics that are added, and what goes on them."""

    def __init__(self, name, label_images):
        if not NAME.fullmatch(name):
            raise InstructSAMError(f'--name is a ROS name such as {PREFIX}, got {name!r}')
        name = f'/{name.strip("/")}'
        self.instances, self.labels = f'{name}/instances', f'{name}/label_image'
        self.types = {self.instances: bag_topics.INSTANCES}
        if label_images:
            self.types[self.labels] = bag_topics.IMAGE

    def check(self, bag):
        """Raises RecordingError where the bag has such a topic."""
        taken = sorted(self.types.keys() & bag.types.keys())
        if taken:
            raise RecordingError(f'{bag.path} has {", ".join(taken)} already; give another --name than that')

    def of(self, data):
        """[(topic, serialized message)] for a serialized InstanceArray."""
        written = [(self.instances, data)]
        message = _read(data)
        if self.labels in self.types and message.status != InstanceArray.STATUS_ERROR:
            instances = result_from_msg(message).instances
            label_image = messages.label_image(instances, message.height, message.width, message.header)
            written.append((self.labels, serialize_message(label_image)))
        return written


def _merge(bag, topics, made, journal):
    """Writes the output: the bag, and behind each image what was made of it, at the same time."""
    folder, index = journal.fresh_copy(), 0
    with _progress() as progress, Copy(folder, bag, made.types) as copy:
        for connection, time_ns, data in progress.track(bag.messages(), bag.counts.total(), description='writing'):
            copy.write(connection, time_ns, data)
            if connection.topic == topics.image:
                result = journal.get(index)
                for topic, message in made.of(result) if result else ():
                    copy.add(topic, time_ns, message)
                index += 1
    journal.publish(folder)


def _tell(args, bag, topics, made, journal):
    """The summary; the exit code. The journal has served."""
    count, times = Counter(), []
    for ms, data in journal:
        message = _read(data)
        times.append(ms)
        count['results'] += 1
        count['answered'] += message.status == message.STATUS_OK
        count['no target'] += message.status == message.STATUS_NO_TARGET
        count['errors'] += message.status == message.STATUS_ERROR
        count['instances'] += len(message.instances)
        count['in 3D'] += sum(instance.has_geometry for instance in message.instances)
        count['without depth'] += bool(message.geometry_message)
    images = bag.counts[topics.image]
    rows = {
        'images': f'{images} on {topics.image}',
        **{name: str(count[name]) for name in ('answered', 'no target', 'errors')},
        'no instruction': str(images - count['results']),
        'instances': str(count['instances']),
        'ms per image': f'{statistics.median(times):.0f} (median)' if times else '-',
        'written': ', '.join(made.types) + f' in {args.output}',
    }
    if topics.depth:
        rows['instances'] += f', {count["in 3D"]} of them in 3D by {topics.depth}'
        rows['without depth'] = f'{count["without depth"]} results'
    for name, value in rows.items():
        print(f'{name:<16}{value}')
    journal.remove()
    return 1 if count['errors'] and count['errors'] == count['results'] else 0


def _progress():
    console = Console(stderr=True, highlight=False)
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _read(data):
    return deserialize_message(data, InstanceArray)
