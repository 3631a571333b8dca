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
    """A recording and an instruction that suits it."""

    recording: Path
    instruction: str


SHOWCASES = (Showcase(TABLE, 'something to cut paper with'), Showcase(FRAME, 'the black objects'))
