"""Asking a VLM about the image of a row: the picture that is sent, one repair of a bad reply, and the costs."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import pydantic

from instructsam.core.display.jpeg import shrink_to
from instructsam.core.text import shorten
from instructsam.train.data_engine.rows import EngineImage, StageRecord
from instructsam.train.vlm.chat import Message
from instructsam.train.vlm.client import Reply
from instructsam.train.vlm.errors import BadReply, EmptyReply, VlmBusy, WrongForm

Form = TypeVar('Form', bound=pydantic.BaseModel)


class Client(Protocol):
    """The part of `train.vlm.client.VlmClient` that the stages use."""

    async def ask(self, messages: Sequence[Message], schema: type[pydantic.BaseModel] | None = None) -> Reply:
        """Return the reply to a chat, with its object of `schema`."""
        ...


@dataclass
class Costs:
    """Replies that the stage of a row was given, and their tokens; replies that could not be used are not counted."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, reply: Reply) -> None:
        """Count a reply."""
        self.calls += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens

    def record(self, stage: str, model: str, prompts: str, seconds: float) -> StageRecord:
        """Return the record of a stage with these costs."""
        return StageRecord(stage, model, prompts, self.calls, self.prompt_tokens, self.completion_tokens, seconds)


async def ask(client: Client, messages: Sequence[Message], form: type[Form], costs: Costs) -> Form:
    """Return the reply to a chat as an object of `form`; a reply of another form is repaired once.

    The repair is one more call, which quotes the error.

    Raises:
        BadReply: The repaired reply is not of the form either.
        VlmError: There is no reply.
        BudgetSpent: The budget is used up.
    """
    try:
        reply = await _ask(client, messages, form)
    except BadReply as error:
        repair = (
            f'Your last reply could not be used: {shorten(error, 600)}. Reply again to the same request, with one JSON '
            f'object of the schema and nothing else.'
        )
        reply = await _ask(client, [*messages, Message.of('user', repair)], form)
    costs.add(reply)
    assert isinstance(reply.value, form)
    return reply.value


async def _ask(client: Client, messages: Sequence[Message], form: type[pydantic.BaseModel]) -> Reply:
    """Return a reply. Raises BadReply for what the model wrote only, not for a server that cuts or replaces replies."""
    try:
        return await client.ask(messages, form)
    except (WrongForm, EmptyReply):
        raise
    except BadReply as error:
        raise VlmBusy(str(error)) from error


def prompt_hash(*parts: str | type[pydantic.BaseModel]) -> str:
    """Return the first 16 digits of the SHA-256 of prompts and of the schemas of replies."""
    texts = [part if isinstance(part, str) else json.dumps(part.model_json_schema(), sort_keys=True) for part in parts]
    return hashlib.sha256('\0'.join(texts).encode()).hexdigest()[:16]


def check_max_side(max_side: int) -> None:
    """Raise ValueError for a longer side of pictures, px, that is out of range."""
    if not 64 <= max_side <= 8192:
        raise ValueError(f'max_side must be from 64 to 8192, got {max_side}')


class PictureReader:
    """Reads the picture of a row's image as it is sent to the VLM.

    Args:
        read: Returns the picture of a row's image, [H, W, 3] uint8 RGB.
        max_side: Longer side of what is sent, px.
    """

    def __init__(self, read: Callable[[EngineImage], np.ndarray], max_side: int) -> None:
        self._read = read
        self._max_side = max_side

    async def __call__(self, image: EngineImage) -> np.ndarray:
        """Return the picture, read in a thread. Raises InstructSAMError if it cannot be read."""
        return await asyncio.to_thread(lambda: shrink_to(self._read(image), self._max_side))
