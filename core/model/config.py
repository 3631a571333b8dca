"""Configuration of a checkpoint: Qwen3-VL's config.json plus the keys that InstructSAM adds to it."""

from __future__ import annotations

import copy
import logging
import operator
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLConfig, Qwen3VLTextConfig, Qwen3VLVisionConfig
from transformers.models.sam3.configuration_sam3 import Sam3Config

from instructsam.core.errors import ModelError
from instructsam.core.files.json_file import read_json_object
from instructsam.core.files.regular_file import check_regular_file
from instructsam.core.text import shorten

logger = logging.getLogger(__name__)

TOKEN_KEYS = {  # field of Tokens -> key in config.json
    'phrase_start': 'ref_start_token_index',
    'phrase_end': 'ref_end_token_index',
    'query': 'seg_token_index',
    'mask_start': 'seg_start_token_index',
    'mask_end': 'seg_end_token_index',
}
TOKENIZER_FILES = (
    'tokenizer*.json',
    'special_tokens_map.json',
    'added_tokens.json',
    'vocab.json',
    'merges.txt',
    'tekken.json',
    '*.model',
    'chat_template.jinja',
    'additional_chat_templates/*.jinja',
)
"""Files from which transformers makes a tokenizer; it reads config.json as well."""

SIDE_FILES = (*TOKENIZER_FILES, '*processor_config.json', 'generation_config.json', 'chat_template.json')
"""Files of a model folder that are used besides config.json and the weights."""

MAX_SMALL_FILE_BYTES = 64 << 20  # the largest is the tokenizer.json of Qwen3-VL, 7 MB
MAX_QUERIES, MAX_WIDTH = 10_000, 100_000
MAX_IMAGE_SIDE = 4096  # px of the square input; the published one is 1008
TRUNKS = ('efficientnet_lite0',)
FLAGS = ('slot_references', 'slot_scores', 'phrase_scores')
REQUIRED = ('text_config', 'vision_config', 'image_token_id', 'max_seg_nums', *TOKEN_KEYS.values())


@dataclass(frozen=True)
class Tokens:
    """Ids of the tokens that structure an answer, as the checkpoint numbers them."""

    phrase_start: int  # <|object_ref_start|>
    phrase_end: int  # <|object_ref_end|>
    query: int  # [SEG], placeholder of one query of the bank
    mask_start: int  # <|mask_start|>
    mask_end: int  # <|mask_end|>
    image: int  # <|image_pad|>


@dataclass(frozen=True)
class TrunkConfig:
    """The pretrained network that reads the image once for both encoders, see core.model.trunk."""

    kind: str  # one of TRUNKS
    image_size: int  # side of its square input in px, a multiple of 16


@dataclass(frozen=True)
class ModelConfig:
    """All settings that determine the model's shapes, and the file contents that they come from."""

    qwen: Qwen3VLConfig
    sam3: Sam3Config
    tokens: Tokens
    num_queries: int  # K, size of the query bank
    bridge_dim: int  # d, width of the bridge's outputs and of SAM3
    trunk: TrunkConfig | None  # None, as in the published model: each encoder reads the image itself
    slot_references: bool  # the detector's reference boxes depend on the language model's slots
    slot_scores: bool  # the language model's slots add to the scores of the detector
    phrase_scores: bool  # the language model's slots tell together whether a phrase refers to anything
    raw: dict[str, Any]  # config.json as read

    @property
    def text(self) -> Qwen3VLTextConfig:
        """Configuration of Qwen's language model."""
        return cast(Qwen3VLTextConfig, self.qwen.text_config)

    @property
    def vision(self) -> Qwen3VLVisionConfig:
        """Configuration of Qwen's vision tower."""
        return cast(Qwen3VLVisionConfig, self.qwen.vision_config)

    @property
    def image_size(self) -> int:
        """Side in px of the square input of the trunk, or else of SAM3."""
        return self.trunk.image_size if self.trunk else cast(Any, self.sam3.vision_config).backbone_config.image_size

    @classmethod
    def from_folder(cls, folder: str | Path) -> ModelConfig:
        """Read `folder`/config.json and the SAM3 configuration that it names.

        Raises ModelError if a file is missing or unreadable, or describes another architecture.
        """
        folder = Path(folder)
        raw = read_json(folder / 'config.json')
        return cls.from_dict(raw, _sam3_config(raw, folder))

    @classmethod
    def from_dict(cls, raw: dict[str, Any], sam3: Sam3Config | None = None) -> ModelConfig:
        """Create a configuration from the contents of config.json and SAM3's configuration (None: SAM3's defaults).

        Raises ModelError if `raw` does not describe an InstructSAM model.
        """
        missing = [key for key in REQUIRED if key not in raw]
        if missing:
            architecture = raw.get('architectures') or raw.get('model_type') or 'an unknown architecture'
            raise ModelError(
                f'config.json is not that of an InstructSAM model: it describes {architecture} and lacks '
                f'{", ".join(missing)}. Give the folder of an InstructSAM checkpoint'
            )
        try:
            qwen = Qwen3VLConfig.from_dict(copy.deepcopy(raw))  # from_dict modifies its argument
            # Some releases of transformers accept a part or a number of any type.
            vocab_size = operator.index(cast(Any, qwen.text_config).vocab_size)
        except Exception as error:  # transformers raises exceptions of many types
            raise ModelError(f'config.json does not describe a Qwen3-VL model: {shorten(error)}') from error
        sam3 = sam3 or Sam3Config()
        encoder, decoder = cast(Any, sam3.detr_encoder_config), cast(Any, sam3.detr_decoder_config)
        num_queries = _integer(raw, 'max_seg_nums', 1, MAX_QUERIES)
        decoder.num_queries = num_queries
        bridge_dim = _integer({'out_dim': 256} | raw, 'out_dim', 1, MAX_WIDTH)
        if bridge_dim != encoder.hidden_size:
            raise ModelError(
                f'out_dim is {bridge_dim}, but SAM3 works at a width of {encoder.hidden_size}: config.json and the '
                'SAM3 configuration do not belong together'
            )
        keys = {'image': 'image_token_id', **TOKEN_KEYS}
        tokens = Tokens(**{name: _integer(raw, key, 0, vocab_size - 1) for name, key in keys.items()})
        trunk, flags = _trunk_config(raw), {key: _flag(raw, key) for key in FLAGS}
        return cls(qwen, sam3, tokens, num_queries, bridge_dim, trunk, raw=raw, **flags)


def _trunk_config(raw: dict[str, Any]) -> TrunkConfig | None:
    section = raw.get('trunk')
    if section is None:
        return None
    if not isinstance(section, dict) or section.get('kind') not in TRUNKS:
        raise ModelError(f'config.json says trunk = {str(section)[:60]}, expected a kind of {", ".join(TRUNKS)}')
    return TrunkConfig(section['kind'], _integer({'image_size': None} | section, 'image_size', 16, MAX_IMAGE_SIDE))


def _integer(raw: dict[str, Any], key: str, low: int, high: int) -> int:
    """Return an entry of config.json that is an integer in a range; raise ModelError for any other."""
    value = raw[key]
    if type(value) is not int or not low <= value <= high:
        raise ModelError(f'config.json says {key} = {str(value)[:60]!r}, expected an integer from {low} to {high}')
    return value


def _flag(raw: dict[str, Any], key: str) -> bool:
    """Return an entry of config.json that is true or false, false if it is absent; raise ModelError for any other."""
    value = raw.get(key, False)
    if not isinstance(value, bool):
        raise ModelError(f'config.json says {key} = {str(value)[:60]!r}, expected true or false')
    return value


def _sam3_config(raw: dict[str, Any], folder: Path) -> Sam3Config:
    """Read SAM3's configuration from the path in config.json, relative to the checkpoint or the working directory."""
    name = raw.get('mask_decoder_model') or raw.get('mm_mask_decoder') or ''
    if not isinstance(name, str):
        raise ModelError(f'config.json says mask_decoder_model = {str(name)[:60]}, expected the path of a folder')
    for path in (folder / name / 'config.json', Path(name) / 'config.json'):
        if name and os.path.isfile(path):  # unlike Path.is_file, it does not raise for names that are too long
            config = read_json(path)
            try:
                return Sam3Config(**config.get('detector_config', config))
            except Exception as error:  # transformers raises exceptions of many types
                raise ModelError(f'{path} does not describe a SAM3 model: {shorten(error)}') from error
    logger.info('mask_decoder_model %r was not found: using the default configuration of SAM3', name)
    return Sam3Config()


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of a model folder, without references to code.

    transformers would import the Python files that `auto_map` names, in the folder or on the hub, and ask on the
    terminal before. Nothing here needs them.

    Raises ModelError if the file is missing or cannot be read.
    """
    try:
        return _without_code(read_json_object(path, MAX_SMALL_FILE_BYTES))
    except FileNotFoundError as error:
        raise ModelError(f'{path.parent} holds no {path.name}: it is not a model folder') from error
    except (OSError, ValueError) as error:
        raise ModelError(f'{path} cannot be read: {getattr(error, "strerror", None) or error}') from error


def check_tokenizer_files(folder: Path) -> None:
    """Raise ModelError if a library that reads the tokenizer of a model folder could hang or fill the memory."""
    for pattern in ('config.json', *TOKENIZER_FILES):
        for path in folder.glob(pattern):
            try:
                check_regular_file(path, MAX_SMALL_FILE_BYTES)
            except OSError as error:
                raise ModelError(f'{path} cannot be read: {error.strerror}') from error


def _without_code(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_code(entry) for key, entry in value.items() if key != 'auto_map'}
    return [_without_code(entry) for entry in value] if isinstance(value, list) else value
