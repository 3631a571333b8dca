"""What ships inside: the published configuration, and the small models that can be named without a folder."""
from pathlib import Path

from instructsam.core.checkpoint import random_model, resolve
from instructsam.core.config import ModelConfig

FOLDER = Path(__file__).parent / 'models'
UNTRAINED = 'untrained weights: masks and scores mean nothing'
MODELS = {'untrained': FOLDER / 'tabletop'}  # weights are made from a seed, the rest is in the folder


def folder(name):
    """The folder of a built-in model, a local folder, or a hub id. Raises ModelError."""
    return MODELS[name] if name in MODELS else resolve(name)


def published_config():
    """The configuration of the published InstructSAM-2B (2.62 B parameters)."""
    return ModelConfig.from_folder(FOLDER / 'instructsam_2b')


def load(name):
    """The built-in model of that name on the CPU in float32, as an InstructSAMModel."""
    return random_model(ModelConfig.from_folder(MODELS[name]), seed=0)
