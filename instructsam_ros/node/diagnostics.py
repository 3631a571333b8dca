"""Content of the node's diagnostics: state, counters, durations of the steps and age of the results.

Why not diagnostic_updater: it is not among the ROS wheels on PyPI, which the node must run with. All values come from
one place, so there is nothing to collect from several tasks.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from instructsam.core.text import shorten
from instructsam_ros.node.lost_images import LostImages
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.mailbox import Counts
from instructsam_ros.pipeline.scheduling.statistics import Statistics

SILENCE_S = 3.0  # time without an image after which a warning is given
BUG_SHOWN_S = 60.0  # time for which an unhandled error determines the overall status


class Assessment(NamedTuple):
    """The overall status."""

    level: bytes  # a constant of DiagnosticStatus
    summary: str  # one line, human-readable


def status_array(
    name: str, hardware_id: str, stamp: Time, assessment: Assessment, values: Mapping[str, object]
) -> DiagnosticArray:
    """Return the DiagnosticArray with one status.

    Args:
        name: The node's name.
        hardware_id: The device that the model runs on.
        stamp: The current time.
        assessment: Level and summary.
        values: Shown with str().
    """
    status = DiagnosticStatus(
        level=assessment.level,
        name=name,
        message=assessment.summary,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message


def assess(
    state: str,
    load_error: str,
    warning: str,
    instruction: str,
    silence_s: float,
    statistics: Statistics,
    *,
    is_worker_alive: bool,
) -> Assessment:
    """Return the level and a one-line summary.

    Args:
        state: Name of the lifecycle state.
        load_error: Why the model could not be loaded; '' if it could.
        warning: The engine's warning about the model's limits; '' if there is none.
        instruction: The instruction in force; '' for none.
        silence_s: Seconds since the latest image, or since activation.
        statistics: Statistics of the pipeline.
        is_worker_alive: Whether the thread of the model runs.
    """
    if not is_worker_alive:
        return Assessment(DiagnosticStatus.ERROR, 'the thread of the model has ended: restart the node')
    if time.monotonic() - statistics.last_bug_s < BUG_SHOWN_S:
        return Assessment(DiagnosticStatus.ERROR, f'unexpected error in {shorten(statistics.last_bug)}')
    if load_error:
        return Assessment(DiagnosticStatus.ERROR, f'the model could not be loaded: {shorten(load_error)}')
    if state != 'active':
        return Assessment(DiagnosticStatus.OK, state)
    if instruction and silence_s > SILENCE_S:
        return Assessment(DiagnosticStatus.WARN, f'no image for {silence_s:.0f} s')
    if statistics.last_error:
        return Assessment(DiagnosticStatus.ERROR, shorten(statistics.last_error))
    activity = 'answering' if instruction else 'waiting for an instruction'
    if warning:
        return Assessment(DiagnosticStatus.WARN, f'{activity}; {warning}')
    return Assessment(DiagnosticStatus.OK, activity)


def status_values(
    statistics: Statistics, streams: Sequence[CameraStream], lost: Sequence[LostImages], device: str
) -> dict[str, object]:
    """Return the values of the status, of all cameras together.

    Args:
        statistics: Statistics of the pipeline.
        streams: The cameras.
        lost: Their lost images.
        device: The engine's; '' without an engine.
    """
    frames = Counts.total([stream.mailbox.counts() for stream in streams])
    values: dict[str, object] = {
        'frames_in': frames.received,
        'frames_used': frames.used,
        'frames_dropped': frames.dropped,
        'frames_waiting': frames.waiting,
        'frames_lost_in_transport': sum(each.in_transport for each in lost),
        'frames_lost_in_queue': sum(each.in_queue for each in lost),
        'results': statistics.results,
        'tracked_results': statistics.tracked_results,
        'results_superseded': statistics.superseded,
        'results_with_depth': sum(stream.depth.paired for stream in streams),
        'results_without_depth': sum(stream.depth.unpaired for stream in streams),
        **{f'goals_{state}': count for state, count in statistics.goals.items()},
        'errors': statistics.errors,
        'last_error': shorten(statistics.last_error),
        'unexpected_errors': statistics.bugs,
        'last_unexpected_error': shorten(statistics.last_bug),
    }
    for step, percentiles in statistics.percentiles().items():
        values[f'{step}_ms_p50'] = f'{percentiles.p50:.3f}'
        values[f'{step}_ms_p95'] = f'{percentiles.p95:.3f}'
    if statistics.last_result_s is not None:
        if statistics.last_latency_s is not None:
            values['last_result_latency_s'] = f'{statistics.last_latency_s:.3f}'  # image stamp to publication
        values['last_result_age_s'] = f'{time.monotonic() - statistics.last_result_s:.3f}'  # publication to now
    return values | _memory(device)


def _memory(device: str) -> dict[str, object]:
    values: dict[str, object] = {}
    status = Path('/proc/self/status')
    if status.exists():  # Linux
        resident = next(line for line in status.read_text().splitlines() if line.startswith('VmRSS:'))
        values['memory_mb'] = int(resident.split()[1]) // 1024
    if device.startswith('cuda'):
        # Imported already by the engine. At the top of the module it would delay the start of a node without a model.
        import torch  # noqa: PLC0415

        values['device_memory_mb'] = torch.cuda.memory_allocated(device) >> 20
    return values
