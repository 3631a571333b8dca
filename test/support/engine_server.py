"""A chat server that answers the data engine about any picture, by rules; and pictures and recipes for it."""

import base64
import hashlib
import json

import cv2
import numpy as np
import yaml
from chat_server import answers
from PIL import Image

BOX = [100, 100, 700, 800]  # of the only object, in thousandths


def reply(request):
    """Return the text of the reply; it depends on the request alone."""
    form = request['response_format']['json_schema']['name']
    if form == 'QuestionsForm':
        name = picture_name(request)
        questions = [
            {'question': f'Find the {colour} thing {name}.', 'answer': f'{colour} thing', 'ground': ground}
            for colour, ground in (
                ('red', {'quantifier': 'one', 'count': 1}),
                ('blue', {'quantifier': 'count', 'count': 2}),
            )
        ]
        questions.append({**questions[0], 'question': f'Find the saw {name}.', 'answer': 'saw', 'present': False})
        return json.dumps({'questions': questions})
    asked = json.loads(request['messages'][1]['content'][2]['text'])['questions']
    return json.dumps(
        {
            'objects': [{'object_id': 'thing', 'phrase': 'a thing', 'bbox_2d': BOX}],
            'answers': [{'question_id': each['question_id'], 'object_ids': ['thing']} for each in asked],
        }
    )


def picture_name(request):
    """Return a name that belongs to the picture of a request."""
    url = request['messages'][1]['content'][0]['image_url']['url']
    return hashlib.sha256(base64.b64decode(url.partition(',')[2])).hexdigest()[:6]


annotates = answers(reply)


def make_photos(folder):
    folder.mkdir()
    for seed in range(6):
        blocks = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        pixels = cv2.resize(blocks, (128, 96), interpolation=cv2.INTER_NEAREST)
        Image.fromarray(pixels).save(folder / f'{seed}.png')


def write_recipe(folder, output, url, checkpoint, **changes):
    """Write a recipe with changes to `folder`, which is the working folder; return its path."""
    content = {
        'output': output,
        'sources': [{'name': 'photos', 'images': 'photos', 'licence': 'CC0'}],
        'vlm': {'url': url, 'model': 'test', 'retries': 0},
        'objects': {'probe': False},
        'masks': {'backend': 'concept', 'model': str(checkpoint), 'device': 'cpu', 'dtype': 'float32'},
        'filter': dict.fromkeys(('mask_box_iou', 'largest_piece'), 0) | {'outside_box': 1, 'object_score': -100},
        'export': {'validation_share': 0.5, 'samples': 4},
    }
    for name, value in changes.items():
        content[name] = {**content.get(name, {}), **value} if isinstance(value, dict) else value
    path = folder / f'{output}.yaml'
    path.write_text(yaml.safe_dump(content))
    return str(path)
