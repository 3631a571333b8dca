"""Images that ship with the package: rendered tables with depth, and a real one if the ROS side is installed."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / 'samples'
REAL_FRAME = 'data/roborefit_frame/rgb.png'  # in instructsam_ros, which core knows by name only


@dataclass(frozen=True)
class Sample:
    """An image with an instruction that suits it."""

    image: Path
    instruction: str
    depth: Path | None = None
    camera: tuple[float, ...] = ()  # fx, fy, cx, cy of the depth, px


RENDERED = (
    Sample(
        FOLDER / 'mugs.jpg',
        'the red mug and the banana',
        FOLDER / 'mugs_depth.png',
        (435.7, 435.7, 223.5, 167.5),
    ),
    Sample(FOLDER / 'plates.jpg', 'the plates', FOLDER / 'plates_depth.png', (376.1, 376.1, 223.5, 167.5)),
)


def samples() -> list[Sample]:
    """Return the samples, those with depth first."""
    spec = importlib.util.find_spec('instructsam_ros')
    frames = [Path(folder) / REAL_FRAME for folder in (spec and spec.submodule_search_locations) or ()]
    return [*RENDERED, *(Sample(frame, 'the black objects') for frame in frames if frame.is_file())]
