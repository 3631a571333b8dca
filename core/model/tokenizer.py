"""Reads the tokenizer of a model folder."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig

from instructsam.core.errors import ModelError
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.prompt import Prompter


def load_prompter(folder: str | Path, config: ModelConfig) -> tuple[Prompter, set[int]]:
    """Return the Prompter of a model folder, and the ids of the tokens that end an answer.

    Raises ModelError if the tokenizer is missing, cannot be read or does not fit `config`.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in ('tokenizer.json', 'vocab.json')):
        raise ModelError(f'{folder} holds no tokenizer (tokenizer.json)')
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises exceptions of many types here
        raise ModelError(f'{folder} holds a tokenizer that cannot be read: {error}') from error
    stop_ids = {tokenizer.eos_token_id}
    if (folder / 'generation_config.json').is_file():
        ends = GenerationConfig.from_pretrained(folder).eos_token_id
        stop_ids.update(ends if isinstance(ends, list) else [ends])
    stop_ids.discard(None)
    if not stop_ids:
        raise ModelError(f'{folder} does not define which token ends an answer (eos_token_id)')
    return Prompter(tokenizer, config.tokens), stop_ids
