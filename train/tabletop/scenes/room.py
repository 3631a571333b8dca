"""Everything around the objects: the table, floor, walls and furniture, the lights, and where the camera stands.

World frame: the origin is the middle of the table top, z up; the robot's camera looks roughly along +y.
"""

from dataclasses import dataclass

import numpy as np

from instructsam.train.tabletop.scenes.render import Camera, Geom, Light
from instructsam.train.tabletop.world import textures
from instructsam.train.tabletop.world.meshes import box, lathe, rotation, sheet

SLAB_M = 0.03
RAYS = 5  # shadows a picture: more are softer and take longer
MESHES = {
    'sheet': sheet(1),
    'block': box((1, 1, 1), 0.012),
    'disc': lathe([(0, 0), (0.49, 0), (0.5, 0.1), (0.5, 0.9), (0.49, 1), (0, 1)], 64),
}
SURFACES = {'table': textures.table, 'floor': textures.floor, 'wall': textures.wall}


def _planar(mesh):
    """A mesh whose texture is laid on from above."""
    return type(mesh)(mesh.vertices, mesh.normals, mesh.vertices[:, :2] + 0.5, mesh.faces)


MESHES['disc'] = _planar(MESHES['disc'])


@dataclass(frozen=True)
class Table:
    """A top of `size` (x, y) m, rectangular or elliptic, turned by `yaw` degrees, its surface at z = 0."""

    size: tuple[float, float]
    round: bool
    yaw: float

    def contains(self, polygon):
        """Whether `polygon` [N, 2] m lies on the table, 1 cm off its edge."""
        own = polygon @ rotation('z', self.yaw)[:2, :2] / (np.array(self.size) / 2 - 0.01)
        return bool((np.linalg.norm(own, axis=1) < 1).all() if self.round else (np.abs(own) < 1).all())


@dataclass(frozen=True, eq=False)
class Room:
    """A table in its surroundings: geoms, lights, and the images of the surface textures."""

    table: Table
    geoms: list
    lights: list
    images: dict


def sample_camera(rng, width, height):
    """A robot's view: 35 to 70 degrees down, 0.5 to 1.2 m away, seldom quite level."""
    pitch, azimuth, roll = np.radians([rng.uniform(35, 70), rng.normal(0, 22), rng.normal(0, 1.5)])
    fov = np.radians(rng.uniform(44, 62))
    # a wide lens is held nearer, so that a mug covers a few percent of the picture's width either way
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


def sample_room(rng):
    """A table in a room with lights."""
    table = Table((rng.uniform(0.75, 1.7), rng.uniform(0.6, 1.0)), bool(rng.random() < 0.2), rng.normal(0, 10))
    if table.round:
        table = Table((rng.uniform(0.8, 1.3),) * 2, True, table.yaw)
    floor_z = -rng.uniform(0.68, 0.8)
    images = {name: make(rng) for name, make in SURFACES.items()}
    geoms = [*_table(rng, table, floor_z), *_shell(rng, table, floor_z)]
    return Room(table, geoms, _lights(rng), images)


def _block(center, size, color, texture='', mesh='block', yaw=0.0):
    """A block of `size` [3] standing on `center` [3]."""
    return Geom(mesh, np.asarray(center, float), rotation('z', yaw) @ np.diag(size), (*color, 1.0), texture)


def _table(rng, table, floor_z):
    shine = {'specular': rng.uniform(0, 0.12), 'shininess': 0.4}
    matrix = rotation('z', table.yaw) @ np.diag([*table.size, SLAB_M])
    top = Geom(
        'disc' if table.round else 'block',
        np.array([0, 0, -SLAB_M]),
        matrix,
        (1, 1, 1, 1),
        'table',
        casts=True,
        **shine,
    )
    color = np.array(textures.WOODS[rng.integers(len(textures.WOODS))]) * rng.uniform(0.4, 1)
    height = -floor_z - SLAB_M
    if table.round:
        return [top, _block((0, 0, floor_z), (0.1, 0.1, height), color, mesh='disc')]
    corners = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * (np.array(table.size) / 2 - 0.06)
    corners = corners @ rotation('z', table.yaw)[:2, :2].T
    return [top, *(_block((*corner, floor_z), (0.05, 0.05, height), color, yaw=table.yaw) for corner in corners)]


def _shell(rng, table, floor_z):
    """Floor, four walls, and some large furniture against them."""
    reach = np.hypot(*table.size) / 2
    left, right, back = (reach + rng.uniform(low, high) for low, high in ((0.2, 1.8), (0.2, 1.8), (0.05, 1.7)))
    front, high = 3.0, 2.6
    wide, deep = left + right, front + back
    middle = np.array([(right - left) / 2, (back - front) / 2])
    yaw = rng.normal(0, 12)
    turn = rotation('z', yaw)
    gray = rng.uniform(0.85, 1.0)

    def plane(center, tilt, size, texture):
        return Geom(
            'sheet',
            turn @ np.asarray(center, float),
            turn @ tilt @ np.diag([*size, 1.0]),
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
    geoms.append(_block(turn @ (middle[0], back - 0.01, floor_z), (wide, 0.02, 0.09), skirting, yaw=yaw))
    tones = textures.WOODS + textures.NEUTRALS
    for _ in range(rng.integers(0, 4)):
        size = rng.uniform((0.35, 0.3, 0.35), (1.2, 0.5, 1.7))
        spot = np.array([rng.uniform(-left, right), back - size[1] / 2 - 0.02, floor_z])
        if spot[1] - size[1] / 2 < reach and abs(spot[0]) < reach + size[0] / 2:
            continue  # it would stand in the table
        tone = np.clip(np.array(tones[rng.integers(len(tones))]) * rng.uniform(0.6, 1.1), 0, 1)
        geoms.append(_block(turn @ spot, size, tone, 'grain' if rng.random() < 0.5 else '', yaw=yaw))
    return geoms


def _lights(rng):
    """A large lamp or window as a bundle of directions (soft shadows), sometimes a second, and light from all sides."""
    warm = rng.uniform(-0.09, 0.09)
    tint = np.array([1 + warm, 1, 1 - warm])
    strength = rng.uniform(0.42, 0.72)
    ambient = rng.uniform(0.34, 0.5)
    fill = rng.normal(0, 0.5, 2)
    lights = [Light(np.array([*fill, -1.0]), np.full(3, rng.uniform(0.1, 0.22)), np.zeros(3), ambient * np.ones(3))]
    split = int(rng.integers(2, 4)) if rng.random() < 0.3 else RAYS  # how many of the rays come from the first lamp
    softness = rng.uniform(0.015, 0.09)
    for count in (split, RAYS - split):
        tilt, azimuth = np.radians(rng.uniform(10, 52)), rng.uniform(0, 2 * np.pi)
        main = np.array([np.tan(tilt) * np.cos(azimuth), np.tan(tilt) * np.sin(azimuth), -1.0])
        spin = rng.uniform(0, 2 * np.pi)
        for k in range(count):
            ring = softness * (0.45 + 0.55 * (k % 2)) * np.array([np.cos(spin + k * 2.4), np.sin(spin + k * 2.4), 0])
            lights.append(Light(main + ring, tint * strength / RAYS, tint * 0.9 / RAYS, np.zeros(3), shadow=True))
    return lights
