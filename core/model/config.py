"""Configuration of a checkpoint: Qwen3-VL's config.json plus the keys that InstructSAM adds to it."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLConfig, Qwen3VLTextConfig, Qwen3VLVisionConfig
from transformers.models.sam3.configuration_sam3 import Sam3Config

from instructsam.core.errors import ModelError

logger = logging.getLogger(__name__)

TOKEN_KEYS = {  # field of Tokens -> key in config.json
    'phrase_start': 'ref_start_token_index',
    'phrase_end': 'ref_end_token_index',
    'query': 'seg_token_index',
    'mask_start': 'seg_start_token_index',
    'mask_end': 'seg_end_token_index',
}
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
class ModelConfig:
    """All settings that determine the model's shapes, and the file contents that they come from."""

    qwen: Qwen3VLConfig
    sam3: Sam3Config
    tokens: Tokens
    num_queries: int  # K, size of the query bank
    bridge_dim: int  # d, width of the bridge's outputs and of SAM3
    raw: dict[str, Any]  # config.json as read

    @property
    def text(self) -> Qwen3VLTextConfig:
        """Configuration of Qwen's language model."""
        return cast(Qwen3VLTextConfig, self.qwen.text_config)

    @property
    def vision(self) -> Qwen3VLVisionConfig:
        """Configuration of Qwen's vision tower."""
        return cast(Qwen3VLVisionConfig, self.qwen.vision_config)

    @classmethod
    def from_folder(cls, folder: str | Path) -> ModelConfig:
        """Read `folder`/config.json and the SAM3 configuration that it names.

        Raises ModelError if a file is missing or unreadable, or describes another architecture.
        """
        folder = Path(folder)
        raw = _read_json(folder / 'config.json')
        return cls.from_dict(raw, _sam3_config(raw, folder))

    @classmethod
    def from_dict(cls, raw: dict[str, Any], sam3: Sam3Config | None = None) -> ModelConfig:
        """Create a configuration from the contents of config.json and SAM3's configuration (None: SAM3's defaults).

        Raises ModelError if it is not that of an InstructSAM model.
        """
        missing = [key for key in REQUIRED if key not in raw]
        if missing:
            architecture = raw.get('architectures') or raw.get('model_type') or 'an unknown architecture'
            raise ModelError(
                f'config.json is not that of an InstructSAM model: it describes {architecture} and lacks '
                f'{", ".join(missing)}. Give the folder of an InstructSAM checkpoint'
            )
        sam3 = sam3 or Sam3Config()
        encoder, decoder = cast(Any, sam3.detr_encoder_config), cast(Any, sam3.detr_decoder_config)
        num_queries = int(raw['max_seg_nums'])
        decoder.num_queries = num_queries
        bridge_dim = int(raw.get('out_dim', 256))
        if bridge_dim != encoder.hidden_size:
            raise ModelError(
                f'out_dim is {bridge_dim}, but SAM3 works at a width of {encoder.hidden_size}: config.json and the '
                'SAM3 configuration do not belong together'
            )
        tokens = Tokens(image=raw['image_token_id'], **{name: raw[key] for name, key in TOKEN_KEYS.items()})
        try:
            qwen = Qwen3VLConfig.from_dict(copy.deepcopy(raw))  # from_dict modifies its argument
        except (TypeError, ValueError, KeyError) as error:
            raise ModelError(f'config.json does not describe a Qwen3-VL model: {error}') from error
        return cls(qwen, sam3, tokens, num_queries, bridge_dim, raw)


def _sam3_config(raw: dict[str, Any], folder: Path) -> Sam3Config:
    """Read SAM3's configuration from the path in config.json, relative to the checkpoint or the working directory."""
    name = raw.get('mask_decoder_model') or raw.get('mm_mask_decoder') or ''
    for path in (folder / name / 'config.json', Path(name) / 'config.json'):
        if name and path.is_file():
            config = _read_json(path)
            try:
                return Sam3Config(**config.get('detector_config', config))
            except (TypeError, ValueError) as error:
                raise ModelError(f'{path} does not describe a SAM3 model: {error}') from error
    logger.info('mask_decoder_model %r was not found: using the default configuration of SAM3', name)
    return Sam3Config()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise ModelError(f'{path.parent} holds no {path.name}: it is not a model folder') from error
    except (OSError, ValueError) as error:
        raise ModelError(f'{path} cannot be read: {error}') from error
    if not isinstance(content, dict):
        raise ModelError(f'{path} does not hold a JSON object')
    return content
