"""Budget of a run in calls, tokens and money, shared by all threads that ask."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from instructsam.core.errors import InstructSAMError


class BudgetSpent(InstructSAMError):  # noqa: N818
    """The budget is used up; the message says which part, and with which limit."""


@dataclass(frozen=True)
class Spending:
    """Calls and tokens that were paid for."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of both kinds."""
        return self.prompt_tokens + self.completion_tokens


class Budget:
    """Limits of calls, tokens and money; None is no limit.

    A call is taken before it is made, so that any number of threads makes no call too many. Its tokens are known
    afterwards only: the calls that are under way when the limit is reached may exceed it.

    Args:
        calls: Most calls, tries that failed included.
        tokens: Most tokens of prompts and replies.
        money: Largest sum, in the unit of the prices.
        prompt_price: Price of a million tokens of prompts.
        completion_price: Price of a million tokens of replies.
        spent: Already spent, by an earlier part of the run.
    """

    def __init__(
        self,
        calls: int | None = None,
        tokens: int | None = None,
        money: float | None = None,
        *,
        prompt_price: float = 0.0,
        completion_price: float = 0.0,
        spent: Spending = Spending(),
    ) -> None:
        if money is not None and not prompt_price and not completion_price:
            raise InstructSAMError('a budget in money needs the prices of a million tokens, of prompts or of replies')
        self.calls, self.tokens, self.money_limit = calls, tokens, money
        self.prompt_price, self.completion_price = prompt_price, completion_price
        self._spent = spent
        self._lock = threading.Lock()

    @property
    def spent(self) -> Spending:
        """Everything spent until now."""
        with self._lock:
            return self._spent

    @property
    def money(self) -> float:
        """The sum spent until now."""
        return self._price(self.spent)

    def take_call(self) -> None:
        """Take one call. Raises BudgetSpent if none is left, or if the tokens or the money are used up."""
        with self._lock:
            spent = self._spent
            if self.calls is not None and spent.calls >= self.calls:
                raise BudgetSpent(f'the budget of {self.calls:,} calls is used up: raise it to go on')
            if self.tokens is not None and spent.tokens >= self.tokens:
                raise BudgetSpent(f'the budget of {self.tokens:,} tokens is used up ({spent.tokens:,}): raise it')
            if self.money_limit is not None and self._price(spent) >= self.money_limit:
                raise BudgetSpent(f'the budget of {self.money_limit:g} in money is used up: raise it to go on')
            self._spent = Spending(spent.calls + 1, spent.prompt_tokens, spent.completion_tokens)

    def add(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Add the tokens of a call that was taken."""
        with self._lock:
            spent = self._spent
            self._spent = Spending(
                spent.calls, spent.prompt_tokens + prompt_tokens, spent.completion_tokens + completion_tokens
            )

    def _price(self, spent: Spending) -> float:
        return (spent.prompt_tokens * self.prompt_price + spent.completion_tokens * self.completion_price) / 1e6
