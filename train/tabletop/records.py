"""Scenes and instructions as the official JSON records, and the scenes' own facts as JSON.

A bare phrase becomes a "phrase" annotation, an instruction a "sentence" whose category is the answer phrase, and one
for several phrases an "instseg" record with its wording under `instruction`. Keys that the official loader does not
know: kind, split, seed, index, targets (object ids), program, novel, instruction.
"""

import json

import numpy as np

from instructsam.core.rle import Rle


def record(scene, instruction, bare=False):
    """One record. bare: from `concepts`, the text is the phrase itself."""
    annotations = [
        {
            **({'type': 'phrase', 'text': phrase} if bare or len(instruction.phrases) > 1 else
               {'type': 'sentence', 'text': instruction.text, 'category': phrase}),
            'ann_type': 'mask',
            'ann': [json.dumps(Rle.encode(scene.ids == i).to_coco()) for i in targets] or None,
        }
        for phrase, targets in zip(instruction.phrases, instruction.targets)
    ]  # fmt: skip
    return {
        'type': 'instseg' if len(annotations) > 1 else 'seg',
        'image': f'images/{scene.name}.jpg',
        'height': scene.camera.height,
        'width': scene.camera.width,
        'annotation': annotations,
        'instruction': instruction.text,
        'kind': instruction.kind,
        'split': scene.split,
        'seed': scene.seed,
        'index': scene.index,
        'targets': [list(targets) for targets in instruction.targets],
        'program': list(instruction.program),
        'novel': list(instruction.novel),
    }


def scene_facts(scene):
    """Camera and objects of a scene in plain types; lengths in m, the pose as a 4 x 4 matrix optical frame -> world."""
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
        'intrinsics': _plain(scene.camera.intrinsics),
        'camera_to_world': _plain(pose),
        'objects': [_object_facts(item, scene) for item in scene.objects],
    }


def _object_facts(item, scene):
    return {
        'id': item.id,
        'category': item.category,
        'color': item.color,
        'material': item.material,
        'size': item.size,
        'extent_m': _plain(item.extent_m),
        'center_m': _plain(item.center_m),
        'camera_m': _plain(item.camera_m),
        'parent': item.parent,
        'relation': item.relation,
        'visible': round(item.visible, 4),
        'seen_px': item.seen_px,
        'mask': Rle.encode(scene.ids == item.id).to_coco(),
    }


def _plain(values):
    return np.round(np.asarray(values, float), 6).tolist()
