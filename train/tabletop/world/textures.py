"""Procedural textures: a fixed bank that modulates objects' colours, and the tables, floors and walls of each scene."""

import cv2
import numpy as np

RGB = tuple[float, float, float]
BANK_PX = 128  # side of the textures of objects
SURFACE_PX = 256  # side of the textures of tables, floors and walls

WOODS: tuple[RGB, ...] = (
    (0.80, 0.62, 0.42),
    (0.66, 0.46, 0.28),
    (0.45, 0.29, 0.18),
    (0.88, 0.76, 0.58),
    (0.58, 0.42, 0.30),
    (0.32, 0.22, 0.16),
)
NEUTRALS: tuple[RGB, ...] = (
    (0.93, 0.93, 0.91),
    (0.80, 0.80, 0.79),
    (0.62, 0.63, 0.64),
    (0.40, 0.41, 0.43),
    (0.22, 0.22, 0.23),
    (0.85, 0.80, 0.72),
)
TINTS: tuple[RGB, ...] = (
    (0.55, 0.70, 0.62), (0.62, 0.72, 0.82), (0.86, 0.72, 0.66), (0.80, 0.80, 0.60), (0.36, 0.45, 0.55),
    (0.72, 0.40, 0.38), (0.35, 0.48, 0.38), (0.70, 0.62, 0.76),
)  # fmt: skip


def noise(rng: np.random.Generator, cells: int, px: int, octaves: int = 4, stretch: float = 1) -> np.ndarray:
    """Return smooth value noise [px, px] from 0 to 1.

    Args:
        rng: Random numbers.
        cells: Features across the image in the lowest octave.
        px: Side of the image.
        octaves: Number of octaves, each with twice the frequency and half the weight.
        stretch: Factor by which the features are elongated along x.
    """
    total, weight = np.zeros((px, px), np.float32), 1.0
    for octave in range(octaves):
        n = cells * 2**octave
        grid = rng.random((max(2, n), max(2, round(n / stretch))), dtype=np.float32)
        total += weight * cv2.resize(grid, (px, px), interpolation=cv2.INTER_CUBIC)
        weight /= 2
    low, high = total.min(), total.max()
    return (total - low) / (high - low + 1e-6)


def _gray(values: np.ndarray) -> np.ndarray:
    """Convert [N, N] from 0 to 1 to a texture [N, N, 3] uint8."""
    return np.repeat((np.clip(values, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


def _blend(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Interpolate between two RGB colours by `weight` [N, N]: a texture [N, N, 3] uint8."""
    mix = np.asarray(first) + (np.asarray(second) - first) * np.clip(weight, 0, 1)[..., None]
    return (np.clip(mix, 0, 1) * 255).astype(np.uint8)


def _print(rng: np.random.Generator) -> np.ndarray:
    """Draw a printed label: lines of small dark blocks, sometimes a band, and badges."""
    page = np.full((BANK_PX, BANK_PX), 1.0, np.float32)
    if rng.random() < 0.7:
        top = rng.integers(8, 90)
        page[top : top + rng.integers(8, 26)] = rng.uniform(0.55, 0.8)
    for _ in range(rng.integers(2, 4)):
        cx, cy, r = rng.integers(0, BANK_PX), rng.integers(25, 105), int(rng.integers(9, 20))
        tone, flat = rng.uniform(0.5, 0.8), int(r * rng.uniform(0.4, 0.9))
        if rng.random() < 0.5:
            cv2.ellipse(page, (int(cx), int(cy)), (r, flat), 0, 0, 360, tone, -1)
        else:
            cv2.rectangle(page, (int(cx) - r, int(cy) - flat), (int(cx) + r, int(cy) + flat), tone, -1)
    for y in range(int(rng.integers(6, 14)), BANK_PX - 8, int(rng.integers(8, 16))):
        x = int(rng.integers(4, 30))
        while x < BANK_PX - 8 and rng.random() < 0.85:
            w = int(rng.integers(3, 14))
            page[y : y + 2, x : x + w] = rng.uniform(0.3, 0.6)
            x += w + int(rng.integers(2, 6))
    return _gray(cv2.GaussianBlur(page, (0, 0), 0.6))


def _cover(rng: np.random.Generator) -> np.ndarray:
    """Draw the cover of a book: a title in blocks, sometimes a frame and a disc."""
    page = np.full((BANK_PX, BANK_PX), 1.0, np.float32)
    if rng.random() < 0.6:
        cv2.rectangle(page, (10, 10), (BANK_PX - 11, BANK_PX - 11), rng.uniform(0.5, 0.75), int(rng.integers(1, 4)))
    top = int(rng.integers(20, 40))
    for row in range(int(rng.integers(1, 3))):
        left = int(rng.integers(20, 36))
        page[top + 16 * row : top + 16 * row + 9, left : BANK_PX - left] = rng.uniform(0.35, 0.65)
    if rng.random() < 0.5:
        cv2.circle(page, (64, int(rng.integers(78, 100))), int(rng.integers(8, 18)), rng.uniform(0.45, 0.7), -1)
    return _gray(page * (0.92 + 0.08 * noise(rng, 20, BANK_PX)))


def bank() -> dict[str, np.ndarray]:
    """Return the textures of objects by name, [128, 128, 3] uint8, always the same.

    The families 'print' and 'cover' have several members: 'print0' to 'print5' and 'cover0' to 'cover3'.
    """
    rng = np.random.default_rng(20240611)
    u = np.linspace(0, 2 * np.pi, BANK_PX, endpoint=False, dtype=np.float32)
    steel = 0.78 + 0.16 * np.sin(2 * u + 0.6) + 0.12 * np.sin(5 * u + 2)
    seams = np.minimum(np.abs(np.sin(3 * u))[None] * 6, 1) * np.ones((BANK_PX, 1), np.float32)
    pores = noise(rng, 40, BANK_PX, 2)
    textures = {
        'steel': _gray(np.tile(steel, (BANK_PX, 1))),
        'grain': _gray(0.72 + 0.28 * noise(rng, 24, BANK_PX, 3, stretch=0.08)),
        'card': _gray(0.90 + 0.1 * noise(rng, 30, BANK_PX)),
        'pages': _gray(0.85 + 0.15 * np.sin(28 * u)[:, None] * np.ones(BANK_PX)),
        'peel': _gray(1 - 0.28 * (noise(rng, 5, BANK_PX, 4) > 0.74) - 0.1 * noise(rng, 3, BANK_PX)),
        'speckle': _gray(1 - 0.16 * noise(rng, 8, BANK_PX, 5)),
        'foam': _gray(1 - 0.3 * (pores > 0.66) - 0.08 * pores),
        'panels': _gray(0.25 + 0.75 * seams),
    }
    textures.update({f'print{i}': _print(rng) for i in range(6)})
    textures.update({f'cover{i}': _cover(rng) for i in range(4)})
    return textures


def _wood(rng: np.random.Generator, tone: np.ndarray, planks: int) -> np.ndarray:
    grain = noise(rng, 3, SURFACE_PX, 3, stretch=6)
    rings = 0.5 + 0.5 * np.sin(grain * rng.uniform(12, 40) + 2 * noise(rng, 6, SURFACE_PX, 2))
    fibre = noise(rng, 60, SURFACE_PX, 2, stretch=14)
    weight = 0.55 * rings + 0.45 * fibre
    if planks:
        row = np.arange(SURFACE_PX) * planks // SURFACE_PX
        weight = weight * 0.7 + rng.random(planks)[row][:, None] * 0.3
        weight[np.flatnonzero(np.diff(row))] = -0.6
    return _blend(tone * rng.uniform(0.6, 0.8), tone, weight)


def _stone(rng: np.random.Generator, tone: np.ndarray) -> np.ndarray:
    veins = 1 - np.abs(noise(rng, 3, SURFACE_PX, 5) - 0.5) * rng.uniform(6, 14)
    weight = 0.25 * noise(rng, 40, SURFACE_PX, 3) + 0.75 * np.clip(veins, 0, 1) * rng.uniform(0.3, 1)
    return _blend(tone, tone * rng.uniform(0.55, 0.85), weight)


def _speckled(rng: np.random.Generator, tone: np.ndarray) -> np.ndarray:
    fleck = noise(rng, 90, SURFACE_PX, 2)
    return _blend(tone, tone * rng.uniform(0.72, 0.97), 0.6 * fleck + 0.4 * noise(rng, 3, SURFACE_PX))


def _cloth(rng: np.random.Generator, tone: np.ndarray, other: np.ndarray) -> np.ndarray:
    at = np.arange(SURFACE_PX, dtype=np.float32) / SURFACE_PX
    x, y = np.meshgrid(at, at)
    period = rng.integers(6, 22)
    pattern = rng.integers(4)
    if pattern == 0:  # gingham
        weight = 0.5 * ((x * period) % 1 < 0.5) + 0.5 * ((y * period) % 1 < 0.5)
    elif pattern == 1:  # stripes
        weight = ((x * period) % 1 < rng.uniform(0.15, 0.5)) * 1.0
    elif pattern == 2:  # dots
        row = np.floor(y * period)
        weight = np.hypot((x * period + row / 2) % 1 - 0.5, (y * period) % 1 - 0.5) < rng.uniform(0.12, 0.3)
    else:  # large patches, like printed flowers
        weight = noise(rng, 4, SURFACE_PX, 2) > 0.62
    threads = 1 - 0.08 * noise(rng, 120, SURFACE_PX, 1)
    return (_blend(tone, other, weight * rng.uniform(0.4, 1)) * threads[..., None]).astype(np.uint8)


def _tiles(rng: np.random.Generator, tone: np.ndarray, count: int) -> np.ndarray:
    at = (np.arange(SURFACE_PX) * count / SURFACE_PX) % 1
    joint = (at < 0.04)[:, None] | (at < 0.04)[None]
    cell = np.arange(SURFACE_PX) * count // SURFACE_PX
    shade = rng.random((count, count))[cell][:, cell] * 0.6 + 0.3 * noise(rng, 20, SURFACE_PX, 2)
    image = _blend(tone, tone * 0.85, shade)
    image[joint] = (tone * rng.uniform(0.5, 0.8) * 255).astype(np.uint8)
    return image


def _tone(rng: np.random.Generator, tones: tuple[RGB, ...]) -> np.ndarray:
    """Draw a variation [3] of one of `tones`."""
    return np.clip(
        np.array(tones[rng.integers(len(tones))]) * rng.uniform(0.88, 1.08, 3) * rng.uniform(0.9, 1.05), 0, 1
    )


def table(rng: np.random.Generator) -> np.ndarray:
    """Draw a table top of wood, laminate, stone, tiles or covered by a cloth: [256, 256, 3] uint8."""
    kind = rng.choice(5, p=(0.36, 0.22, 0.12, 0.24, 0.06))
    if kind == 0:
        return _wood(rng, _tone(rng, WOODS), int(rng.choice((0, 0, 4, 6, 8))))
    if kind == 1:
        return _speckled(rng, _tone(rng, NEUTRALS + TINTS if rng.random() < 0.6 else NEUTRALS))
    if kind == 2:
        return _stone(rng, _tone(rng, NEUTRALS))
    if kind == 3:
        return _cloth(rng, _tone(rng, NEUTRALS[:2] + TINTS), _tone(rng, TINTS + NEUTRALS))
    return _tiles(rng, _tone(rng, NEUTRALS), int(rng.integers(5, 12)))


def floor(rng: np.random.Generator) -> np.ndarray:
    """Draw a floor of boards, carpet or tiles: [256, 256, 3] uint8."""
    kind = rng.integers(3)
    if kind == 0:
        return _wood(rng, _tone(rng, WOODS), int(rng.integers(10, 24)))
    if kind == 1:
        return _speckled(rng, _tone(rng, NEUTRALS + TINTS))
    return _tiles(rng, _tone(rng, NEUTRALS), int(rng.integers(6, 14)))


def wall(rng: np.random.Generator) -> np.ndarray:
    """Draw a wall: usually painted, sometimes papered or tiled. [256, 256, 3] uint8."""
    kind = rng.choice(3, p=(0.7, 0.15, 0.15))
    if kind == 0:
        return _speckled(rng, _tone(rng, NEUTRALS[:3] + NEUTRALS[5:] + TINTS))
    if kind == 1:
        return _cloth(rng, _tone(rng, NEUTRALS[:2] + TINTS), _tone(rng, NEUTRALS[:3] + TINTS))
    return _tiles(rng, _tone(rng, NEUTRALS[:3]), int(rng.integers(10, 20)))
