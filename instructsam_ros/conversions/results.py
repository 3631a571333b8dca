"""An InstanceArray back to the Result that it was made of, for what works on results: overlays, tables, ids."""

from instructsam.core.result import STAGES, Instance, Result
from instructsam_ros.conversions.instances import rle_from_msg


def result_of(message):
    """The Result that an InstanceArray tells of, without geometry; the instances' slots stay behind in the node."""
    return Result(
        instruction=message.instruction,
        answer=message.answer,
        height=message.height,
        width=message.width,
        instances=tuple(
            Instance(rle_from_msg(each.mask), each.score, each.phrase, slot=None, track_id=each.track_id)
            for each in message.instances
        ),
        warning=message.message,
        timings_ms={stage: getattr(message, f'{stage}_ms') for stage in STAGES},
    )
