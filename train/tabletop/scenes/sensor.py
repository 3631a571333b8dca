"""Camera model: ambient occlusion, uneven light, exposure, blur, noise and JPEG compression."""

import cv2
import numpy as np

from instructsam.core.display.jpeg import encode_jpeg

KNEE = 185.0  # intensity above which highlights are compressed instead of clipped


def ambient_occlusion(rgb: np.ndarray, depth: np.ndarray, focal_px: float, strength: float) -> np.ndarray:
    """Darken creases and the contact edges of objects, from depth alone (screen-space ambient occlusion).

    A pixel is occluded if it is farther away than the mean of two neighbours on opposite sides, which never holds on a
    plane. Neighbours that are much nearer belong to other surfaces and are ignored.

    Args:
        rgb: [H, W, 3] uint8.
        depth: [H, W] float32 m.
        focal_px: Focal length.
        strength: Share of the light that a fully occluded pixel loses.

    Returns:
        [H, W, 3] float32, 0 to 255.
    """
    shade = np.zeros_like(depth)
    scale = focal_px / float(np.median(depth))
    for radius_m, weight in ((0.008, 0.45), (0.02, 0.35), (0.045, 0.25)):
        radius = max(radius_m * scale, 1.0)
        reach = int(np.ceil(radius))
        around = cv2.copyMakeBorder(depth, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
        for angle in np.arange(4) * np.pi / 4 + radius_m * 40:
            dx, dy = round(radius * np.cos(angle)), round(radius * np.sin(angle))
            hollow = np.zeros_like(depth)
            for sign in (1, -1):
                nearer = depth - _shifted(around, reach, sign * dx, sign * dy, depth.shape)
                hollow += np.where(nearer < 2.5 * radius_m, nearer, 0.0)
            shade += (weight / 4) * np.clip(hollow / radius_m - 0.08, 0, 1)
    shade = cv2.GaussianBlur(shade, (0, 0), 0.8 * focal_px / 224)
    return rgb * (1 - strength * np.minimum(shade * 1.6, 1))[..., None].astype(np.float32)


def _shifted(padded: np.ndarray, padding: int, dx: int, dy: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the window of `shape` of an image padded by `padding` px, shifted by (dx, dy) px."""
    return padded[padding + dy : padding + dy + shape[0], padding + dx : padding + dx + shape[1]]


def expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply uneven light, vignetting, exposure, white balance, contrast and saturation: [H, W, 3] float32, 0 to 255."""
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    slope = rng.normal(0, 0.10, 2).astype(np.float32)  # float64 would make all later steps float64, and slower
    field = 1 + slope[0] * x + slope[1] * y - np.float32(rng.uniform(0, 0.16)) * (x**2 + y**2)
    gains = rng.uniform(0.95, 1.05, 3) * rng.uniform(1.05, 1.38)
    image = image * field[..., None] * gains.astype(np.float32)
    bright = np.maximum(image - KNEE, 0)
    image = np.minimum(image, KNEE) + (255 - KNEE) * (1 - np.exp(-bright / (255 - KNEE)))
    gamma = rng.uniform(0.72, 1.02)
    image = 255 * (np.clip(image, 0, 255) / 255) ** np.float32(gamma)
    gray = image.mean(axis=2, keepdims=True)
    image = gray + (image - gray) * np.float32(rng.uniform(0.82, 1.12))
    return image + np.float32(rng.uniform(0, 10)) * (1 - image / 255)


def blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply defocus and sometimes motion blur; both grow with the size of the image."""
    scale = image.shape[1] / 224
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.25, 0.75) * scale**0.5)
    if rng.random() < 0.12:
        length, angle = rng.uniform(1.5, 3.5) * scale, rng.uniform(0, np.pi)
        size = int(length) | 1
        kernel = np.zeros((size, size), np.float32)
        tip = (size // 2) * np.array([np.cos(angle), np.sin(angle)])
        center = np.array([size // 2] * 2)
        cv2.line(
            kernel,
            tuple(np.round(center - tip).astype(int).tolist()),
            tuple(np.round(center + tip).astype(int).tolist()),
            1.0,
        )
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    return image


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add shot and read noise, partly correlated as after demosaicing: [H, W, 3] uint8."""
    read, shot = rng.uniform(0.4, 2.2), rng.uniform(0.0, 0.12)
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    grain = 0.6 * grain + 0.8 * cv2.blur(grain, (2, 2))
    sigma = np.sqrt(read**2 + shot * np.clip(image, 0, 255)).astype(np.float32)
    return np.clip(image + grain * sigma + 0.5, 0, 255).astype(np.uint8)


def photograph(rgb: np.ndarray, depth: np.ndarray, focal_px: float, rng: np.random.Generator) -> bytes:
    """Convert a rendered image to a JPEG file as the driver of a robot's camera would provide it.

    Args:
        rgb: [H, W, 3] uint8.
        depth: [H, W] float32 m.
        focal_px: Focal length.
        rng: Random numbers.
    """
    image = ambient_occlusion(rgb, depth, focal_px, rng.uniform(0.4, 0.7))
    image = noise(blur(expose(image, rng), rng), rng)
    quality = int(rng.integers(62, 96))
    return encode_jpeg(image, quality)
