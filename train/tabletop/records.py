"""Scenes and instructions as the official JSON records, and the scenes' own facts as JSON.

A bare phrase becomes a "phrase" annotation, an instruction a "sentence" whose category is the answer phrase; one record
holds all of a scene, so that a training step reads the image once. An instruction for several phrases is an "instseg"
record of its own, with its wording under `instruction`. Keys that the official loader does not know: split, seed, index
and instruction of a record; kind, targets (object ids), program and novel of an annotation.
"""

import json

import numpy as np

from instructsam.core.rle import Rle


def records(scene, instructions, bare=False):
    """The records of `instructions` about one scene. bare: from `concepts`, the text is the phrase itself."""
    single = [one for one in instructions if len(one.phrases) == 1]
    groups = [[one] for one in instructions if len(one.phrases) > 1] + ([single] if single else [])
    return [_record(scene, group, bare) for group in groups]


def _record(scene, group, bare):
    together = len(group[0].phrases) > 1
    return {
        'type': 'instseg' if together else 'seg',
        'image': f'images/{scene.name}.jpg',
        'height': scene.camera.height,
        'width': scene.camera.width,
        'annotation': [annotation for one in group for annotation in _annotations(scene, one, bare or together)],
        **({'instruction': group[0].text} if together else {}),
        'split': scene.split,
        'seed': scene.seed,
        'index': scene.index,
    }


def _annotations(scene, instruction, plain):
    for phrase, targets, program in zip(instruction.phrases, instruction.targets, instruction.program):
        yield {
            **(
                {'type': 'phrase', 'text': phrase}
                if plain
                else {'type': 'sentence', 'text': instruction.text, 'category': phrase}
            ),
            'ann_type': 'mask',
            'ann': [json.dumps(Rle.encode(scene.ids == i).to_coco()) for i in targets] or None,
            'kind': instruction.kind,
            'targets': list(targets),
            'program': program,
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
