"""Reads the tokenizer of a model folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoTokenizer

from instructsam.core.errors import ModelError
from instructsam.core.model.config import ModelConfig, check_tokenizer_files, read_json
from instructsam.core.model.prompt import Prompter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a model folder, never running code from it.

    Raises ModelError if it is missing or cannot be read.
    """
    folder = Path(folder)
    if not any(os.path.isfile(folder / name) for name in ('tokenizer.json', 'vocab.json')):
        raise ModelError(f'{folder} holds no tokenizer (tokenizer.json)')
    check_tokenizer_files(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # transformers raises many types; a panic of tokenizers is no Exception
        raise ModelError(f'{folder} holds a tokenizer that cannot be read: {error}') from error
    if not getattr(tokenizer, 'is_fast', False):
        raise ModelError(f'{folder} holds a tokenizer of {type(tokenizer).__name__}, expected one with tokenizer.json')
    return tokenizer


def load_prompter(folder: str | Path, config: ModelConfig) -> tuple[Prompter, set[int]]:
    """Return the Prompter of a model folder, and the ids of the tokens that end an answer.

    Raises ModelError if the tokenizer is missing, cannot be read or does not fit `config`.
    """
    folder = Path(folder)
    tokenizer = load_tokenizer(folder)
    stop_ids = [tokenizer.eos_token_id]
    if os.path.lexists(folder / 'generation_config.json'):
        ends = read_json(folder / 'generation_config.json').get('eos_token_id')
        stop_ids += ends if isinstance(ends, list) else [ends]
    stop_ids = [token for token in stop_ids if token is not None]
    if not stop_ids:
        raise ModelError(f'{folder} does not define which token ends an answer (eos_token_id)')
    vocabulary = config.text.vocab_size
    checked: set[int] = set()
    for token in stop_ids:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocabulary:
            raise ModelError(
                f'{folder} ends an answer with eos_token_id {str(token)[:60]}, expected ids from 0 to {vocabulary - 1}'
            )
        checked.add(token)
    return Prompter(tokenizer, config.tokens), checked
