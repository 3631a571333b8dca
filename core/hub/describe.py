"""Facts about a model's folder, from its configuration, the headers of its weights and its card."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instructsam.core import builtin
from instructsam.core.errors import ModelError
from instructsam.core.files.regular_file import read_regular_file
from instructsam.core.model import checkpoint
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.config_check import check_config

CARD_FILES = ('README.md', 'LICENSE*')
MAX_CARD_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelFacts:
    """A model, as its folder describes it."""

    folder: str
    commit: str  # commit of a folder in the hub's cache; empty for any other
    parameters: int
    weights_bytes: int
    dtypes: tuple[str, ...]  # precisions of the stored tensors, in safetensors' names
    queries: int  # size K of the query bank
    image_size: int  # side of the square input of the segmenter, px
    language_layers: int
    language_width: int
    trunk: str  # kind of the shared trunk; empty without one
    licence: str  # as the card's header names it; empty if it does not
    card: tuple[str, ...]  # title and first paragraph of the card

    def to_json(self) -> dict[str, Any]:
        """Return a dict of plain types."""
        return asdict(self)


def describe(folder: str | Path) -> ModelFacts:
    """Return the facts about the model in `folder`.

    Raises ModelError if configuration or headers show that it cannot be loaded.
    """
    folder = Path(folder)
    config = ModelConfig.from_folder(folder)
    files = checkpoint.weight_files(folder)
    shapes = checkpoint.tensor_shapes(files)
    try:
        check_config(config, shapes)
    except ModelError as error:
        raise ModelError(f'{folder}: {error}') from error
    licence, card = _read_card(folder / CARD_FILES[0])
    return ModelFacts(
        folder=str(folder),
        commit=builtin.commit_of(folder),
        parameters=checkpoint.parameter_count(shapes),
        weights_bytes=sum(file.stat().st_size for file in files),
        dtypes=checkpoint.stored_dtypes(files),
        queries=config.num_queries,
        image_size=config.image_size,
        language_layers=int(config.text.num_hidden_layers or 0),
        language_width=int(config.text.hidden_size or 0),
        trunk=config.trunk.kind if config.trunk else '',
        licence=licence,
        card=card,
    )


def _read_card(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the licence of a model card, and its title and first paragraph; both empty if there is none."""
    try:
        text = read_regular_file(path, MAX_CARD_BYTES).decode('utf-8', 'replace')
    except OSError:
        return '', ()
    header = re.match(r'---\n(.*?)\n---\n', text, re.DOTALL)  # YAML of the hub
    licence = re.search(r'^license(?:_name)?:\s*(\S+)', header.group(1), re.MULTILINE) if header else None
    paragraphs = re.split(r'\n\s*\n', text[header.end() if header else 0 :].strip())[:2]
    return licence.group(1) if licence else '', tuple(' '.join(each.split()) for each in paragraphs)
