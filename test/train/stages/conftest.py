"""A tiny model with a trunk and slot references, for the tests that do not make another one."""

import pytest
import torch
from sample_models import write_trunk_model

from instructsam.core.model import checkpoint as model_folders


@pytest.fixture(scope='module')
def folder(checkpoint, tmp_path_factory):
    return write_trunk_model(checkpoint, tmp_path_factory.mktemp('trunk') / 'model')


@pytest.fixture
def model(folder):
    return model_folders.load(folder, 'cpu', torch.float32).requires_grad_(True).train()
