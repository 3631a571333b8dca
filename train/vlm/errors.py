"""Errors of a vision-language model's endpoint. No message contains the API key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instructsam.core.errors import InstructSAMError

if TYPE_CHECKING:
    from instructsam.train.vlm.client import Reply


class VlmError(InstructSAMError):
    """The endpoint gave no usable reply.

    Attributes:
        is_final: Every other request would fail in the same way, so that a run should end rather than continue.
    """

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class VlmUnreachable(VlmError):  # noqa: N818 (its base class has the suffix)
    """There is no server at the address, or it cannot be reached."""


class VlmRefused(VlmError):  # noqa: N818
    """The server refuses the request: the key, the name of the model, or the request itself."""


class VlmBusy(VlmError):  # noqa: N818
    """The server has too much to do, is too slow or has an error of its own, also after all tries."""


class BadReply(VlmError):  # noqa: N818
    """The reply is cut off, is not a chat completion, or does not have the form that was asked for."""


class WrongForm(BadReply):
    """The reply is complete, but its text is not of the form that was asked for."""


class EmptyReply(BadReply):
    """The reply is a chat completion without text.

    A server that moves the reasoning of a model out of the text leaves none if the limit of tokens ends the reasoning.

    Attributes:
        reply: The reply, with what it has cost.
    """

    def __init__(self, message: str, reply: Reply) -> None:
        super().__init__(message)
        self.reply = reply
