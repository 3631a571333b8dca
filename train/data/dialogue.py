"""Writes a sample's questions and answers as a token sequence with labels, in the chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from instructsam.core.errors import ModelError
from instructsam.core.model.chat_template import render_chat_template
from instructsam.core.model.token_layout import TokenLayout
from instructsam.train.data.sample import Sample, Turn
from instructsam.train.modes import AUTOREGRESSIVE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from instructsam.core.model.prompt import Prompter

IGNORED = -100
"""Label of a token that is not supervised."""

_PLACEHOLDERS = tuple(f'\u2063part {index}\u2063' for index in range(4))


class Dialogue:
    """Turns a sample's questions and answers into token ids of the chat template; questions are plain text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompter: Prompter, mode: str = 'consistent'):
        """Render the chat template once and keep the tokens between its texts.

        Args:
            tokenizer: A fast tokenizer with a chat template.
            prompter: core's Prompter on the same tokenizer.
            mode: consistent, causal, or autoregressive (ablation): the answer itself has a `[SEG]` for each instance.
        """
        self.prompter = prompter
        self.mode = mode
        question, answer, next_question, last_answer = _PLACEHOLDERS
        messages: list[dict[str, Any]] = [
            {'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': question}]},
            {'role': 'assistant', 'content': [{'type': 'text', 'text': answer}]},
            {'role': 'user', 'content': [{'type': 'text', 'text': next_question}]},
            {'role': 'assistant', 'content': [{'type': 'text', 'text': last_answer}]},
        ]
        rendered = render_chat_template(tokenizer, messages)
        between = []
        for placeholder in _PLACEHOLDERS:
            before, found, rendered = rendered.partition(placeholder)
            if not found:
                raise ModelError('the chat template drops or reorders messages: it is not that of Qwen3-VL')
            between.append(prompter.special_ids(before))
        self.to_answer = between[1]  # <|im_end|> and the start of the assistant's turn
        self.to_question = between[2]  # <|im_end|> and the start of the user's turn
        self.end = prompter.special_ids(rendered)  # <|im_end|> and the text after it

    def write(self, sample: Sample, num_queries: int, rows: int, columns: int, *, branches: bool = False) -> Script:
        """Return the token sequence of a sample, with labels and query blocks.

        The answers, `<|mask_start|>` and the end of each answer are supervised unless the answer is given; queries and
        `<|mask_end|>` are supervised only where the model writes them itself (autoregressive).

        Args:
            sample: The sample; its image is not needed.
            num_queries: K, the number of query tokens of a phrase.
            rows: Rows of image tokens.
            columns: Columns of image tokens.
            branches: Write each turn as a first turn: it sees only the image and itself.
        """
        has_bank = self.mode != AUTOREGRESSIVE
        layout = TokenLayout(self.prompter.tokens, num_queries, self.mode if has_bank else 'consistent')
        script = Script(layout, [], [], [], has_bank)
        script.add(self.prompter.before_image)
        layout.add_image(rows, columns)
        script.pad_labels()
        script.add(self.prompter.after_image)
        for index, turn in enumerate(sample.turns):
            if branches:
                layout.start_branch()
            script.add(self.prompter.plain_ids(turn.question) + self.to_answer)
            self._write_answer(script, turn)
            # The token that ends the answer is supervised; the line break after it belongs to the template.
            is_followed = index + 1 < len(sample.turns) and not branches
            following = self.to_question if is_followed else self.end
            script.add(following[:1], supervised=turn.is_supervised)
            script.add(following[1:])
        return script

    def _write_answer(self, script: Script, turn: Turn) -> None:
        tokens = self.prompter.tokens
        if not turn.phrases:
            script.add(self.prompter.plain_ids(turn.text), supervised=turn.is_supervised)
        for index, (phrase, target) in enumerate(zip(turn.phrases, turn.targets, strict=True)):
            if index:
                script.add(self.prompter.plain_ids(', '), supervised=turn.is_supervised)
            ids = self.prompter.plain_ids(phrase)
            script.shorter_ids.append([self.prompter.plain_ids(text) for text in turn.shorter_forms(index)])
            script.partial.append(turn.is_partial(index))
            script.add([tokens.phrase_start, *ids], supervised=turn.is_supervised)
            if script.has_bank:
                script.add_query_block(ids, supervised=turn.is_supervised)
            else:
                script.add_mask_tokens(ids, len(target), supervised=turn.is_supervised)


@dataclass
class Script:
    """The token sequence of one sample with its labels."""

    layout: TokenLayout
    labels: list[int]  # one label per token; IGNORED where nothing is supervised
    blocks: list[slice]  # rows of the queries of every phrase
    phrase_ids: list[list[int]]  # token ids that condition SAM3, without tags, one list per phrase
    has_bank: bool = True  # the queries are those of the query bank, not tokens
    shorter_ids: list[list[list[int]]] = field(default_factory=list)  # the same of the shorter forms of each phrase
    partial: list[bool] = field(default_factory=list)  # per phrase, whether it may describe more than its targets

    def add(self, ids: Sequence[int], *, supervised: bool = False) -> None:
        """Append text tokens."""
        self.layout.add_text(ids)
        self.labels += list(ids) if supervised else [IGNORED] * len(ids)

    def pad_labels(self) -> None:
        """Add IGNORED labels for rows that were appended to the layout alone."""
        self.labels += [IGNORED] * (len(self.layout) - len(self.labels))

    def add_query_block(self, phrase_ids: list[int], *, supervised: bool) -> None:
        """Append the end of a phrase and the block of its K queries from the query bank."""
        tokens = self.layout.tokens
        self.blocks.append(self.layout.add_query_block())
        self.phrase_ids.append(phrase_ids)
        self.labels += [tokens.phrase_end, tokens.mask_start] if supervised else [IGNORED] * 2
        self.pad_labels()

    def add_mask_tokens(self, phrase_ids: list[int], count: int, *, supervised: bool) -> None:
        """Append the end of a phrase with `count` mask tokens that the model has to write itself."""
        tokens = self.layout.tokens
        self.add([tokens.phrase_end, tokens.mask_start], supervised=supervised)
        self.blocks.append(slice(len(self.layout), len(self.layout) + count))
        self.phrase_ids.append(phrase_ids)
        self.add([*[tokens.query] * count, tokens.mask_end], supervised=supervised)
