"""Samples as the files of each benchmark: as its authors publish it, and as InstructSAM's authors convert it.

`samples` are [(image path, [(text, [mask of each target])])]; masks are compressed run lengths of SIZE x SIZE px.
"""

import numpy as np
from benchmark_files import write_annotations
from PIL import Image
from pycocotools import mask as coco

SIZE = 448


def union(masks):
    return coco.merge([dict(mask, counts=mask['counts'].encode()) for mask in masks]) if masks else None


def as_json(mask):
    return mask and {**mask, 'counts': mask['counts'].decode()}


def write_coco_images(folder, samples):
    (folder / 'images').mkdir(parents=True)
    images, annotations = [], []
    for number, (path, asked) in enumerate(samples):
        (folder / 'images' / path.name).write_bytes(path.read_bytes())
        images.append({'id': number, 'file_name': path.name, 'height': SIZE, 'width': SIZE})
        for text, masks in asked:
            for mask in masks:
                annotations.append(
                    {
                        'id': len(annotations) + 10,
                        'image_id': number,
                        'category_id': 1,
                        'iscrowd': 0,
                        'segmentation': mask,
                        'text': text,
                    }
                )
    write_annotations(
        folder / 'instances.json', {'images': images, 'annotations': annotations, 'categories': [{'id': 1}]}
    )
    return annotations


def refs_of(samples, annotations, targets):
    """(image, text, annotation ids) of the samples with a number of targets in `targets`."""
    for image, (_, asked) in enumerate(samples):
        for text, masks in asked:
            if len(masks) in targets:
                ids = [one['id'] for one in annotations if (one['image_id'], one['text']) == (image, text)]
                yield image, text, ids


def roborefit_original(folder, samples):
    records = []
    base = folder / 'final_dataset' / 'testA'
    for path, asked in samples:
        (base / 'image').mkdir(parents=True, exist_ok=True)
        (base / 'image' / path.name).write_bytes(path.read_bytes())
        for text, masks in asked:
            if masks:
                name = f'{path.stem}_{len(records)}.png'
                (base / 'mask').mkdir(exist_ok=True)
                Image.fromarray(coco.decode(union(masks)) * 255).save(base / 'mask' / name)
                records.append(
                    {
                        'num': len(records),
                        'text': text,
                        'bbox': [0, 0, 9, 9],
                        'scene': 'table',
                        'rgb_path': f'final_dataset\\testA\\image\\{path.name}',
                        'depth_path': 'none',
                        'mask_path': f'final_dataset\\testA\\mask\\{name}',
                    }
                )
    write_annotations(base / 'roborefit_testA.json', records)


def roborefit_converted(folder, samples):
    write_annotations(
        folder / 'testA.json',
        [
            {'image': str(path), 'question': text, 'masks': as_json(union(masks))}
            for path, asked in samples
            for text, masks in asked
            if masks
        ],
    )


def inst2seg(folder, samples):
    write_annotations(
        folder / 'test.json',
        [
            {
                'image': str(path),
                'height': SIZE,
                'width': SIZE,
                'annotation': [{'text': text, **({'mask': masks} if masks else {})} for text, masks in asked],
            }
            for path, asked in samples
        ],
    )


def grefcoco_original(folder, samples):
    annotations = write_coco_images(folder, samples)
    write_annotations(
        folder / 'grefs(unc).json',
        [
            {
                'ref_id': number,
                'ann_id': ids or [-1],
                'category_id': [1],
                'image_id': image,
                'split': 'val',
                'sentences': [{'sent_id': number, 'sent': text}],
            }
            for number, (image, text, ids) in enumerate(refs_of(samples, annotations, range(9)))
        ],
    )


def converted_refs(targets, split):
    def write(folder, samples):
        records = []
        for path, asked in samples:
            kept = [(text, masks) for text, masks in asked if len(masks) in targets]
            if kept:
                records.append(
                    {
                        'image': str(path),
                        'height': SIZE,
                        'width': SIZE,
                        'cat': [text for text, _ in kept],
                        'masks': [masks for _, masks in kept],
                    }
                )
        write_annotations(folder / f'{split}.json', records)

    return write


def refcoco_original(folder, samples):
    annotations = write_coco_images(folder, samples)
    refs = [
        {
            'ref_id': number,
            'ann_id': ids[0],
            'category_id': 1,
            'image_id': image,
            'split': 'val',
            'file_name': 'none',
            'sent_ids': [number],
            'sentences': [{'sent_id': number, 'sent': text, 'raw': text}],
        }
        for number, (image, text, ids) in enumerate(refs_of(samples, annotations, [1]))
    ]
    write_annotations(folder / 'refs(unc).p', refs)


def reasonseg_original(folder, samples):
    """Write the boxes of the masks as outlines, which have no holes."""
    (folder / 'val').mkdir(parents=True)
    for path, asked in samples:
        for number, (text, masks) in enumerate(asked):
            if masks:
                x, y, w, h = (float(value) for value in coco.toBbox(union(masks)))
                stem = f'{path.stem}_{number}'
                Image.open(path).convert('RGB').save(folder / 'val' / f'{stem}.jpg', quality=95)
                shapes = [
                    {'label': 'target', 'points': [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]},
                    {'label': 'ignore', 'points': [[0, 0], [40, 0], [40, 40], [0, 40]]},
                ]
                write_annotations(
                    folder / 'val' / f'{stem}.json', {'text': [text], 'is_sentence': bool(number), 'shapes': shapes}
                )


def reasonseg_converted(folder, samples):
    ignored = np.zeros((SIZE, SIZE), np.uint8, order='F')
    ignored[:200, 200:] = 1
    write_annotations(
        folder / 'val.json',
        [
            {
                'image': str(path),
                'question': text,
                'is_sentence': bool(number),
                'mask': as_json(union(masks)),
                'ignore_mask': as_json(coco.encode(ignored)),
            }
            for path, asked in samples
            for number, (text, masks) in enumerate(asked)
            if masks
        ],
    )


def gseval_rows(samples):
    rows = [(path, text, masks) for path, asked in samples for text, masks in asked if masks]
    return [
        {
            'idx': number,
            'image_path': str(path),
            'class_id': number % 4 + 1,
            'label': 'x',
            'caption': text,
            'box': [0, 0, 1, 1],
            'segmentation': as_json(union(masks)),
        }
        for number, (path, text, masks) in enumerate(rows)
    ]


def gseval_original(folder, samples):
    write_annotations(folder / 'GroundingSuite-Eval.jsonl', gseval_rows(samples))


def gseval_converted(folder, samples):
    write_annotations(folder / 'eval.json', gseval_rows(samples))


LAYOUTS = {
    'roborefit': (roborefit_original, roborefit_converted), 'inst2seg': (inst2seg,),
    'grefcoco': (grefcoco_original, converted_refs(range(9), 'val')),
    'refcoco': (refcoco_original, converted_refs([1], 'val')),
    'reasonseg': (reasonseg_original, reasonseg_converted), 'gseval': (gseval_original, gseval_converted),
}  # fmt: skip
