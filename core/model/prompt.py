"""Text to token ids and back: the chat turn around an instruction, answers with their phrases.

What a user types is tokenised by a tokenizer that knows no special tokens, so that it can never become one.
"""

import json
import unicodedata

from tokenizers import Tokenizer

from instructsam.core.errors import InstructionError, ModelError

MAX_INSTRUCTION_CHARS = 2000
_USER_TEXT = '\u2063user text\u2063'  # stands for the instruction while the chat template is rendered


def check_instruction(text):
    """Returns `text` stripped, with line breaks and tabs as spaces.

    Raises InstructionError if it is empty, over 2,000 characters, or holds control characters or broken Unicode.
    """
    if not isinstance(text, str):
        raise InstructionError(f'an instruction is text, got {type(text).__name__}')
    if len(text) > MAX_INSTRUCTION_CHARS:
        raise InstructionError(
            f'the instruction has {len(text):,} characters, at most {MAX_INSTRUCTION_CHARS:,} are taken. Shorten it'
        )
    text = ' '.join(text.split())
    if not text:
        raise InstructionError('the instruction is empty. Say what to look for, e.g. "the red mug"')
    for character in text:
        kind = unicodedata.category(character)
        if kind == 'Cs':
            raise InstructionError('the instruction is not valid Unicode (a broken UTF-8 sequence?). Send UTF-8 text')
        if kind == 'Cc':
            raise InstructionError(f'the instruction holds the control character U+{ord(character):04X}. Remove it')
    return text


class Prompter:
    """Holds a checkpoint's tokenizer and chat template; immutable and shared between threads."""

    def __init__(self, tokenizer, tokens):
        """tokenizer: transformers' fast tokenizer with a chat template; tokens: config.Tokens."""
        self.tokens = tokens
        self._tokenizer = tokenizer.backend_tokenizer
        for name, token in vars(tokens).items():
            if self._tokenizer.id_to_token(token) is None:
                raise ModelError(f'config.json puts "{name}" at token id {token}, which the tokenizer does not have')
        if not tokenizer.chat_template:
            raise ModelError('the tokenizer has no chat template: chat_template.jinja is missing in the model folder')
        plain = json.loads(self._tokenizer.to_str())
        plain['added_tokens'] = []
        plain['post_processor'] = None
        self._plain_tokenizer = Tokenizer.from_str(json.dumps(plain))

        content = [{'type': 'image'}, {'type': 'text', 'text': _USER_TEXT}]
        turn = tokenizer.apply_chat_template(
            [{'role': 'user', 'content': content}], tokenize=False, add_generation_prompt=True
        )
        before, found, after = turn.partition(_USER_TEXT)
        head = self.special_ids(before)
        if not found or head.count(tokens.image) != 1:
            raise ModelError('the chat template does not put one image before the text: not that of Qwen3-VL')
        image = head.index(tokens.image)
        self.before_image = head[:image]  # ... <|vision_start|>
        self.after_image = head[image + 1 :]  # <|vision_end|>
        self._after_text = self.special_ids(after)  # <|im_end|>, the assistant's turn

    def special_ids(self, text):
        """Ids of text that we wrote: special tokens in it are special."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def plain_ids(self, text):
        """Ids of anybody's text: whatever it holds, no special token."""
        return self._plain_tokenizer.encode(text, add_special_tokens=False).ids

    def instruction_ids(self, instruction):
        """Ids of the user's plain text and of all that follows it up to the answer."""
        return self.plain_ids(instruction) + self._after_text

    def answer_ids(self, answer):
        """Ids of an answer in the model's own notation, `<|object_ref_start|>phrase<|object_ref_end|>...`.

        The block `<|mask_start|>[SEG]...<|mask_end|>` behind a phrase may be there or not: it is the query bank's
        place and always put in by the decoder.
        """
        block = (self.tokens.mask_start, self.tokens.query, self.tokens.mask_end)
        return [token for token in self.special_ids(answer) if token not in block]

    def phrases_answer_ids(self, phrases):
        """Ids of an answer that names `phrases`, each of them plain text whatever it holds."""
        ids = []
        for phrase in phrases:
            if ids:
                ids += self.plain_ids(', ')
            ids += [self.tokens.phrase_start, *self.plain_ids(check_instruction(phrase)), self.tokens.phrase_end]
        return ids

    def text(self, ids):
        """Plain text of `ids`; all special tokens left out."""
        special = set(vars(self.tokens).values())
        return self._tokenizer.decode([i for i in ids if i not in special], skip_special_tokens=True).strip()
