"""Messages of a chat with images, and their form in OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from instructsam.core.display.jpeg import jpeg_url

Role = Literal['system', 'user', 'assistant']


@dataclass(frozen=True)
class TextPart:
    """A text in a message."""

    text: str


@dataclass(frozen=True, eq=False)
class ImagePart:
    """An image in a message, [H, W, 3] uint8 RGB."""

    image: np.ndarray


Part = TextPart | ImagePart


@dataclass(frozen=True)
class Message:
    """One message: who says it, and texts and images in order."""

    role: Role
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, role: Role, *parts: str | np.ndarray) -> Message:
        """Return a message of texts and images [H, W, 3] uint8 RGB."""
        return cls(role, tuple(TextPart(part) if isinstance(part, str) else ImagePart(part) for part in parts))

    @property
    def text(self) -> str:
        """The texts of the message, one per line."""
        return '\n'.join(part.text for part in self.parts if isinstance(part, TextPart))


def to_wire(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return messages as chat completions take them, ready for JSON.

    A message of one text is a string, which every chat template takes. An image is a data URL with a JPEG file, the
    same bytes for the same pixels.

    Raises:
        ImageError: An image is not [H, W, 3] uint8, or too large for a JPEG.
    """
    return [{'role': message.role, 'content': _content(message)} for message in messages]


def _content(message: Message) -> str | list[dict[str, Any]]:
    if len(message.parts) == 1 and isinstance(message.parts[0], TextPart):
        return _clean(message.parts[0].text)
    return [_part(part) for part in message.parts]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {'type': 'text', 'text': _clean(part.text)}
    return {'type': 'image_url', 'image_url': {'url': jpeg_url(part.image)}}


def _clean(text: str) -> str:
    """Return the text with '?' for lone surrogates, which JSON in UTF-8 cannot hold."""
    return text.encode('utf-8', 'replace').decode('utf-8')
