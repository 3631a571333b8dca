"""The inputs of the page as a question; every file is checked before it is decoded."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from instructsam.core.errors import ImageError, InstructSAMError
from instructsam.core.files.image_file import read_depth, read_image
from instructsam.core.spatial.calibration import Calibration, camera_model
from instructsam.core.spatial.geometry import check_alignment, check_units
from instructsam.core.web.source import Question


@dataclass(frozen=True)
class Form:
    """The inputs of the page."""

    instruction: str
    picture: str | None  # path of the uploaded image
    is_live: bool = False  # True: ask about the newest image of the camera
    threshold: float = 0.5
    depth: str | None = None  # path of the uploaded depth image
    camera: Sequence[float | None] = ()  # fx, fy, cx, cy of the depth, px


def read_form(form: Form, max_megapixels: float) -> Question:
    """Return the question of a form.

    Raises:
        InstructSAMError: An input is missing or cannot be used.
    """
    if not form.instruction.strip():
        raise InstructSAMError('there is no instruction yet: say what to look for, for example "the red mug"')
    if form.is_live:
        return Question(form.instruction, None, form.threshold)
    if form.picture is None:
        raise ImageError('there is no image yet: drop one on the page, take one with the camera or choose a sample')
    with _short_names(form.picture):
        image = read_image(form.picture, max_megapixels, allow_rotation=form.depth is None)
    if form.depth is None:
        return Question(form.instruction, image, form.threshold)
    numbers = [float(number) for number in form.camera if number is not None]
    if len(numbers) != 4:
        raise InstructSAMError('a depth image needs the intrinsics fx, fy, cx and cy of the image, px: see Options')
    height, width = image.shape[:2]
    with _short_names(form.depth):
        depth = read_depth(form.depth, max_megapixels)
    check_alignment(depth, (height, width))
    check_units(depth)
    fx, fy, cx, cy = numbers
    camera = camera_model(Calibration(width, height, k=(fx, 0, cx, 0, fy, cy, 0, 0, 1)), (height, width))
    return Question(form.instruction, image, form.threshold, depth, camera)


@contextmanager
def _short_names(path: str) -> Generator[None, None, None]:
    """Let errors name a file as the user does, without the folder of uploads."""
    try:
        yield
    except ImageError as error:
        raise ImageError(str(error).replace(path, Path(path).name)) from error
