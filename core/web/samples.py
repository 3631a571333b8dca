"""Images that ship with the package: rendered tables with depth, and a real one if the ROS side is installed."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / 'samples'
REAL_FRAME = 'data/roborefit_frame/rgb.png'  # in instructsam_ros, which core knows by name only
REAL_INSTRUCTION = 'the black toy'


@dataclass(frozen=True)
class Sample:
    """An image with an instruction that suits it."""

    image: Path
    instruction: str
    depth: Path | None = None
    camera: tuple[float, ...] = ()  # fx, fy, cx, cy of the depth, px


def samples() -> list[Sample]:
    """Return the samples, those with depth first."""
    found = [
        Sample(FOLDER / one['image'], one['instruction'], FOLDER / one['depth'], tuple(one['camera']))
        for one in json.loads((FOLDER / 'samples.json').read_text())
    ]
    spec = importlib.util.find_spec('instructsam_ros')
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / REAL_FRAME).is_file():
            found.append(Sample(Path(folder) / REAL_FRAME, REAL_INSTRUCTION))
    return found
