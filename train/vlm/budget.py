"""Budget of a run in calls, tokens, money and seconds, shared by all threads that ask."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from instructsam.core.errors import InstructSAMError


class BudgetSpent(InstructSAMError):  # noqa: N818
    """The budget is used up; the message says which part, and with which limit."""


@dataclass(frozen=True)
class BudgetSettings:
    """Limits of all that a run spends, over all of its parts; None is no limit.

    Raises:
        ValueError: A limit or a price is out of range.
    """

    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None  # in which the run was running
    money: float | None = None  # in the unit of the prices
    prompt_price: float = 0.0  # of a million tokens of prompts
    completion_price: float = 0.0  # of a million tokens of replies

    def __post_init__(self) -> None:
        for name in ('calls', 'tokens', 'seconds', 'money'):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f'{name} of the budget must be above 0, got {value}')
        for name in ('prompt_price', 'completion_price'):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f'{name} of the budget must be 0 or more, got {getattr(self, name)}')
        if self.money is not None and not self.prompt_price and not self.completion_price:
            raise ValueError('a budget in money needs prompt_price or completion_price, of a million tokens')

    def price(self, spent: Spending) -> float:
        """Return the sum that calls have cost."""
        return (spent.prompt_tokens * self.prompt_price + spent.completion_tokens * self.completion_price) / 1e6


@dataclass(frozen=True)
class Spending:
    """Calls and tokens that were paid for, and the time of the run."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of both kinds."""
        return self.prompt_tokens + self.completion_tokens


class Budget:
    """Limits of a run, and its spending until now.

    A call is taken before it is made, so that any number of threads makes no call too many. Its tokens are known
    afterwards only: the calls that are under way when the limit is reached may exceed it.

    Args:
        limits: The limits; calls include tries that failed.
        spent: Already spent, by an earlier part of the run.
        clock: Monotonic time, s.
    """

    def __init__(
        self,
        limits: BudgetSettings = BudgetSettings(),
        spent: Spending = Spending(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self._spent = spent
        self._clock = clock
        self._start = clock()
        self._lock = threading.Lock()

    @property
    def spent(self) -> Spending:
        """Everything spent until now."""
        with self._lock:
            return replace(self._spent, seconds=round(self._seconds(), 3))

    @property
    def money(self) -> float:
        """The sum spent until now."""
        return self.limits.price(self.spent)

    def take_call(self) -> None:
        """Take one call. Raises BudgetSpent if none is left, or if the tokens, the money or the time are used up."""
        limits = self.limits
        with self._lock:
            spent = self._spent
            if limits.calls is not None and spent.calls >= limits.calls:
                raise BudgetSpent(f'the budget of {limits.calls:,} calls is used up: raise it to continue')
            if limits.tokens is not None and spent.tokens >= limits.tokens:
                raise BudgetSpent(f'the budget of {limits.tokens:,} tokens is used up ({spent.tokens:,}): raise it')
            if limits.money is not None and limits.price(spent) >= limits.money:
                raise BudgetSpent(f'the budget of {limits.money:g} in money is used up: raise it to continue')
            if limits.seconds is not None and self._seconds() >= limits.seconds:
                raise BudgetSpent(f'the budget of {limits.seconds:g} seconds is used up: raise it to continue')
            self._spent = replace(spent, calls=spent.calls + 1)

    def add(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Add the tokens of a call that was taken."""
        with self._lock:
            spent = self._spent
            self._spent = replace(
                spent,
                prompt_tokens=spent.prompt_tokens + prompt_tokens,
                completion_tokens=spent.completion_tokens + completion_tokens,
            )

    def _seconds(self) -> float:
        return self._spent.seconds + self._clock() - self._start
