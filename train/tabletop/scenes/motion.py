"""A scene in motion: the camera sways about its target and objects slide along the table, smoothly and by seed."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from instructsam.train.tabletop.scenes.layout import PlacedObject, are_apart
from instructsam.train.tabletop.scenes.render import Camera
from instructsam.train.tabletop.scenes.room import Room, Table

SWAY = np.radians(8)  # largest angle of the camera to either side
SWAY_PERIOD_S = 4.0
SLIDE_M = (0.04, 0.10)  # range of the amplitude of an object's slide, to either side
SLIDE_PERIOD_S = (5.0, 9.0)
MAX_MOVERS = 3  # largest number of objects on the table that move
GAP_M = 0.01  # least distance between a moving object and any other
STEPS = 24  # instants of a period at which collisions are checked


@dataclass(frozen=True, eq=False)
class Slide:
    """A sinusoidal motion along `direction` [3]."""

    direction: np.ndarray
    amplitude_m: float
    period_s: float

    def offset(self, time_s: float) -> np.ndarray:
        """Return the displacement [3] m at `time_s`."""
        return self.direction * self.amplitude_m * np.sin(2 * np.pi * time_s / self.period_s)

    def footprints(self, footprints: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Return the footprints [N, 2] of a group that slides, at each of `STEPS` instants of a period."""
        times_s = np.arange(STEPS) / STEPS * self.period_s
        return [[footprint + self.offset(time_s)[:2] for footprint in footprints] for time_s in times_s]


def swayed(camera: Camera, time_s: float) -> Camera:
    """Return the camera at `time_s`, rotated about the vertical line through the point of the table that it faces."""
    pivot = camera.on_table(((camera.width - 1) / 2, (camera.height - 1) / 2))
    if pivot is None:
        raise ValueError('the camera does not face the table')
    angle = SWAY * np.sin(2 * np.pi * time_s / SWAY_PERIOD_S)
    matrix = Rotation.from_euler('z', angle).as_matrix()
    return replace(camera, position=pivot + matrix @ (camera.position - pivot), rotation=matrix @ camera.rotation)


class Motion:
    """The motion of a scene, chosen by a seed; at time 0 everything is where it was staged."""

    def __init__(
        self,
        seed: int,
        objects: list[PlacedObject],
        room: Room,
        camera: Camera,
        *,
        slide: bool = True,
        sway: bool = True,
    ) -> None:
        """Choose the objects that move.

        Args:
            seed: Seed of the motion.
            objects: As in `scene.Stage`, like `room` and `camera`.
            room: Provides the table.
            camera: The camera at time 0.
            slide: Move some of the objects that stand on the table and have space, with everything that they carry.
            sway: Move the camera.
        """
        self._objects, self._camera, self._sway = objects, camera, sway
        self._slides = self._choose(np.random.default_rng((seed, 77)), room.table) if slide else {}

    def at(self, time_s: float) -> tuple[list[PlacedObject], Camera]:
        """Return the objects and the camera at `time_s`."""
        offsets = {index: slide.offset(time_s) for index, slide in self._slides.items()}
        objects = [
            replace(obj, position=obj.position + offsets[root]) if (root := self._root(index)) in offsets else obj
            for index, obj in enumerate(self._objects)
        ]
        return objects, swayed(self._camera, time_s) if self._sway else self._camera

    def _root(self, index: int) -> int:
        """Return the index of the object on the table that carries this one, or `index` itself."""
        while self._objects[index].parent >= 0:
            index = self._objects[index].parent
        return index

    def _choose(self, rng: np.random.Generator, table: Table) -> dict[int, Slide]:
        """Draw the slides by the indices of their objects."""
        slides: dict[int, Slide] = {}
        roots = [index for index, obj in enumerate(self._objects) if obj.parent < 0]
        groups = {
            root: [obj.footprint for i, obj in enumerate(self._objects) if self._root(i) == root] for root in roots
        }
        for index in rng.permutation(roots).tolist():
            angle = rng.uniform(0, 2 * np.pi)
            direction = np.array([np.cos(angle), np.sin(angle), 0])
            slide = Slide(direction, rng.uniform(*SLIDE_M), rng.uniform(*SLIDE_PERIOD_S))
            if len(slides) < MAX_MOVERS and _is_free(index, slide, slides, groups, table):
                slides[index] = slide
        return slides


def _is_free(
    index: int, slide: Slide, slides: dict[int, Slide], groups: dict[int, list[np.ndarray]], table: Table
) -> bool:
    """Return whether a sliding group stays on the table and touches nothing, wherever the other movers are.

    Args:
        index: The object on the table whose group slides.
        slide: Its motion.
        slides: Motions of the other movers.
        groups: Footprints of each object on the table and of everything that it carries.
        table: The table.
    """
    obstacles = [
        footprint
        for other, footprints in groups.items()
        if other != index and other not in slides
        for footprint in footprints
    ]
    for other, motion in slides.items():
        obstacles += [footprint for step in motion.footprints(groups[other]) for footprint in step]
    return all(
        table.contains(footprint) and all(are_apart(footprint, obstacle, GAP_M) for obstacle in obstacles)
        for step in slide.footprints(groups[index])
        for footprint in step
    )
