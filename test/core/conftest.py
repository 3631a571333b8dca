"""Fixtures of the core tests: the recordings of the authors' implementation, and tiny engines on their checkpoint."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DATA = Path(__file__).parents[1] / 'data'


@pytest.fixture(scope='session')
def reference():
    """Folder of the recordings: $INSTRUCTSAM_REFERENCE, or the copy in the repository (see its README)."""
    return Path(os.environ.get('INSTRUCTSAM_REFERENCE', DATA / 'reference'))


@pytest.fixture(scope='session')
def checkpoint(reference):
    """A tiny checkpoint of the published form with random weights."""
    return reference / 'checkpoint'


@pytest.fixture(scope='session')
def load_engine(checkpoint):
    """load_engine(mode): an engine on the tiny checkpoint, loaded once a mode."""
    from instructsam.core import InstructSAM

    engines = {}

    def load(mode='consistent'):
        if mode not in engines:
            engines[mode] = InstructSAM.from_pretrained(checkpoint, device='cpu', dtype='float32', mode=mode)
        return engines[mode]

    return load


@pytest.fixture(scope='session')
def engine(load_engine):
    return load_engine('consistent')


@pytest.fixture(scope='session')
def picture():
    """[120, 160, 3] uint8 RGB: smooth colours with a few shapes, the same every time."""
    y, x = np.mgrid[:120, :160]
    image = np.stack([x * 255 // 159, y * 255 // 119, (x + y) % 256], axis=-1).astype(np.uint8)
    image[30:70, 40:90] = (200, 30, 40)
    image[80:110, 100:140] = (20, 90, 210)
    return image


def read_rgb(path):
    """[H, W, 3] uint8 RGB."""
    return np.asarray(Image.open(path).convert('RGB'))
