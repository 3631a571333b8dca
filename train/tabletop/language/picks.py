"""Instructions that mean exactly one object, as an arm is asked to pick it: `picks(split, seed, count)`."""

from dataclasses import dataclass
from itertools import count as numbers
from itertools import islice

from instructsam.train.tabletop.language.instructions import Instruction, instructions
from instructsam.train.tabletop.scenes.scene import Object, Scene, scene


@dataclass(frozen=True, eq=False)
class Pick:
    """One instruction about the scene number `index`, and the one object that it means.

    instruction: `text` is what is said, `kind` its type, one of instructions.KINDS.
    """

    index: int
    scene: Scene
    instruction: Instruction
    target: Object


def picks(split, seed, count, size=(448, 448), first=0):
    """`count` Picks, scene by scene from the number `first` on, each scene drawn once at `size` (width, height) px.

    A scene gives as many as it has instructions with a single target, up to eight, each of another kind. The same call,
    the same picks; more of them begin with the same.
    """
    return islice(_all(split, seed, size, first), count)


def _all(split, seed, size, first):
    for index in numbers(first):
        made = scene(split, index, seed, size)
        for one in instructions(made):
            targets = [target for group in one.targets for target in group]
            if len(one.targets) == len(targets) == 1:
                yield Pick(index, made, one, made.objects[targets[0]])
