"""Fixtures of all tests."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from instructsam.core import InstructSAM

sys.path.insert(0, str(Path(__file__).parent / 'support'))

from ros_domain import reserve_domain

# A shell that starts the tests in the background makes them ignore SIGINT, nohup makes them ignore SIGHUP, and child
# processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

PACKAGE = Path(__file__).parents[1] / 'instructsam_ros'


def pytest_configure() -> None:
    """Stop if the checkout hides an installed package, whose messages it does not have."""
    spec = importlib.util.find_spec('instructsam_ros')
    is_checkout = spec is not None and spec.origin is not None and Path(spec.origin).parent == PACKAGE
    if is_checkout and not (PACKAGE / 'msg').exists() and importlib.util.find_spec('rclpy'):
        raise pytest.UsageError(
            f'instructsam_ros is imported from {PACKAGE}, which has no generated messages and hides the installed '
            'package: run `python3 -P -m pytest` or use another folder, or install this one with `pip install -e`'
        )


def _free_domain() -> Iterator[int]:
    """Yield a random ROS_DOMAIN_ID that is reserved until the test ends, against all test processes of this machine."""
    reservation, number = reserve_domain()
    with reservation:
        yield number


domain_id = pytest.fixture(_free_domain, name='domain_id')
module_domain_id = pytest.fixture(_free_domain, name='module_domain_id', scope='module')

DATA = Path(__file__).parent / 'data'


@pytest.fixture(scope='session')
def reference() -> Path:
    """Folder of the reference recordings: $INSTRUCTSAM_REFERENCE, or the copy in the repository (see its README)."""
    return Path(os.environ.get('INSTRUCTSAM_REFERENCE', DATA / 'reference'))


@pytest.fixture(scope='session')
def checkpoint(reference: Path) -> Path:
    """Folder of a tiny checkpoint in the published format, with random weights."""
    return reference / 'checkpoint'


@pytest.fixture(scope='session')
def load_engine(checkpoint: Path) -> Callable[..., InstructSAM]:
    """Function that returns an engine on the tiny checkpoint in a mode; each mode is loaded once."""
    from instructsam.core import InstructSAM

    engines: dict[str, InstructSAM] = {}

    def load(mode: str = 'consistent') -> InstructSAM:
        if mode not in engines:
            engines[mode] = InstructSAM.from_pretrained(checkpoint, device='cpu', dtype='float32', mode=mode)
        return engines[mode]

    return load


@pytest.fixture(scope='session')
def engine(load_engine: Callable[..., InstructSAM]) -> InstructSAM:
    """An engine on the tiny checkpoint in mode consistent."""
    return load_engine('consistent')


@pytest.fixture(scope='session')
def image() -> np.ndarray:
    """[120, 160, 3] uint8 RGB: smooth colours with a few shapes, always the same."""
    y, x = np.mgrid[:120, :160]
    pixels = np.stack([x * 255 // 159, y * 255 // 119, (x + y) % 256], axis=-1).astype(np.uint8)
    pixels[30:70, 40:90] = (200, 30, 40)
    pixels[80:110, 100:140] = (20, 90, 210)
    return pixels
