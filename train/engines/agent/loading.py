"""The agent that a command line asks for."""

from __future__ import annotations

import argparse

from instructsam.core.commands.options import load_model
from instructsam.train.engines.agent.backends import ConceptBackend, PhraseBackend, Sam3Backend
from instructsam.train.engines.agent.engine import AgentEngine
from instructsam.train.engines.agent.options import limits, segmenter, vlm_settings
from instructsam.train.engines.concept import ConceptEngine
from instructsam.train.vlm.budget import Budget
from instructsam.train.vlm.cache import ReplyCache
from instructsam.train.vlm.client import VlmClient


def load_agent(args: argparse.Namespace, device: str = 'auto', budget: Budget | None = None) -> AgentEngine:
    """Load the segmenter and return the agent's engine.

    Args:
        args: Options of the command.
        device: Device of the segmenter.
        budget: Spent by the calls of the VLM.

    Raises:
        ModelError: The segmenter cannot be loaded.
        InstructSAMError: The settings of the endpoint cannot be used.
    """
    cache = None if args.vlm_cache is None else ReplyCache(args.vlm_cache)
    client = VlmClient(vlm_settings(args), cache, budget)
    warning = ''
    backend: PhraseBackend
    if segmenter(args) == 'sam3':
        backend = Sam3Backend.from_folder(args.sam3, device, args.dtype)
    else:
        model = load_model(args, device)
        backend, warning = ConceptBackend(ConceptEngine.from_engine(model)), model.warning
    return AgentEngine(client, backend, limits(args), warning=warning)
