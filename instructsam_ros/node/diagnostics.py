"""What the node tells about itself once a second: state, counters, how long stages take, how old results are."""

import time
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from instructsam_ros.conversions.text import shorten

SILENCE_S = 3.0  # without an image for this long, somebody should look at the camera


def array(name, hardware_id, stamp, level, summary, values):
    """The DiagnosticArray of one status; `values` is a dict whose values are shown with str()."""
    status = DiagnosticStatus(
        level=level,
        name=name,
        message=summary,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message


def assess(state, load_error, warning, instruction, silence_s, statistics):
    """Level and one line for a person.

    Args:
        state: the lifecycle state's name.
        load_error: why the model could not be loaded, '' where it could.
        warning: the engine's, what the model is not made for; ''.
        instruction: the instruction in force, '' for none.
        silence_s: seconds since the latest image, or since activation.
    """
    if load_error:
        return DiagnosticStatus.ERROR, f'the model could not be loaded: {shorten(load_error)}'
    if state != 'active':
        return DiagnosticStatus.OK, state
    if instruction and silence_s > SILENCE_S:
        return DiagnosticStatus.WARN, f'no image for {silence_s:.0f} s'
    if statistics.last_error:
        return DiagnosticStatus.ERROR, shorten(statistics.last_error)
    activity = 'answering' if instruction else 'waiting for an instruction'
    if warning:
        return DiagnosticStatus.WARN, f'{activity}; {warning}'
    return DiagnosticStatus.OK, activity


def values(statistics, frames, device):
    """The numbers of a status. `frames` is the mailbox's Counts, `device` the engine's, '' where there is none."""
    shown = {
        'frames_in': frames.received,
        'frames_used': frames.used,
        'frames_dropped': frames.dropped,
        'frames_waiting': frames.waiting,
        'frames_lost_in_transport': statistics.lost,
        'results': statistics.results,
        'results_superseded': statistics.superseded,
        'results_with_depth': statistics.paired,
        'results_without_depth': statistics.unpaired,
        **{f'goals_{state}': count for state, count in statistics.goals.items()},
        'errors': statistics.errors,
        'last_error': shorten(statistics.last_error),
    }
    for stage, (p50, p95) in statistics.percentiles().items():
        shown[f'{stage}_ms_p50'] = f'{p50:.3f}'
        shown[f'{stage}_ms_p95'] = f'{p95:.3f}'
    if statistics.last_result_s is not None:
        shown['last_result_latency_s'] = f'{statistics.last_latency_s:.3f}'  # image stamp to publish
        shown['last_result_age_s'] = f'{time.monotonic() - statistics.last_result_s:.3f}'  # publish to now
    return shown | _memory(device)


def _memory(device):
    shown = {}
    status = Path('/proc/self/status')
    if status.exists():  # Linux
        resident = next(line for line in status.read_text().splitlines() if line.startswith('VmRSS:'))
        shown['memory_mb'] = int(resident.split()[1]) // 1024
    if device.startswith('cuda'):
        import torch  # there already; before an engine exists the worker may be in the midst of importing it

        shown['device_memory_mb'] = torch.cuda.memory_allocated(device) >> 20
    return shown
