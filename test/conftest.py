"""For every test."""

import os
import random
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

# A shell that starts the tests in the background lets them ignore SIGINT, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _free_domain():
    """A random ROS_DOMAIN_ID that no other test of this machine has meanwhile, whichever process it runs in."""
    while True:
        number = random.randrange(1, 102)
        with socket.socket() as reservation:  # TCP has no use for the port that DDS listens on by UDP
            try:
                reservation.bind(('127.0.0.1', 7400 + 250 * number))
            except OSError:
                continue
            yield number
            return


domain_id = pytest.fixture(_free_domain, name='domain_id')
module_domain_id = pytest.fixture(_free_domain, name='module_domain_id', scope='module')

DATA = Path(__file__).parent / 'data'


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
