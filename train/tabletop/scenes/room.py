"""The surroundings of the objects: table, floor, walls, furniture, lights, and the pose of the camera.

World frame: the origin is the middle of the table top, z is up; the robot's camera looks roughly along +y.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from instructsam.train.tabletop.scenes.render import Camera, Geom, Light
from instructsam.train.tabletop.world import textures
from instructsam.train.tabletop.world.meshes import Mesh, box, lathe, rotation, sheet

TABLE_TOP_M = 0.03  # thickness of the table top
SHADOWS = 5  # number of lights that cast shadows; more of them make softer shadows and take longer


def _with_planar_uv(mesh: Mesh) -> Mesh:
    """Return the mesh with its texture projected from above."""
    return replace(mesh, uv=mesh.vertices[:, :2] + 0.5)


MESHES = {
    'sheet': sheet(1),
    'block': box((1, 1, 1), 0.012),
    'disc': _with_planar_uv(lathe([(0, 0), (0.49, 0), (0.5, 0.1), (0.5, 0.9), (0.49, 1), (0, 1)], 64)),
}
SURFACES = {'table': textures.table, 'floor': textures.floor, 'wall': textures.wall}


@dataclass(frozen=True)
class Table:
    """A table top whose surface is at z = 0.

    Attributes:
        size: Extent in x and y before the rotation, m.
        is_round: Elliptic instead of rectangular.
        yaw: Rotation about z, degrees.
    """

    size: tuple[float, float]
    is_round: bool
    yaw: float

    def contains(self, polygon: np.ndarray) -> bool:
        """Return whether `polygon` [N, 2] m lies on the table, at least 1 cm from its edge."""
        relative = polygon @ rotation('z', self.yaw)[:2, :2] / (np.array(self.size) / 2 - 0.01)
        if self.is_round:
            return bool((np.linalg.norm(relative, axis=1) < 1).all())
        return bool((np.abs(relative) < 1).all())


@dataclass(frozen=True, eq=False)
class Room:
    """A table in its surroundings.

    Attributes:
        table: The table.
        geoms: The table, floor, walls and furniture.
        lights: The lights.
        textures: Images of the surfaces by the names in `SURFACES`, [N, N, 3] uint8.
    """

    table: Table
    geoms: list[Geom]
    lights: list[Light]
    textures: dict[str, np.ndarray]


def sample_camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    """Draw the view of a robot: 35 to 70 degrees down, 0.55 to 1.2 m away, with a little roll."""
    pitch, azimuth, roll = np.radians([rng.uniform(35, 70), rng.normal(0, 22), rng.normal(0, 1.5)])
    fov = np.radians(rng.uniform(44, 62))
    # The distance decreases with the field of view, so that a mug always covers a few percent of the image's width.
    distance = np.clip(rng.uniform(0.27, 0.46) / np.tan(fov / 2), 0.55, 1.2)
    forward = np.array([np.sin(azimuth) * np.cos(pitch), np.cos(azimuth) * np.cos(pitch), -np.sin(pitch)])
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    target = np.array([*rng.normal(0, 0.06, 2), rng.uniform(0, 0.06)])
    rotated = np.stack(
        [right * np.cos(roll) + down * np.sin(roll), down * np.cos(roll) - right * np.sin(roll), forward], axis=1
    )
    return Camera(width, height, width / 2 / np.tan(fov / 2), target - forward * distance, rotated)


def sample_room(rng: np.random.Generator) -> Room:
    """Draw a table in a room with lights."""
    table = Table((rng.uniform(0.75, 1.7), rng.uniform(0.6, 1.0)), bool(rng.random() < 0.2), rng.normal(0, 10))
    if table.is_round:
        diameter = rng.uniform(0.8, 1.3)
        table = replace(table, size=(diameter, diameter))
    floor_z = -rng.uniform(0.68, 0.8)
    images = {name: draw(rng) for name, draw in SURFACES.items()}
    geoms = [*_table_geoms(rng, table, floor_z), *_room_geoms(rng, table, floor_z)]
    return Room(table, geoms, _lights(rng), images)


def _block(
    center: ArrayLike, size: ArrayLike, color: ArrayLike, texture: str = '', mesh: str = 'block', yaw: float = 0.0
) -> Geom:
    """Return a block of `size` [3] whose bottom is centred at `center` [3]."""
    rgba = (*np.asarray(color), 1.0)
    return Geom(mesh, np.asarray(center, float), rotation('z', yaw) @ np.diag(np.asarray(size)), rgba, texture)


def _table_geoms(rng: np.random.Generator, table: Table, floor_z: float) -> list[Geom]:
    """Return the top and the legs; a round table stands on one column."""
    specular = rng.uniform(0, 0.12)
    matrix = rotation('z', table.yaw) @ np.diag([*table.size, TABLE_TOP_M])
    top = Geom(
        'disc' if table.is_round else 'block',
        np.array([0, 0, -TABLE_TOP_M]),
        matrix,
        (1, 1, 1, 1),
        'table',
        specular=specular,
        shininess=0.4,
        casts_shadow=True,
    )
    color = np.array(textures.WOODS[rng.integers(len(textures.WOODS))]) * rng.uniform(0.4, 1)
    height = -floor_z - TABLE_TOP_M
    if table.is_round:
        return [top, _block((0, 0, floor_z), (0.1, 0.1, height), color, mesh='disc')]
    corners = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * (np.array(table.size) / 2 - 0.06)
    corners = corners @ rotation('z', table.yaw)[:2, :2].T
    return [top, *(_block((*corner, floor_z), (0.05, 0.05, height), color, yaw=table.yaw) for corner in corners)]


def _room_geoms(rng: np.random.Generator, table: Table, floor_z: float) -> list[Geom]:
    """Return the floor, three walls, a skirting board, and some large furniture against the back wall."""
    reach = np.hypot(*table.size) / 2  # radius of the table
    left, right, back = (reach + rng.uniform(low, high) for low, high in ((0.2, 1.8), (0.2, 1.8), (0.05, 1.7)))
    front, high = 3.0, 2.6
    wide, deep = left + right, front + back
    middle = np.array([(right - left) / 2, (back - front) / 2])
    yaw = rng.normal(0, 12)
    to_world = rotation('z', yaw)
    gray = rng.uniform(0.85, 1.0)

    def plane(center: ArrayLike, tilt: np.ndarray, size: tuple[float, float], texture: str) -> Geom:
        return Geom(
            'sheet',
            to_world @ np.asarray(center, float),
            to_world @ tilt @ np.diag([*size, 1.0]),
            (gray, gray, gray, 1),
            texture,
        )

    mid_z = floor_z + high / 2
    geoms = [
        plane((*middle, floor_z), np.eye(3), (wide, deep), 'floor'),
        plane((middle[0], back, mid_z), rotation('x', 90), (wide, high), 'wall'),
        plane((-left, middle[1], mid_z), rotation('y', 90), (high, deep), 'wall'),
        plane((right, middle[1], mid_z), rotation('y', -90), (high, deep), 'wall'),
    ]
    skirting = np.array([0.9, 0.89, 0.86]) * rng.uniform(0.5, 1)
    geoms.append(_block(to_world @ (middle[0], back - 0.01, floor_z), (wide, 0.02, 0.09), skirting, yaw=yaw))
    tones = textures.WOODS + textures.NEUTRALS
    for _ in range(rng.integers(0, 4)):
        size = rng.uniform((0.35, 0.3, 0.35), (1.2, 0.5, 1.7))
        position = np.array([rng.uniform(-left, right), back - size[1] / 2 - 0.02, floor_z])
        if position[1] - size[1] / 2 < reach and abs(position[0]) < reach + size[0] / 2:
            continue  # it would intersect the table
        tone = np.clip(np.array(tones[rng.integers(len(tones))]) * rng.uniform(0.6, 1.1), 0, 1)
        geoms.append(_block(to_world @ position, size, tone, 'grain' if rng.random() < 0.5 else '', yaw=yaw))
    return geoms


def _lights(rng: np.random.Generator) -> list[Light]:
    """Draw one or two area lights and a fill light with the ambient light.

    An area light, a lamp or a window, is a bundle of directional lights, whose shadows add up to a soft one.
    """
    warm = rng.uniform(-0.09, 0.09)
    tint = np.array([1 + warm, 1, 1 - warm])
    strength = rng.uniform(0.42, 0.72)
    ambient = rng.uniform(0.34, 0.5)
    fill = rng.normal(0, 0.5, 2)
    lights = [Light(np.array([*fill, -1.0]), np.full(3, rng.uniform(0.1, 0.22)), np.zeros(3), ambient * np.ones(3))]
    first_count = int(rng.integers(2, 4)) if rng.random() < 0.3 else SHADOWS  # lights of the first bundle
    softness = rng.uniform(0.015, 0.09)
    for count in (first_count, SHADOWS - first_count):
        tilt, azimuth = np.radians(rng.uniform(10, 52)), rng.uniform(0, 2 * np.pi)
        main = np.array([np.tan(tilt) * np.cos(azimuth), np.tan(tilt) * np.sin(azimuth), -1.0])
        spin = rng.uniform(0, 2 * np.pi)
        for k in range(count):
            ring = softness * (0.45 + 0.55 * (k % 2)) * np.array([np.cos(spin + k * 2.4), np.sin(spin + k * 2.4), 0])
            diffuse, specular = tint * strength / SHADOWS, tint * 0.9 / SHADOWS
            lights.append(Light(main + ring, diffuse, specular, np.zeros(3), casts_shadow=True))
    return lights
