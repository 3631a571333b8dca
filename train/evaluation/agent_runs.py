"""Runs of the agent on a benchmark: its prompts, its entries in the run's header, and its conversations."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from instructsam.core.errors import InstructSAMError
from instructsam.train.engines.agent.options import is_agent, limits, segmenter, vlm_settings
from instructsam.train.engines.agent.prompts import prompts_hash
from instructsam.train.evaluation.benchmarks import Benchmark
from instructsam.train.evaluation.query import Outcome
from instructsam.train.evaluation.running.conversations import ConversationLog
from instructsam.train.evaluation.running.prompting import QueryEngine

BARE = '{text}'
"""The agent is asked the text as annotated, without the suffix for models with masks of their own."""

Track = Callable[[Iterable[Outcome], int], Iterable[Outcome]]


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


def load(args: argparse.Namespace, device: str) -> QueryEngine:
    """Load the agent. Raises InstructSAMError."""
    # Runs of a model do without the extra `agent`, whose packages this imports.
    from instructsam.train.engines.agent.loading import load_agent  # noqa: PLC0415

    return load_agent(args, device)


def with_conversations(
    load: Callable[[], QueryEngine], track: Track, log: ConversationLog
) -> tuple[Callable[[], QueryEngine], Track]:
    """Return `load` and `track` of an agent's run such that its conversations are logged."""

    def load_and_record() -> QueryEngine:
        engine: Any = load()
        engine.record = log.record
        return engine

    def track_and_keep(outcomes: Iterable[Outcome], num_images: int) -> Iterable[Outcome]:
        return log.keep(track(outcomes, num_images))

    return load_and_record, track_and_keep
