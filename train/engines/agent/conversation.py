"""Record of one conversation: every message, its cost, and masks as run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from instructsam.train.engines.agent.state import Mark
from instructsam.train.vlm.client import Reply


@dataclass
class Conversation:
    """A conversation as it grows."""

    query: str
    exchanges: list[dict[str, Any]] = field(default_factory=list)
    rounds: int = 0
    finish_reason: str = ''
    error: str = ''  # reason why there is no answer
    seconds: float = 0.0

    def add(self, kind: str, sent: str, marks: Sequence[Mark], reply: Reply, **details: Any) -> None:
        """Add an exchange.

        Args:
            kind: 'round' or 'check'.
            sent: Text of the newest message.
            marks: Masks that its image shows.
            reply: The reply.
            details: More, such as the verdict.
        """
        self.exchanges.append(
            {
                'kind': kind,
                'sent': sent,
                'masks': [mark.mask.to_coco() for mark in marks],
                'scores': [round(mark.score, 6) for mark in marks],
                'reply': reply.text,
                'prompt_tokens': reply.prompt_tokens,
                'completion_tokens': reply.completion_tokens,
                'calls': reply.calls,
                'cached': reply.cached,
                **details,
                'seconds': round(reply.seconds, 3),
            }
        )

    def usage(self) -> dict[str, int]:
        """Return the cost in numbers that do not depend on time."""
        names = ('calls', 'prompt_tokens', 'completion_tokens')
        return {
            'rounds': self.rounds,
            'checks': sum(each['kind'] == 'check' for each in self.exchanges),
            **{name: sum(each[name] for each in self.exchanges) for name in names},
            'cached': sum(each['cached'] for each in self.exchanges),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the record, ready for JSON."""
        return {
            'query': self.query,
            'finish_reason': self.finish_reason,
            'error': self.error,
            **self.usage(),
            'exchanges': self.exchanges,
            'seconds': round(self.seconds, 3),
        }
