"""Samples as token sequences with labels, and batches of them: what one training step reads."""

from dataclasses import dataclass

import torch

from instructsam.core.model.token_layout import TokenLayout
from instructsam.train.modes import AUTOREGRESSIVE

IGNORED = -100  # label of a token that is not supervised
_PARTS = tuple(f'\u2063part {index}\u2063' for index in range(4))


class Dialogue:
    """Turns a sample's questions and answers into ids around the chat template; questions are plain text."""

    def __init__(self, tokenizer, prompter, mode='consistent'):
        """tokenizer: transformers' fast tokenizer with a chat template; prompter: core's Prompter on the same; mode:
        consistent, causal, or autoregressive: the answer itself has a `[SEG]` for each instance (ablation).
        """
        self.prompter = prompter
        self.mode = mode
        ask, answer, again, end = _PARTS
        rendered = tokenizer.apply_chat_template(
            [
                {'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': ask}]},
                {'role': 'assistant', 'content': [{'type': 'text', 'text': answer}]},
                {'role': 'user', 'content': [{'type': 'text', 'text': again}]},
                {'role': 'assistant', 'content': [{'type': 'text', 'text': end}]},
            ],
            tokenize=False,
        )
        pieces = []
        for part in _PARTS:
            before, _, rendered = rendered.partition(part)
            pieces.append(prompter.special_ids(before))
        self.to_answer = pieces[1]  # <|im_end|>, the assistant's turn
        self.to_question = pieces[2]  # <|im_end|>, the user's turn
        self.end = prompter.special_ids(rendered)  # <|im_end|> and what follows it

    def write(self, sample, num_queries, rows, columns, branches=False):
        """The TokenLayout of a sample with an image of rows x columns tokens, its labels and its query blocks.

        Supervised: the answers, `<|mask_start|>` and what ends an answer; queries and `<|mask_end|>` only where the
        model writes them itself (autoregressive). With `branches`, each turn is a first turn: it sees the image and
        itself alone. Returns a Script.
        """
        has_bank = self.mode != AUTOREGRESSIVE
        layout = TokenLayout(self.prompter.tokens, num_queries, self.mode if has_bank else 'consistent')
        script = Script(layout, [], [], [], has_bank)
        script.add(self.prompter.before_image)
        layout.add_image(rows, columns)
        script.catch_up()
        script.add(self.prompter.after_image)
        for index, turn in enumerate(sample.turns):
            if branches:
                layout.start_branch()
            script.add(self.prompter.plain_ids(turn.question) + self.to_answer)
            self._write_answer(script, turn)
            # what ends the answer is supervised; the line break behind it is the template's
            goes_on = index + 1 < len(sample.turns) and not branches
            following = self.to_question if goes_on else self.end
            script.add(following[:1], supervised=True)
            script.add(following[1:])
        return script

    def _write_answer(self, script, turn):
        tokens = self.prompter.tokens
        if not turn.phrases:
            script.add(self.prompter.plain_ids(turn.text), supervised=True)
        for index, (phrase, target) in enumerate(zip(turn.phrases, turn.targets, strict=True)):
            if index:
                script.add(self.prompter.plain_ids(', '), supervised=True)
            ids = self.prompter.plain_ids(phrase)
            script.add([tokens.phrase_start, *ids], supervised=True)
            if script.has_bank:
                script.add_block(ids)
            else:
                script.add_mask_tokens(ids, len(target))


@dataclass
class Script:
    """One sample as it goes into the language model."""

    layout: TokenLayout
    labels: list[int]  # a row each; IGNORED where nothing is supervised
    blocks: list[slice]  # rows of the queries of every phrase
    phrase_ids: list[list[int]]  # what conditions SAM3, without tags
    has_bank: bool = True  # the queries are the query bank's, not tokens

    def add(self, ids, supervised=False):
        self.layout.add_text(ids)
        self.labels += list(ids) if supervised else [IGNORED] * len(ids)

    def catch_up(self):
        """Rows that were added to the layout alone are not supervised."""
        self.labels += [IGNORED] * (len(self.layout) - len(self.labels))

    def add_block(self, phrase_ids):
        tokens = self.layout.tokens
        self.blocks.append(self.layout.add_query_block())
        self.phrase_ids.append(phrase_ids)
        self.labels += [tokens.phrase_end, tokens.mask_start]
        self.catch_up()

    def add_mask_tokens(self, phrase_ids, count):
        """The end of a phrase with `count` mask tokens that the model is to write itself."""
        tokens = self.layout.tokens
        self.add([tokens.phrase_end, tokens.mask_start], supervised=True)
        self.blocks.append(slice(len(self.layout), len(self.layout) + count))
        self.phrase_ids.append(phrase_ids)
        self.add([*[tokens.query] * count, tokens.mask_end], supervised=True)


@dataclass
class TextBatch:
    """B scripts, padded on the right to L rows. Padding sees itself and the rows before it, and nothing sees it."""

    ids: torch.Tensor  # [B, L]
    labels: torch.Tensor  # [B, L]
    positions: torch.Tensor  # [3, B, L]
    mask: torch.Tensor  # [B, 1, L, L] bool, true where a row may look
    is_image: torch.Tensor  # [B, L] bool
    blocks: list[tuple[int, slice]]  # (sample, rows of its queries) of every phrase of the batch
    phrase_ids: list[list[int]]
    has_bank: bool = True  # the query bank is put in at the blocks


def batch_scripts(scripts, pad_id):
    """Scripts as one TextBatch."""
    length = max(len(script.layout) for script in scripts)
    count = len(scripts)
    batch = TextBatch(
        ids=torch.full((count, length), pad_id),
        labels=torch.full((count, length), IGNORED),
        positions=torch.ones(3, count, length, dtype=torch.int64),
        mask=torch.zeros(count, 1, length, length, dtype=torch.bool),
        is_image=torch.zeros(count, length, dtype=torch.bool),
        blocks=[(index, rows) for index, script in enumerate(scripts) for rows in script.blocks],
        phrase_ids=[ids for script in scripts for ids in script.phrase_ids],
        has_bank=all(script.has_bank for script in scripts),
    )
    for index, script in enumerate(scripts):
        size = len(script.layout)
        ids = torch.tensor(script.layout.ids)
        batch.ids[index, :size] = ids
        batch.labels[index, :size] = torch.tensor(script.labels)
        batch.positions[:, index, :size] = script.layout.position_ids()
        batch.mask[index, 0, :size, :size] = script.layout.attention_mask()
        batch.mask[index, 0, size:, :size] = True  # a row that sees nothing would be NaN
        batch.is_image[index, :size] = ids == script.layout.tokens.image
    return batch
