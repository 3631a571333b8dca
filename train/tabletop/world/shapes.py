"""Meshes of the household objects: each function builds one shape at its usual size; lengths are in metres.

Every object stands or lies on z = 0 at the origin; long ones lie along x. `MAIN` parts take the object's colour, the
others a fixed paint.
"""

from dataclasses import dataclass

import numpy as np

from instructsam.train.tabletop.world.meshes import Mesh, box, crumpled, curve, lathe, merge, rotation, tube

MAIN = 'main'


@dataclass(frozen=True)
class Part:
    """A mesh with one paint and one texture.

    Attributes:
        mesh: The geometry.
        paint: `MAIN` or a name in `looks.PAINTS`.
        texture: Family of textures that modulates the paint, see `textures.bank`, or ''.
    """

    mesh: Mesh
    paint: str = MAIN
    texture: str = ''


@dataclass(frozen=True)
class SupportSurface:
    """The surface of a shape on which other objects may rest, centred on the origin; lengths in m.

    It is one of: a disc (`radius`) or rectangle (`half`) at `height`; the inside of a round bowl (`profile`); a vessel
    in which a stick leans, whose bottom is the disc and whose edge is `rim`.

    Attributes:
        relation: Position of an object relative to this one: 'on' or 'in'.
        height: z of the disc or rectangle.
        radius: Radius of the disc.
        half: Half the extent of the rectangle in x and y.
        profile: [N, 2] radius and z of the inside of a bowl, from the rim to the middle.
        rim: Radius and z of the edge of a vessel.
    """

    relation: str
    height: float = 0.0
    radius: float = 0.0
    half: tuple[float, ...] = ()
    profile: tuple[tuple[float, float], ...] = ()
    rim: tuple[float, ...] = ()


@dataclass(frozen=True)
class Shape:
    """The parts of one object and its support surface, if it has one."""

    parts: tuple[Part, ...]
    surface: SupportSurface | None = None


def mug(belly: float = 0.0, height: float = 0.095) -> Shape:
    """Build a mug; `belly` m is how much its side bulges."""
    outer = curve(
        [(0.037, 0.004), (0.040 + belly, height * 0.35), (0.040 + belly * 0.8, height * 0.7), (0.041, height)], 6
    )
    inner = [(r - 0.0035, z) for r, z in outer[::-1]]
    body = lathe([(0, 0), (0.033, 0), *outer, (0.0385, height + 0.001), *inner[:-1], (0.031, 0.009), (0, 0.008)])
    points = [(0.0395, 0.82), (0.058, 0.84), (0.068, 0.55), (0.058, 0.24), (0.039, 0.22)]
    bend = curve([(x + belly * 0.8, 0, z * height) for x, z in points], 12)
    handle = tube(bend, 0.0055, flat=0.7, up=(0, 1, 0))
    return Shape((Part(body), Part(handle)), SupportSurface('in', 0.009, 0.03, rim=(0.037, height)))


def tumbler(top: float = 0.036, bottom: float = 0.028, height: float = 0.115) -> Shape:
    """Build a drinking glass."""
    body = [
        (0, 0),
        (bottom, 0),
        (bottom + 0.002, 0.003),
        (top, height),
        (top - 0.0025, height),
        (bottom - 0.001, 0.01),
        (0, 0.01),
    ]
    return Shape((Part(lathe(body)),), SupportSurface('in', 0.01, bottom - 0.002, rim=(top - 0.003, height)))


def bowl(flare: float = 0.0) -> Shape:
    """Build a round bowl; `flare` m widens its side."""
    outside = curve([(0.036, 0.006), (0.058 + flare, 0.024), (0.072 + flare, 0.05), (0.076, 0.066)], 10)
    inside = curve([(0.073, 0.066), (0.068 + flare, 0.049), (0.054 + flare, 0.025), (0.03, 0.0135), (0, 0.011)], 12)
    body = lathe([(0, 0.003), (0.031, 0.003), (0.033, 0), (0.036, 0), *outside, (0.0745, 0.0675), *inside], 36)
    return Shape((Part(body),), SupportSurface('in', profile=tuple(map(tuple, inside))))


def plate(well: float = 0.078) -> Shape:
    """Build a dinner plate; `well` m is the radius of its flat middle."""
    top = [(0.1185, 0.0225), (well + 0.006, 0.0095), (well, 0.0065), (0, 0.0065)]
    bottom = [(0, 0.001), (0.066, 0.001), (0.068, 0), (0.072, 0), (well + 0.008, 0.004), (0.12, 0.02), (0.1205, 0.0222)]
    return Shape((Part(lathe(bottom + top, 44)),), SupportSurface('on', 0.0065, well - 0.002))


def bottle_round(shoulder: float = 0.14, neck: float = 0.013, height: float = 0.235) -> Shape:
    """Build a bottle with a cap and a label."""
    side = [(0.031, 0), (0.0345, 0.004), (0.0345, shoulder)]
    slope = curve(
        [(0.0345, shoulder), (0.028, shoulder + 0.022), (neck + 0.002, shoulder + 0.048), (neck, height - 0.025)], 10
    )
    body = lathe([(0, 0), *side, *slope[1:], (neck, height - 0.018), (0, height - 0.018)])
    cap = lathe([(neck, height - 0.024), (neck + 0.002, height - 0.023), (neck + 0.002, height), (0, height)], 24)
    label = lathe([(0.0346, 0.04), (0.0351, 0.041), (0.0351, shoulder - 0.022), (0.0346, shoulder - 0.021)])
    return Shape((Part(body), Part(cap, 'cap'), Part(label, 'label', 'print')))


def bottle_pump() -> Shape:
    """Build a bottle with a pump dispenser."""
    body = lathe([(0, 0), (0.03, 0), (0.034, 0.005), (0.034, 0.125), (0.03, 0.137), (0.014, 0.142), (0, 0.142)])
    neck = lathe([(0.014, 0.142), (0.014, 0.156), (0.005, 0.158), (0.005, 0.182), (0, 0.182)], 20)
    nozzle = tube([(-0.012, 0, 0.186), (0.015, 0, 0.186), (0.042, 0, 0.181)], 0.007, flat=0.8)
    return Shape((Part(body, texture='print'), Part(neck, 'cap'), Part(nozzle, 'cap')))


def can(radius: float = 0.033, height: float = 0.118) -> Shape:
    """Build a drink can with a pull tab."""
    side = lathe([(radius, 0.007), (radius, height - 0.009)])
    base = lathe([(0, 0.003), (radius - 0.006, 0.003), (radius - 0.004, 0), (radius, 0.007)])
    shoulder = [
        (radius, height - 0.009),
        (radius - 0.005, height),
        (radius - 0.007, height),
        (radius - 0.008, height - 0.004),
    ]
    lid = lathe([*shoulder, (0, height - 0.004)])
    tab = tube([(-0.004, 0, height - 0.003), (0.009, 0, height - 0.002)], 0.007, flat=0.2)
    return Shape((Part(side, texture='print'), Part(base, 'steel'), Part(lid, 'steel'), Part(tab, 'steel')))


def carton(size: tuple[float, float, float] = (0.115, 0.07, 0.16), *, tape: bool = False) -> Shape:
    """Build a box; `tape` makes it a sealed parcel."""
    x, y, z = size
    parts = [Part(box(size, 0.0025), texture='card' if tape else 'print')]
    if tape:
        parts.append(Part(box((x + 0.0006, 0.028, 0.001), 0.0004).moved((0, 0, z - 0.0004)), 'tape'))
        parts.append(Part(box((0.001, 0.028, z * 0.3), 0.0004).moved((x / 2, 0, z * 0.7)), 'tape'))
    return Shape(tuple(parts), SupportSurface('on', z, half=(x / 2, y / 2)))


def book(size: tuple[float, float, float] = (0.20, 0.14, 0.026)) -> Shape:
    """Build a closed book that lies flat."""
    x, y, z = size
    covers = merge(
        box((x, y, 0.003), 0.0012),
        box((x, y, 0.003), 0.0012).moved((0, 0, z - 0.003)),
        box((x, 0.003, z), 0.0012).moved((0, 0.0015 - y / 2, 0)),
    )
    pages = box((x - 0.01, y - 0.007, z - 0.005), 0.001).moved((0, 0.001, 0.0025))
    return Shape(
        (Part(covers, texture='cover'), Part(pages, 'pages', 'pages')), SupportSurface('on', z, half=(x / 2, y / 2))
    )


def spoon(width: float = 0.019, length: float = 0.17) -> Shape:
    """Build a spoon."""
    at = length / 2
    spine = curve([(-at, 0, 0.007), (-at * 0.3, 0, 0.0075), (at * 0.38, 0, 0.0045), (at * 0.55, 0, 0.004)], 12)
    handle = tube(spine, np.interp(spine[:, 0], [-at, -at * 0.2, at * 0.5], [0.0075, 0.0035, 0.004]), flat=0.36)
    profile = curve([(0, 0), (0.55, 0.08), (0.9, 0.3), (1, 0.44)], 6)
    hollow = [(0.95, 0.46), *[(r * 0.93, z * 0.9 + 0.06) for r, z in profile[::-1][1:]]]
    leaf = lathe([*profile, *hollow], 28).moved((at * 0.72, 0, 0), scale=(width * 1.5, width, 0.022))
    return Shape((Part(merge(handle, leaf)),))


def fork(length: float = 0.185) -> Shape:
    """Build a fork with four tines."""
    at = length / 2
    spine = curve([(-at, 0, 0.006), (-at * 0.2, 0, 0.007), (at * 0.38, 0, 0.005), (at * 0.55, 0, 0.004)], 12)
    handle = tube(spine, np.interp(spine[:, 0], [-at, 0, at * 0.4], [0.0075, 0.0035, 0.004]), flat=0.36)
    palm = tube(
        curve([(at * 0.42, 0, 0.0045), (at * 0.55, 0, 0.0035), (at * 0.66, 0, 0.0035)], 6),
        [0.004, 0.006, 0.009, 0.0115, 0.0125, 0.0125, 0.012],
        flat=0.2,
    )
    tines = [
        tube(curve([(at * 0.64, y, 0.004), (at * 0.82, y, 0.0045), (at, y * 0.95, 0.009)], 8), 0.0018, segments=6)
        for y in (-0.0102, -0.0034, 0.0034, 0.0102)
    ]
    return Shape((Part(merge(handle, palm, *tines)),))


def _blade(start: float, end: float, wide: float, bow: float = 0.0) -> Mesh:
    """Build a flat blade in the x-y plane from x = `start` to its tip at x = `end` m.

    Its half width is `wide` m and decreases towards the tip; its middle line bends along y by `bow` times the decrease,
    so that a blade with bow 1 has a straight back and a curved edge.
    """
    at = np.linspace(start, end, 14)
    width = wide * np.clip(1.04 - ((at - start) / (end - start)) ** 4, 0.05, 1)
    path = np.stack([at, bow * (wide - width), np.full_like(at, 0.0022)], axis=1)
    return tube(path, width, flat=0.0022 / np.maximum(width, 0.004))


def table_knife(length: float = 0.215) -> Shape:
    """Build a table knife in one piece."""
    at = length / 2
    handle = tube([(-at, 0, 0.005), (-at * 0.5, 0, 0.0055), (0, 0, 0.004)], [0.009, 0.0085, 0.0065], flat=0.55)
    return Shape((Part(merge(handle, _blade(-0.002, at, 0.0095, 1))),))


def kitchen_knife(length: float = 0.25) -> Shape:
    """Build a kitchen knife with a steel blade."""
    at = length / 2
    grip = [(-at, 0, 0.009), (-at * 0.75, 0, 0.009), (-at * 0.4, 0, 0.009), (-at * 0.14, 0, 0.009)]
    handle = tube(curve(grip, 8), [0.012, 0.0125, 0.012, 0.0115, 0.011, 0.011, 0.0115, 0.012, 0.0125], flat=0.7)
    blade = _blade(-at * 0.15, at, 0.017, 1).moved((0, 0, 0.006))
    return Shape((Part(handle), Part(blade, 'steel', 'steel')))


def ball(*, seam: bool = False) -> Shape:
    """Build a ball; `seam` makes it a beach ball with panels."""
    globe = lathe([(0.036 * np.sin(a), 0.036 - 0.036 * np.cos(a)) for a in np.linspace(0, np.pi, 17)])
    return Shape((Part(globe, texture='panels' if seam else 'speckle'),))


def banana() -> Shape:
    """Build a banana."""
    bend = curve(
        [
            (-0.078, 0.028, 0.017),
            (-0.045, -0.002, 0.018),
            (0, -0.013, 0.018),
            (0.045, -0.002, 0.018),
            (0.08, 0.03, 0.017),
        ],
        24,
    )
    radius = 0.0185 * np.interp(np.linspace(0, 1, 25), [0, 0.07, 0.3, 0.7, 0.92, 1], [0.4, 0.72, 1, 1, 0.66, 0.3])
    stem = tube(
        bend[-1] + np.array([(0, 0, 0), (0.007, 0.008, 0.001), (0.012, 0.018, 0.002)]), [0.0055, 0.0048, 0.0055]
    )
    tip = tube(bend[0] + np.array([(0.002, -0.001, 0), (-0.006, 0.006, 0)]), [0.0065, 0.004])
    body = tube(bend, radius, segments=10)
    return Shape((Part(body, texture='peel'), Part(stem, 'stalk'), Part(tip, 'stalk')))


def _stalk(z: float, height: float = 0.016) -> Part:
    """Build the stalk of a fruit, from `z` m upwards."""
    return Part(tube([(0, 0, z), (0.001, 0, z + height * 0.6), (0.004, 0, z + height)], 0.0016, segments=6), 'stalk')


def apple() -> Shape:
    """Build an apple with a stalk."""
    skin = curve(
        [
            (0, 0.006),
            (0.012, 0.001),
            (0.027, 0.013),
            (0.0375, 0.039),
            (0.032, 0.06),
            (0.016, 0.0695),
            (0.004, 0.064),
            (0, 0.06),
        ],
        18,
    )
    return Shape((Part(lathe(skin), texture='speckle'), _stalk(0.06)))


def lemon() -> Shape:
    """Build a lemon that lies on its side."""
    skin = curve(
        [
            (0, -0.045),
            (0.006, -0.042),
            (0.011, -0.035),
            (0.025, -0.019),
            (0.0285, 0),
            (0.025, 0.019),
            (0.011, 0.035),
            (0.0055, 0.042),
            (0, 0.045),
        ],
        18,
    )
    return Shape((Part(lathe(skin).moved((0, 0, 0.0285), rotation('y', 90)), texture='speckle'),))


def tray(size: tuple[float, float] = (0.34, 0.24), wall: float = 0.024, *, grips: bool = False) -> Shape:
    """Build a rectangular tray; `grips` adds arched handles."""
    x, y = size
    t = 0.006
    floor = box((x - t, y - t, 0.006), 0.001)
    long, short = box((x, t, wall), 0.0024), box((t, y - 2 * t, wall), 0.0024)
    sides = [long.moved((0, s * (y - t) / 2, 0)) for s in (-1, 1)] + [
        short.moved((s * (x - t) / 2, 0, 0)) for s in (-1, 1)
    ]
    if grips:
        arch = np.array(
            [(0, -0.05, wall - 0.004), (0, -0.042, wall + 0.014), (0, 0.042, wall + 0.014), (0, 0.05, wall - 0.004)]
        )
        sides += [tube(curve(arch + np.array((s * (x - t) / 2, 0, 0)), 12), 0.004, up=(1, 0, 0)) for s in (-1, 1)]
    return Shape(
        (Part(merge(floor, *sides)),), SupportSurface('on', 0.006, half=(x / 2 - t - 0.002, y / 2 - t - 0.002))
    )


def pan() -> Shape:
    """Build a frying pan."""
    inside = [(0.108, 0.043), (0.098, 0.008), (0.092, 0.0045), (0, 0.0045)]
    body = lathe([(0, 0), (0.09, 0), (0.1, 0.006), (0.111, 0.043), (0.1095, 0.044), *inside], 40)
    spine = curve([(0.105, 0, 0.036), (0.15, 0, 0.048), (0.21, 0, 0.057), (0.27, 0, 0.058)], 14)
    handle = tube(spine, np.interp(spine[:, 0], [0.105, 0.15, 0.27], [0.009, 0.010, 0.0135]), flat=0.6)
    return Shape((Part(body), Part(handle, 'grip')), SupportSurface('in', 0.0045, 0.088))


def teapot() -> Shape:
    """Build a teapot."""
    side = curve([(0.045, 0.002), (0.066, 0.03), (0.070, 0.06), (0.058, 0.092), (0.035, 0.104)], 12)
    body = lathe([(0, 0), (0.042, 0), *side, (0, 0.105)])
    lid = lathe([(0.036, 0.1035), *curve([(0.036, 0.105), (0.026, 0.114), (0.008, 0.118)], 6), (0.006, 0.121)], 30)
    knob = lathe([(0.009 * np.sin(a), 0.127 - 0.009 * np.cos(a)) for a in np.linspace(0.25, np.pi, 9)], 20)
    path = curve([(0.055, 0, 0.038), (0.085, 0, 0.05), (0.098, 0, 0.083), (0.117, 0, 0.1)], 10)
    spout = tube(path, np.linspace(0.017, 0.0085, 11), up=(0, 1, 0))
    grip = curve(
        [(-0.055, 0, 0.086), (-0.09, 0, 0.095), (-0.112, 0, 0.066), (-0.094, 0, 0.032), (-0.063, 0, 0.027)], 20
    )
    return Shape((Part(merge(body, lid, spout)), Part(tube(grip, 0.0068, up=(0, 1, 0))), Part(knob)))


def sponge(size: tuple[float, float, float] = (0.105, 0.07, 0.024)) -> Shape:
    """Build a sponge with a scouring layer at the bottom."""
    x, y, _ = size
    scour = box((x, y, 0.008), 0.002)
    return Shape((Part(box(size, 0.004).moved((0, 0, 0.007)), texture='foam'), Part(scour, 'scour', 'foam')))


def vase(waist: float = 0.018, belly: float = 0.05, height: float = 0.2) -> Shape:
    """Build a vase with a narrow neck."""
    side = curve(
        [
            (0.03, 0.002),
            (belly, height * 0.32),
            (belly * 0.85, height * 0.55),
            (waist, height * 0.83),
            (waist + 0.012, height),
        ],
        14,
    )
    hollow = curve([(waist + 0.009, height + 0.0005), (waist - 0.004, height * 0.83), (belly * 0.6, height * 0.5)], 6)
    return Shape((Part(lathe([(0, 0), (0.027, 0), *side, *hollow, (0, height * 0.3)]), texture='speckle'),))


def scissors() -> Shape:
    """Build a pair of slightly opened scissors."""
    parts = []
    for side, z in ((1, 0.0), (-1, 0.0026)):
        opening = rotation('z', side * 11)
        blade = _blade(-0.01, 0.088, 0.0085).moved((0, 0, z), opening)
        shank = tube([(-0.002, 0, 0.0045), (-0.035, side * 0.002, 0.006)], [0.0065, 0.006], flat=0.6)
        angle = np.linspace(0, 2 * np.pi, 25)[:-1]
        loop = np.stack(
            [0.024 * np.cos(angle) - 0.056, 0.0155 * np.sin(angle) + side * 0.006, 0 * angle + 0.006], axis=1
        )
        parts += [
            Part(blade, 'steel', 'steel'),
            Part(merge(shank, tube(loop, 0.0045, closed=True)).moved((0, 0, 0), opening)),
        ]
    return Shape(tuple(parts))


def napkin() -> Shape:
    """Build a crumpled paper napkin."""
    return Shape((Part(crumpled(0.036, np.random.default_rng(3))),))
