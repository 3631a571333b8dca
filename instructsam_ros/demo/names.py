"""Names of the nodes and topics of the demo, and the recordings that it shows."""

from pathlib import Path
from typing import NamedTuple

NODE = 'instructsam_perception'
IMAGE_TOPIC = '/camera/image'
SIMULATED_CAMERA = 'simulated_camera'

DATA = Path(__file__).parents[1] / 'data'
TABLE = DATA / 'tabletop_bag'  # a bag of a rendered table, see its README.md
FRAME = DATA / 'roborefit_frame'  # an image of a real table, see its README.md


class Showcase(NamedTuple):
    """A recording and instructions that suit it."""

    recording: Path
    instructions: tuple[str, ...]


SHOWCASES = (
    Showcase(TABLE, ('the glass to the right of the book', 'the leftmost apple', 'all the red apples')),
    Showcase(FRAME, ('the banana', 'the black object', 'the mug')),  # there is no mug
)
