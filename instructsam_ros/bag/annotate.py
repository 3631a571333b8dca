"""`instructsam bag annotate`: answers instructions on every image of a bag and writes a copy with the results.

The results are those of the node: the same engine, depth synchronization, geometry, track ids and messages (see
offline_camera), except that no image is dropped. `instructsam bag show` draws them.
"""

import argparse
import dataclasses
import os
import statistics
import time
import traceback
from collections import Counter, deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.serialization import serialize_message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from instructsam.core import builtin, exit_codes
from instructsam.core.commands.options import load_model, precision
from instructsam.core.errors import InstructSAMError, StorageError
from instructsam.core.run_settings import RunRecord, check_settings, model_fingerprint
from instructsam.core.storage import explained_storage_faults
from instructsam.core.text import one_line, shorten
from instructsam.core.version import version
from instructsam_ros.bag import topics as bag_topics
from instructsam_ros.bag.journal import Journal, folder_for
from instructsam_ros.bag.offline_camera import OfflineCamera
from instructsam_ros.bag.reader import BagFile, print_notes
from instructsam_ros.bag.result_topics import ResultTopics, read_result
from instructsam_ros.bag.storage.limits import limits_from
from instructsam_ros.bag.timeline import (
    InstructionTimeline,
    constant_timeline,
    recorded_timeline,
    timeline_from_file,
)
from instructsam_ros.bag.writer import BagWriter, check_readable
from instructsam_ros.msg import InstanceArray
from instructsam_ros.pipeline.settings import Settings

if TYPE_CHECKING:
    from instructsam.core import InstructSAM

LONGEST_NAME = 230
"""Bytes of the output's name: file systems take 255, and names of its files are longer."""


class CommandModel:
    """The model of a command, which loads it at most once, for the first image that needs it.

    Args:
        args: Options of the command. A branch may move before the model is loaded, so that its commit is noted here.

    Raises:
        ModelError: There is no such model.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self.folder = builtin.folder(args.model, args.revision or '')
        if not os.path.isdir(os.path.expanduser(args.model)):
            args.revision = builtin.commit_of(self.folder)
        self._engine: InstructSAM | None = None

    @cached_property
    def content(self) -> str:
        """The fingerprint of the model."""
        return model_fingerprint(self.folder)

    def engine(self, console: Console) -> 'InstructSAM':
        """Return the engine; its warning is printed when it is loaded."""
        if self._engine is None:
            self._engine = load_engine(self._args, console)
        return self._engine


def annotate(
    args: argparse.Namespace, model: CommandModel | None = None, record: RunRecord | None = None
) -> tuple[int, bool]:
    """Annotate a bag and print a summary; return the exit code, see commands/annotate.py, and whether it is new.

    Args:
        args: Options of the command.
        model: The model, if several bags share it.
        record: Written when the output is complete: a second call then finds it, and does nothing.

    Raises:
        InstructSAMError: the bags or arguments cannot be used, or the output cannot be written.
    """
    with explained_storage_faults(args.output):
        bag = BagFile(args.input, limits_from(args))
        print_notes(bag)
        topics = bag_topics.select_topics(bag, args.topic, args.depth, args.camera_info)
        bag_topics.check_definitions(bag, {topics.image, topics.depth, topics.camera_info})
        timeline = _timeline(bag, args)
        result_topics = ResultTopics(args.name, label_images=args.label_images)
        result_topics.check(bag)
        settings = _settings(args)
        earlier = None if record is None else record.read()
        if earlier is None or not Path(args.output).exists():
            earlier = None
            _check_output(Path(args.output))
        model = model or CommandModel(args)
        inputs = _inputs(args, model, bag, topics, timeline, settings)
        if earlier is not None and not folder_for(Path(args.output)).exists():
            check_settings(earlier['settings'], inputs, output=args.output, advice='give another output')
            return int(earlier['exit_code']), False
        journal = _open_journal(Path(args.output), inputs)
        with _closed_on_error(journal):
            if journal.is_merged:
                deque(bag.messages(), maxlen=0)  # counts what the summary says about publish times
            else:
                camera = OfflineCamera(bag, topics, timeline, settings)
                _answer_images(model, camera, bag.counts[topics.image], journal)
                _write_output(bag, topics, result_topics, journal)
        exit_code = _print_summary(args.output, bag, topics, result_topics, journal)
        _print_unread(bag_topics.unread_topics(bag, topics))
        if record is not None:
            record.start(inputs, exit_code=exit_code)
        journal.remove()
    return exit_code, True


@contextmanager
def _closed_on_error(journal: Journal) -> Generator[None, None, None]:
    """Close the journal if the block raises; on Ctrl-C, also say how to resume."""
    try:
        yield
    except BaseException as error:
        was_removed = isinstance(error, Exception) and not journal.folder.exists()
        with suppress(Exception):  # The error of the block is the first, and says what is wrong.
            if isinstance(error, KeyboardInterrupt) and (done := journal.done):
                error.args = (f'the same command resumes after {done} images (see {journal.folder})',)
            journal.close()
        if was_removed:
            raise StorageError(
                f'{journal.folder} was removed while it was in use; the same command starts from scratch'
            ) from error
        raise


def _timeline(bag: BagFile, args: argparse.Namespace) -> InstructionTimeline:
    if args.instruction is not None:
        return constant_timeline(bag, args.instruction)
    if args.instructions is not None:
        return timeline_from_file(bag, args.instructions)
    return recorded_timeline(bag, bag_topics.instruction_topic(bag, args.instruction_topic))


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        answer=args.answer,
        score_threshold=args.threshold,
        max_new_tokens=args.max_new_tokens,
        suppress_duplicates=not args.keep_duplicates,
        depth_tolerance_s=args.depth_tolerance or 0.0,
        max_megapixels=args.max_megapixels,
        rectified=args.rectified,
        frame_tolerance=args.frame_tolerance or '',
        depth_timeout_s=0.0,  # all depth that can be of use is read before an image is answered
    )


def _check_output(out: Path) -> None:
    if out.name in ('', '..'):
        raise InstructSAMError(f'cannot write {out}: give the name of a new folder')
    length = len(os.fsencode(out.name))
    if length > LONGEST_NAME:
        raise InstructSAMError(
            f'cannot write {shorten(out)}: its name has {length} bytes, expected at most {LONGEST_NAME}'
        )
    journal = folder_for(out)
    for path in (out, journal):
        if path.is_symlink():
            raise InstructSAMError(f'{path} is a symbolic link: delete it or give another name')
    if out.exists() and not journal.exists():
        raise InstructSAMError(f'{out} exists already: delete it or give another name')
    if not out.absolute().parent.is_dir():
        raise InstructSAMError(f'cannot write {out}: there is no folder {out.absolute().parent}')


def _open_journal(out: Path, inputs: dict[str, Any]) -> Journal:
    journal = Journal(out, inputs)
    if out.exists() and not journal.is_merged:
        has_results = journal.done  # otherwise it is what a run left that was killed while it deleted the journal
        journal.close()
        other = f', and {journal.folder} has results for it: delete or rename one of them' if has_results else ''
        raise InstructSAMError(f'{out} exists already{other or ": delete it or give another name"}')
    return journal


def _inputs(
    args: argparse.Namespace,
    model: CommandModel,
    bag: BagFile,
    topics: bag_topics.Topics,
    timeline: InstructionTimeline,
    settings: Settings,
) -> dict[str, Any]:
    """Return everything that decides the results, for the journal."""
    return {
        'version': version(),
        'revision': builtin.commit_of(model.folder),
        'model_content': model.content,
        'input': [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in bag.files],
        'topics': list(dataclasses.astuple(topics)),
        'instructions': [[time_ns - bag.start_ns, instruction] for time_ns, instruction in timeline.changes],
        **{name: getattr(args, name) for name in ('model', 'mode', 'device', 'compile', 'name', 'label_images')},
        'dtype': precision(args, model.folder),
        **dataclasses.asdict(settings),
    }


def _answer_images(model: CommandModel, camera: OfflineCamera, image_count: int, journal: Journal) -> None:
    """Compute the results that the journal does not have yet; the model is loaded for the first one."""
    done = journal.done
    last = _last_result(journal, done)
    with _progress() as progress:
        errors = _ErrorLog(progress.console)
        if done:
            progress.console.print(
                _line(f'resuming after {done} finished images (see {journal.folder})'), soft_wrap=True
            )
        task = progress.add_task('answering', total=image_count)
        for frame in camera.frames():
            if frame.index < done:
                result = journal.get(frame.index)
                if result and last and frame.instruction and frame.instruction.id == last.instruction_id:
                    camera.recall(frame, read_result(result))
            elif frame.instruction:
                engine = model.engine(progress.console)
                start = time.perf_counter()
                message, error = camera.answer(engine, frame, frame.instruction)
                journal.add(frame.index, (time.perf_counter() - start) * 1e3, serialize_message(message))
                if error is not None:
                    errors.report(frame.index, message.message, error)
            progress.advance(task)
        if camera.unreadable:
            progress.console.print(f'{camera.unreadable} messages of depth and camera info cannot be read')


def load_engine(args: argparse.Namespace, console: Console) -> 'InstructSAM':
    """Load the model that the arguments name, and print its warning."""
    engine = load_model(args)
    if engine.warning:
        console.print(_line(f'WARNING: {engine.warning}'), soft_wrap=True)
    return engine


def _line(text: str) -> Text:
    """Return one line that is safe to print, without rich's markup."""
    return Text(one_line(text))


class _ErrorLog:
    """Prints the first error of each type, with a traceback if it is not caused by the input."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._reported: set[type[Exception]] = set()

    def report(self, index: int, message: str, error: Exception) -> None:
        if type(error) in self._reported:
            return
        self._reported.add(type(error))
        self._console.print(_line(f'image {index}: {message}'), soft_wrap=True)
        if not isinstance(error, InstructSAMError):
            for line in ''.join(traceback.format_exception(error)).splitlines():
                indentation = len(line) - len(line.lstrip())
                self._console.print(Text(line[:indentation]) + _line(line), soft_wrap=True)


def _write_output(bag: BagFile, topics: bag_topics.Topics, result_topics: ResultTopics, journal: Journal) -> None:
    """Write a copy of the bag with the results of each image after it, at the same bag time."""
    folder, index = journal.new_output_folder(), 0
    with _progress() as progress, BagWriter(folder, bag, result_topics.types) as writer:
        for connection, time_ns, data in progress.track(bag.messages(), bag.counts.total(), description='writing'):
            writer.copy(connection, time_ns, data)
            if connection.topic == topics.image:
                result = journal.get(index)
                if result:
                    for topic, message in result_topics.messages(result):
                        writer.add(topic, time_ns, message)
                index += 1
    check_readable(folder, bag.counts)
    journal.publish(folder)


def _print_summary(
    output: str, bag: BagFile, topics: bag_topics.Topics, result_topics: ResultTopics, journal: Journal
) -> int:
    """Print the counts of the results and what the copy lacks; return the exit code."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()  # why results have no geometry
    image_count = bag.counts[topics.image]
    times_ms, failed = [], []
    for frame, ms, data in journal:
        message = read_result(data)
        times_ms.append(ms)
        counts['results'] += 1
        counts['answered'] += message.status == InstanceArray.STATUS_OK
        counts['no target'] += message.status == InstanceArray.STATUS_NO_TARGET
        if message.status == InstanceArray.STATUS_ERROR:
            failed.append(frame)
        counts['instances'] += len(message.instances)
        counts['in 3D'] += sum(instance.has_geometry for instance in message.instances)
        reasons[message.geometry_message] += bool(message.geometry_message)
    rows = {
        'images': f'{image_count} on {topics.image}',
        **{name: str(counts[name]) for name in ('answered', 'no target')},
        'errors': f'{len(failed)}: images {shorten(", ".join(map(str, failed)))}' if failed else '0',
        'no instruction': str(image_count - counts['results']),
        'instances': str(counts['instances']),
        'ms per image': f'{statistics.median(times_ms):.0f} (median)' if times_ms else '-',
        'written': ', '.join(result_topics.types) + f' in {output}',
    }
    if topics.depth:
        rows['instances'] += f', {counts["in 3D"]} of them in 3D by {topics.depth}'
        rows['without depth'] = f'{reasons.total()} results'
        if reasons.total():
            rows['without depth'] += f'; most often: {one_line(reasons.most_common(1)[0][0])}'
    else:
        rows['without depth'] = 'all results, because no topic of depth is read'
    if bag.left_out:
        rows['left out'] = ', '.join(f'{count} messages on {topic}' for topic, count in bag.left_out.items())
    not_copied = Counter({**bag.extras, 'publish times': bag.publish_times})
    if not_copied.total():
        rows['not copied'] = ', '.join(f'{count} {name}' for name, count in not_copied.items() if count)
    for name, value in rows.items():
        print(f'{name:<16}{one_line(value)}')
    if failed and len(failed) == counts['results']:
        return exit_codes.FAILED
    return exit_codes.SOME_FAILED if failed or bag.left_out.total() else exit_codes.DONE


def _print_unread(reasons: dict[str, str]) -> None:
    """Print the images and depth of the bag that had no part in the results."""
    for topic, reason in reasons.items():
        print(f'{"not read":<16}{one_line(topic)}: {one_line(reason)}')


def _last_result(journal: Journal, done: int) -> InstanceArray | None:
    result = journal.get(done - 1) if done else None
    return None if result is None else read_result(result)


def _progress() -> Progress:
    console = Console(stderr=True, highlight=False)
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
