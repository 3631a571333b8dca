"""Photometric augmentation of training images: exposure, white balance, saturation, blur, noise and JPEG artefacts.

Masks and boxes stay valid, and nothing is mirrored, because instructions speak of left and right. NumPy and OpenCV do
it in the data workers; torchvision's transforms draw from torch's global generator, whose numbers depend on the number
of workers.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np

from instructsam.train.pictures import compress_jpeg


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the augmentation; 0 switches one off. The values of each image are drawn up to these."""

    share: float = 0.8  # share of the images that are changed
    exposure: float = 0.5  # brighter or darker by up to this many stops
    white_balance: float = 0.15  # gain of red against blue, as a share
    gamma: float = 0.3  # exponent of the tone curve, as its natural logarithm
    saturation: float = 0.4  # change of the saturation, as a share
    blur: float = 1.0  # standard deviation of the blur, in px of an image 224 px wide
    noise: float = 8.0  # standard deviation of the noise, in intensities of 0 to 255
    jpeg: float = 0.6  # loss of quality; 1 is quality 20

    def __post_init__(self) -> None:
        for each in fields(self):
            value, high = getattr(self, each.name), {'exposure': 4, 'gamma': 2, 'blur': 20, 'noise': 100}
            if not 0 <= value <= high.get(each.name, 1):
                raise ValueError(f'{each.name} must be from 0 to {high.get(each.name, 1)}, got {value}')

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a changed copy of `image` [H, W, 3] uint8 RGB, or now and then the image itself.

        The random numbers drawn do not depend on the image, nor on which strengths are 0.
        """
        is_changed = rng.random() < self.share
        stops, balance, gamma, saturation = rng.uniform(-1, 1, 4) * (
            self.exposure,
            self.white_balance,
            self.gamma,
            self.saturation,
        )
        blur, noise, jpeg = rng.uniform(0, 1, 3) ** 2 * (self.blur, self.noise, self.jpeg)  # most images are good
        noise_seed = int(rng.integers(2**32))
        if not is_changed:
            return image
        image = cv2.LUT(image, _tone_curves(stops, balance, gamma))
        if saturation:
            gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            image = cv2.addWeighted(image, 1 + saturation, gray, -saturation, 0)
        sigma = blur * image.shape[1] / 224
        if sigma > 0.2:
            image = cv2.GaussianBlur(image, (0, 0), sigma)
        if noise:
            grain = np.random.default_rng(noise_seed).standard_normal(image.shape, dtype=np.float32) * np.float32(noise)
            image = np.clip(image + grain + 0.5, 0, 255).astype(np.uint8)
        return compress_jpeg(image, round(95 - 75 * jpeg)) if jpeg else image


def _tone_curves(stops: float, balance: float, gamma: float) -> np.ndarray:
    """Return the table [1, 256, 3] uint8 of exposure, white balance and gamma; highlights are compressed."""
    levels = np.linspace(0, 1, 256)[:, None] * 2.0**stops * (1 + balance * np.array([1, 0, -1]))
    bright = np.maximum(levels - 0.8, 0)
    levels = np.minimum(levels, 0.8) + 0.2 * (1 - np.exp(-bright / 0.2))
    return np.round(255 * levels ** np.exp(gamma)).astype(np.uint8)[None]
