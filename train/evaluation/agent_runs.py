"""Runs of the agent on a benchmark: its prompts, its entries in the run's header, its conversations and its budget."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from instructsam.core.errors import InstructSAMError
from instructsam.train.engines.agent.options import is_agent, limits, segmenter, vlm_settings
from instructsam.train.engines.agent.prompts import prompts_hash
from instructsam.train.evaluation.benchmarks import Benchmark
from instructsam.train.evaluation.query import Outcome
from instructsam.train.evaluation.running.conversations import ConversationLog
from instructsam.train.evaluation.running.prompting import QueryEngine
from instructsam.train.vlm.budget import Budget, BudgetSettings, Spending
from instructsam.train.vlm.spending import SpendingFile

BARE = '{text}'
"""The agent is asked the text as annotated, without the suffix for models with masks of their own."""


def prompts(args: argparse.Namespace, benchmark: Benchmark) -> dict[str, str]:
    """Return the benchmark's prompt templates by form, those of the agent if it is asked for.

    Raises:
        InstructSAMError: The agent is to be given phrases.
    """
    if not is_agent(args):
        return benchmark.prompts
    if getattr(args, 'own_queries', False) or getattr(args, 'phrase', 'generated') != 'generated':
        raise InstructSAMError('--own-queries and --phrase belong to --engine model: the agent chooses its phrases')
    return dict.fromkeys(benchmark.prompts, BARE)


def model_folder(args: argparse.Namespace) -> Path | None:
    """Return the folder of the weights if they are those of SAM3.

    Raises:
        InstructSAMError: There is no such folder.
    """
    if not is_agent(args) or segmenter(args) != 'sam3':
        return None
    if not args.sam3.is_dir():
        raise InstructSAMError(f'there is no folder {args.sam3}: give the one with the weights of SAM3')
    return args.sam3


def model_name(args: argparse.Namespace) -> str:
    """Return the name of the model with the masks."""
    return str(args.model) if model_folder(args) is None else 'sam3'


def title(args: argparse.Namespace) -> str:
    """Return the name of the system that is measured, for display."""
    return f'agent {args.vlm_model} with {model_name(args)}' if is_agent(args) else str(args.model)


def run_name(args: argparse.Namespace) -> str:
    """Return the name of the system as part of a folder's name."""
    name = f'agent-{Path(args.vlm_model).name}' if is_agent(args) else Path(args.model).name
    return re.sub(r'[^\w.-]', '_', name)[:80]


def header(args: argparse.Namespace) -> dict[str, Any]:
    """Return the agent's entries of the run's header; none without it."""
    if not is_agent(args):
        return {}
    return {
        'engine': 'agent',
        'vlm': vlm_settings(args).header(),
        'vlm_server': args.vlm_server,
        'agent_masks': segmenter(args),
        'limits': asdict(limits(args)),
        'agent_prompts': prompts_hash(),
    }


class AgentRun:
    """The parts of a run that an agent adds in one process: conversations and budget.

    Args:
        args: Options of the command.
        folder: The run's folder.
        header: The run's header.
        rank: Rank of this process.
        processes: Number of processes, among which the rest of the budget is divided.
    """

    def __init__(
        self, args: argparse.Namespace, folder: Path, header: dict[str, Any], rank: int = 0, processes: int = 1
    ) -> None:
        self._args = args
        self._folder = folder
        self._processes = processes
        self._log = ConversationLog(folder, rank, header)
        self._spending = SpendingFile(folder / f'spending-{rank:05d}.json')
        self._budget = Budget()

    def load(self, device: str) -> QueryEngine:
        """Load the agent.

        Raises:
            BudgetSpent: The budget is used up.
            InstructSAMError: The agent cannot be loaded.
        """
        # Runs of a model do without the extra `agent`, whose packages this imports.
        from instructsam.train.engines.agent.loading import load_agent  # noqa: PLC0415

        before = [SpendingFile(file).read() for file in sorted(self._folder.glob('spending-*.json'))]
        limits = self._args.vlm_budget or BudgetSettings()
        total = total_of(before)
        Budget(limits, total).take_call()  # Raises BudgetSpent if there is none left for any process.
        own = replace(self._spending.read(), seconds=total.seconds)
        self._budget = Budget(share_of(limits, total, own, self._processes), own)
        engine = load_agent(self._args, device, self._budget)
        engine.record = self._log.record
        return engine

    def keep(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Yield outcomes while their conversations and the spending are written.

        Raises:
            StorageError: A file cannot be written.
        """
        try:
            for outcome in self._log.keep(outcomes):
                self._spending.save(self._budget)
                yield outcome
        finally:
            self._spending.save(self._budget, now=True)


def total_of(spendings: Sequence[Spending]) -> Spending:
    """Return the sum of what processes have spent; they ran at the same time."""
    return Spending(
        sum(each.calls for each in spendings),
        sum(each.prompt_tokens for each in spendings),
        sum(each.completion_tokens for each in spendings),
        max((each.seconds for each in spendings), default=0.0),
    )


def share_of(limits: BudgetSettings, total: Spending, own: Spending, processes: int) -> BudgetSettings:
    """Return the limits of one process: what it has spent itself, and its share of what the run may still spend.

    Args:
        limits: Those of the run.
        total: Spent by all processes until now, less than the limits.
        own: Spent by this process.
        processes: Number of processes that continue.
    """
    calls, tokens, money = limits.calls, limits.tokens, limits.money
    if calls is not None:
        calls = own.calls + math.ceil((calls - total.calls) / processes)
    if tokens is not None:
        tokens = own.tokens + math.ceil((tokens - total.tokens) / processes)
    if money is not None:
        money = limits.price(own) + (money - limits.price(total)) / processes
    return replace(limits, calls=calls, tokens=tokens, money=money)
