"""Fixtures of data sets that several tests read."""

import numpy as np
import pytest
from benchmark_files import BOX, CUP, LID, write_annotations, write_image
from PIL import Image


@pytest.fixture
def roborefit(tmp_path):
    """Return a function that writes RoboRefIt with two images and three commands; keywords change the first record."""
    split = tmp_path / 'RoboRefIt' / 'data' / 'final_dataset' / 'testA'

    def make(**changes):
        records = []
        for number, (image, mask) in enumerate([('1', CUP), ('1', BOX), ('0', LID)]):
            write_image(split / 'image' / f'{image}.png')
            file = split / 'mask' / image / f'{number}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(file)
            records.append(
                {
                    'num': number,
                    'text': f'give me thing {number}',
                    'bbox': [0, 0, 1, 1],
                    'scene': 'table',
                    'rgb_path': f'final_dataset/testA/image/{image}.png',
                    'depth_path': 'none',
                    'mask_path': f'final_dataset/testA/mask/{image}/{number}.png',
                }
            )
        write_annotations(split / 'roborefit_testA.json', [{**records[0], **changes}, *records[1:]])
        return tmp_path / 'RoboRefIt'

    return make


@pytest.fixture
def reasonseg(tmp_path):
    """Return a function that writes ReasonSeg, with keywords name=(record, size of the image or None)."""

    def make(**records):
        for name, (record, size) in records.items():
            write_annotations(tmp_path / 'ReasonSeg' / 'val' / f'{name}.json', record)
            if size:
                write_image(tmp_path / 'ReasonSeg' / 'val' / f'{name}.jpg', size)
        return tmp_path / 'ReasonSeg'

    return make
