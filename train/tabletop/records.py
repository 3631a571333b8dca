"""Scenes and instructions as JSON records in the official training format, and the ground truth of scenes as JSON.

A bare phrase becomes a "phrase" annotation, an instruction a "sentence" annotation whose category is the answer phrase.
An instruction with several phrases becomes one "phrase" annotation for each, with its wording under `instruction`. One
record holds all of a scene, so that a training step encodes the image once. Keys that the official loader does not
know: split, seed and index of a record; kind, instruction, targets (object ids), program, novel, concise (the concise
form of the phrase, see `words.concise`), shorter (its shorter forms, see `words.shortened`) and anchors (masks of the
other objects that the instruction names) of an annotation.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from instructsam.core.rle import Rle
from instructsam.train.tabletop.language.instructions import Instruction
from instructsam.train.tabletop.scenes.scene import Scene, SceneObject


def record(scene: Scene, instructions: Sequence[Instruction], *, bare: bool = False) -> dict[str, Any]:
    """Return the record of instructions about one scene.

    Args:
        scene: The scene.
        instructions: From `sample_instructions` or `sample_concepts`.
        bare: The instructions are concepts, whose text is the phrase itself.
    """
    return {
        'type': 'seg',
        'image': f'images/{scene.name}.jpg',
        'height': scene.camera.height,
        'width': scene.camera.width,
        'annotation': [annotation for one in instructions for annotation in _annotations(scene, one, bare=bare)],
        'split': scene.split,
        'seed': scene.seed,
        'index': scene.index,
    }


def _annotations(scene: Scene, instruction: Instruction, *, bare: bool) -> Iterator[dict[str, Any]]:
    """Yield the annotation of each phrase."""
    is_joint = len(instruction.phrases) > 1
    for phrase, concise, shorter, targets, anchors, program in zip(
        instruction.phrases,
        instruction.concise,
        instruction.shorter,
        instruction.targets,
        instruction.anchors,
        instruction.program,
        strict=True,
    ):
        text = (
            {'type': 'phrase', 'text': phrase, **({'instruction': instruction.text} if is_joint else {})}
            if bare or is_joint
            else {'type': 'sentence', 'text': instruction.text, 'category': phrase}
        )
        yield {
            **text,
            'ann_type': 'mask',
            'ann': _masks(scene, targets) or None,
            'kind': instruction.kind,
            'targets': list(targets),
            'program': program,
            'novel': list(instruction.novel),
            'concise': concise,
            'shorter': list(shorter),
            'anchors': _masks(scene, anchors),
        }


def _masks(scene: Scene, ids: Sequence[int]) -> list[str]:
    return [json.dumps(Rle.encode(scene.ids == i).to_coco()) for i in ids]


def scene_facts(scene: Scene) -> dict[str, Any]:
    """Return the ground truth of a scene in plain types: camera and objects, lengths in m.

    `camera_to_world` is the pose of the optical frame in the world as a 4 x 4 matrix.
    """
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = scene.camera.rotation, scene.camera.position
    return {
        'name': scene.name,
        'image': f'images/{scene.name}.jpg',
        'depth': f'depth/{scene.name}.png',
        'split': scene.split,
        'seed': scene.seed,
        'index': scene.index,
        'height': scene.camera.height,
        'width': scene.camera.width,
        'intrinsics': _rounded(scene.camera.intrinsics),
        'camera_to_world': _rounded(pose),
        'objects': [_object_facts(obj, scene) for obj in scene.objects],
    }


def _object_facts(obj: SceneObject, scene: Scene) -> dict[str, Any]:
    return {
        'id': obj.id,
        'category': obj.category,
        'color': obj.color,
        'material': obj.material,
        'size': obj.size,
        'extent_m': _rounded(obj.extent_m),
        'center_m': _rounded(obj.center_m),
        'camera_m': _rounded(obj.camera_m),
        'parent': obj.parent,
        'relation': obj.relation,
        'visible': round(obj.visible, 4),
        'seen_px': obj.seen_px,
        'mask': Rle.encode(scene.ids == obj.id).to_coco(),
    }


def _rounded(values: ArrayLike) -> list[Any]:
    return np.round(np.asarray(values, float), 6).tolist()
