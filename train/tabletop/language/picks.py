"""Instructions that refer to exactly one object, as given to a robot arm that is to pick it up.

The benchmarks of grasping and of the whole node use them.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from instructsam.train.tabletop.language.instructions import Instruction, sample_instructions
from instructsam.train.tabletop.scenes.scene import Scene, SceneObject, render_scene


@dataclass(frozen=True, eq=False)
class Pick:
    """An instruction about one scene, and the one object that it refers to.

    Attributes:
        index: Number of the scene.
        scene: The scene.
        instruction: The instruction.
        target: The object.
    """

    index: int
    scene: Scene
    instruction: Instruction
    target: SceneObject


def sample_picks(
    split: str, seed: int, count: int, size: tuple[int, int] = (448, 448), first: int = 0
) -> Iterator[Pick]:
    """Yield picks scene by scene; equal arguments give equal picks, and a larger `count` only appends to them.

    A scene gives as many picks as it has instructions with a single target, up to eight of distinct types.

    Args:
        split: One of `splits.SPLITS`.
        seed: Seed of the dataset.
        count: Number of picks.
        size: (width, height) px of the scenes.
        first: Number of the first scene.
    """
    return itertools.islice(_all_picks(split, seed, size, first), count)


def _all_picks(split: str, seed: int, size: tuple[int, int], first: int) -> Iterator[Pick]:
    for index in itertools.count(first):
        scene = render_scene(split, index, seed, size)
        for instruction in sample_instructions(scene):
            targets = [target for group in instruction.targets for target in group]
            if len(instruction.targets) == len(targets) == 1:
                yield Pick(index, scene, instruction, scene.objects[targets[0]])
