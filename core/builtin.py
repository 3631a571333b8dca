"""What ships inside: a small trained model that can be named without a folder, and the published configuration."""

from pathlib import Path

from instructsam.core.model import checkpoint
from instructsam.core.model.config import ModelConfig

FOLDER = Path(__file__).parent / 'pretrained'
MODELS = {'tabletop': FOLDER / 'tabletop'}
WARNING = 'built-in model: it has seen rendered tables only'


def folder(name):
    """The folder of a built-in model, a local folder, or a hub id. Raises ModelError."""
    return MODELS[name] if name in MODELS else checkpoint.resolve(name)


def published_config():
    """The configuration of the published InstructSAM-2B (2.62 B parameters)."""
    return ModelConfig.from_folder(FOLDER / 'instructsam_2b')
