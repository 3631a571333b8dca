"""Conversion between text and token ids: the chat message around an instruction, and answers with their phrases.

Text from a user is tokenized by a tokenizer that knows no special tokens, so that it can never produce one.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from instructsam.core.errors import InstructionError, ModelError
from instructsam.core.model.chat_template import render_chat_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from instructsam.core.model.config import Tokens

MAX_INSTRUCTION_CHARS = 2000
_USER_TEXT = '\u2063user text\u2063'  # placeholder for the instruction while the chat template is rendered


def check_instruction(text: object) -> str:
    """Return `text` stripped, with line breaks and tabs replaced by spaces.

    Raises InstructionError if it is empty, longer than 2,000 characters, or holds control characters or broken
    Unicode.
    """
    if not isinstance(text, str):
        raise InstructionError(f'an instruction is text, got {type(text).__name__}')
    if len(text) > MAX_INSTRUCTION_CHARS:
        raise InstructionError(
            f'the instruction has {len(text):,} characters, at most {MAX_INSTRUCTION_CHARS:,} are allowed. Shorten it'
        )
    text = ' '.join(text.split())
    if not text:
        raise InstructionError('the instruction is empty. Say what to look for, e.g. "the red mug"')
    for character in text:
        category = unicodedata.category(character)
        if category == 'Cs':
            raise InstructionError('the instruction is not valid Unicode (a broken UTF-8 sequence?). Send UTF-8 text')
        if category == 'Cc':
            raise InstructionError(f'the instruction holds the control character U+{ord(character):04X}. Remove it')
    return text


class Prompter:
    """Tokenizer and chat template of a checkpoint. Immutable; threads may share it.

    Attributes:
        tokens: Ids of the tokens that structure an answer.
        before_image: Ids of the prompt before the image tokens; the last is `<|vision_start|>`.
        after_image: Ids between the image tokens and the instruction: `<|vision_end|>`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tokens: Tokens):
        """Check the tokenizer and split the chat template around the image and the instruction.

        Args:
            tokenizer: A fast tokenizer of transformers with a chat template.
            tokens: Ids from the checkpoint's configuration.

        Raises:
            ModelError: The tokenizer does not know the tokens, or its chat template is not that of Qwen3-VL.
        """
        self.tokens = tokens
        self._tokenizer: Tokenizer = tokenizer.backend_tokenizer
        for name, token in vars(tokens).items():
            if self._tokenizer.id_to_token(token) is None:
                raise ModelError(f'config.json puts "{name}" at token id {token}, which the tokenizer does not have')
        plain = json.loads(self._tokenizer.to_str())
        plain['added_tokens'] = []
        plain['post_processor'] = None
        try:
            self._plain_tokenizer = Tokenizer.from_str(json.dumps(plain))
        except Exception as error:  # The class that tokenizers raises.
            raise ModelError(f'the vocabulary of the tokenizer contradicts itself: {error}') from error

        content = [{'type': 'image'}, {'type': 'text', 'text': _USER_TEXT}]
        messages = [{'role': 'user', 'content': content}]
        prompt = render_chat_template(tokenizer, messages, add_generation_prompt=True)
        before, found, after = prompt.partition(_USER_TEXT)
        head = self.special_ids(before)
        if not found or head.count(tokens.image) != 1:
            raise ModelError('the chat template does not put one image before the text: it is not that of Qwen3-VL')
        image = head.index(tokens.image)
        self.before_image = head[:image]
        self.after_image = head[image + 1 :]
        self._after_text = self.special_ids(after)  # <|im_end|> and the start of the assistant's message

    def special_ids(self, text: str) -> list[int]:
        """Return the token ids of trusted text, in which special tokens are special."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def plain_ids(self, text: str) -> list[int]:
        """Return the token ids of untrusted text; it can never produce a special token."""
        return self._plain_tokenizer.encode(text, add_special_tokens=False).ids

    def instruction_ids(self, instruction: str) -> list[int]:
        """Return the token ids of the user's plain text and of everything between it and the answer."""
        return self.plain_ids(instruction) + self._after_text

    def answer_ids(self, answer: str) -> list[int]:
        """Return the token ids of an answer in the model's notation, `<|object_ref_start|>phrase<|object_ref_end|>...`.

        The block `<|mask_start|>[SEG]...<|mask_end|>` after a phrase is optional in `answer` and is dropped here,
        because `TokenSequence.add_answer` inserts the query block itself.
        """
        block = (self.tokens.mask_start, self.tokens.query, self.tokens.mask_end)
        return [token for token in self.special_ids(answer) if token not in block]

    def phrases_answer_ids(self, phrases: Iterable[str]) -> list[int]:
        """Return the token ids of an answer that names `phrases`; special tokens in a phrase are plain text.

        Raises InstructionError for an unusable phrase, see `check_instruction`.
        """
        ids: list[int] = []
        for phrase in phrases:
            if ids:
                ids += self.plain_ids(', ')
            ids += [self.tokens.phrase_start, *self.plain_ids(check_instruction(phrase)), self.tokens.phrase_end]
        return ids

    def text(self, ids: Iterable[int]) -> str:
        """Return the text of `ids` without special tokens."""
        special = set(vars(self.tokens).values())
        return self._tokenizer.decode([i for i in ids if i not in special], skip_special_tokens=True).strip()
