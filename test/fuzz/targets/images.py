"""Image files given to `instructsam segment`, and image messages given to the conversions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from harness import pictures
from harness.engine import tiny_engine, use_tiny_engine
from harness.example import Example, write_files
from harness.target import (
    ACCEPTED,
    InProcessTarget,
    Verdict,
    WrongAnswerError,
    check_finite,
    judge,
    read_json,
    run_command,
)
from hypothesis import strategies as st

CAMERA = ('60', '60', '31.5', '23.5')
INSTRUCTION = 'the red square'
MESSAGES = ('rgb8', 'bgr8', 'mono8', 'mono16', '16UC1', 'yuv422', 'nv12', 'bayer_rggb8', 'rgba16', 'jpeg', 'png')
DEPTHS = ('16UC1', '32FC1', '16UC1; compressedDepth', '32FC1; compressedDepth', '16UC1; png')


class Images(InProcessTarget):
    """Image files and messages. Files lie beside a depth image, which is used by half of the examples."""

    name: ClassVar[str] = 'images'
    time_limit_s: ClassVar[float] = 20.0
    memory_mb: ClassVar[int] = 1200
    seeds: ClassVar[tuple[str, ...]] = (
        *pictures.color_files(),
        *(f'message {encoding}' for encoding in MESSAGES),
        *(f'depth message {encoding}' for encoding in DEPTHS),
    )

    def options(self) -> st.SearchStrategy[dict[str, Any]]:
        """Return the strategy: the depth file, if any, and where results go."""
        return st.fixed_dictionaries(
            {'depth': st.sampled_from(['', '', *pictures.depth_files()]), 'overlay': st.booleans()}
        )

    def open(self, folder: Path) -> None:
        """Load the engine and make the seeds."""
        tiny_engine()
        self._colors, self._depths = pictures.color_files(), pictures.depth_files()
        self._expected: dict[tuple[str, str], Any] = {}

    def run(self, example: Example, folder: Path) -> Verdict:
        """Segment the file, or convert the message."""
        if 'message' in example.seed:
            return self._convert(example)
        depth = example.options['depth']
        files = {example.seed: self._colors[example.seed], **({depth: self._depths[depth]} if depth else {})}
        write_files(files, example.changes, folder)
        document, overlay = folder / 'result.json', folder / 'overlay.png'
        arguments = [
            'segment',
            str(folder / example.seed),
            INSTRUCTION,
            '--phrase',
            'red square',
            '--threshold',
            '0.05',
        ]
        arguments += ['--json', str(document)]
        arguments += ['--depth', str(folder / depth), '--camera', *CAMERA] if depth else []
        arguments += ['--out', str(overlay)] if example.options['overlay'] else []
        with use_tiny_engine():
            verdict = judge(run_command(arguments))
        if verdict.state == 'accepted':
            result = read_json(document)
            self._check(result, folder / example.seed)
            if not example.changes:
                self._check_repeated(result, example)
        elif not example.changes and not self._may_be_refused(example):
            raise WrongAnswerError(f'the valid {example.seed} is refused: {verdict.message}')
        return verdict

    @staticmethod
    def _may_be_refused(example: Example) -> bool:
        return bool(example.options['depth']) and example.seed == 'turned.jpg'

    def _check(self, result: dict[str, Any], file: Path) -> None:
        """Check what holds of any result: finite numbers, and masks of the image's size as Pillow has it."""
        from PIL import Image, ImageOps

        check_finite(result)
        with Image.open(file) as image:
            width, height = ImageOps.exif_transpose(image).size
        if (result['height'], result['width']) != (height, width):
            raise WrongAnswerError(
                f'a result of {result["height"]} x {result["width"]} px, the image has {height} x {width}'
            )

    def _check_repeated(self, result: dict[str, Any], example: Example) -> None:
        """Check that the valid input is answered as the first time."""
        found = result['instances']
        expected = self._expected.setdefault((example.seed, example.options['depth']), found)
        if found != expected:
            raise WrongAnswerError(f'{example.seed} is answered otherwise than before')

    # Messages

    def _convert(self, example: Example) -> Verdict:
        """Convert an image message; a depth message has metres, colour has [H, W, 3] uint8."""
        from harness.messages import change_message, image_message

        from instructsam_ros.conversions.depth import to_depth
        from instructsam_ros.conversions.images import to_rgb

        is_depth = example.seed.startswith('depth')
        valid = image_message(example.seed.rpartition('message ')[2], is_depth=is_depth)
        message = change_message(valid, example.changes)
        if is_depth:
            depth = np.asarray(to_depth(message))
            if depth.ndim != 2 or (not example.changes and depth.shape != (pictures.HEIGHT, pictures.WIDTH)):
                raise WrongAnswerError(f'depth of shape {depth.shape}')
            return ACCEPTED
        image = to_rgb(message)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise WrongAnswerError(f'an image of {image.dtype} {image.shape}')
        if not example.changes:
            off = np.abs(image.astype(int) - pictures.rgb()).mean()
            if off > 12 and example.seed in (
                'message rgb8',
                'message bgr8',
                'message rgba16',
                'message jpeg',
                'message png',
            ):
                raise WrongAnswerError(f'{example.seed} is off by {off:.0f} grey levels')
        return ACCEPTED


TARGET = Images()
