"""Options of the agent on the command line, shared by `instructsam eval` and `instructsam segment`."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from instructsam.core.commands.arguments import count, seconds, text
from instructsam.core.commands.options import option
from instructsam.core.errors import InstructSAMError
from instructsam.core.text import shorten
from instructsam.train.engines.agent.state import DEFAULT_LIMITS, Limits
from instructsam.train.vlm.budget import BudgetSettings
from instructsam.train.vlm.settings import VlmSettings

MODEL, AGENT = ENGINES = ('model', 'agent')


def add_agent_options(parser: argparse.ArgumentParser, *, has_budget: bool = False) -> None:
    """Add --engine and the options of the agent, with `has_budget` that of a run's budget, too."""
    option(
        parser,
        '--engine',
        'model: one pass of InstructSAM; agent: a vision-language model behind an endpoint calls a phrase segmenter, '
        'see docs/agent.md',
        MODEL,
        choices=ENGINES,
    )
    group = parser.add_argument_group('agent', 'with --engine agent')
    option(group, '--vlm', 'OpenAI-compatible endpoint, such as http://localhost:8000/v1', type=text, metavar='URL')
    option(group, '--vlm-model', 'name under which the endpoint has the model', type=text, metavar='NAME')
    option(group, '--vlm-server', 'name and version of the server, for the record of a run', '', type=text)
    option(
        group,
        '--vlm-key-variable',
        'environment variable with the key of the endpoint',
        VlmSettings.key_variable,
        metavar='NAME',
    )
    option(group, '--vlm-temperature', 'temperature of sampling', VlmSettings.temperature, type=float, metavar='T')
    option(group, '--vlm-seed', 'seed of sampling', VlmSettings.seed, type=int, metavar='S')
    option(group, '--vlm-max-tokens', 'most tokens of a reply', VlmSettings.max_tokens, type=count, metavar='N')
    option(group, '--vlm-timeout', 'limit of a request', VlmSettings.timeout_s, type=seconds, metavar='S')
    option(group, '--vlm-cache', 'file of known replies; a rerun costs nothing', type=Path, metavar='FILE')
    option(
        group,
        '--agent-masks',
        "segmenter: sam3, with SAM3's own weights (--sam3), or concept: concept prompting of --model "
        '(default: sam3 if --sam3 is given, else concept)',
        choices=('sam3', 'concept'),
    )
    option(group, '--sam3', "folder with SAM3's weights, as facebook/sam3 has them", type=Path, metavar='DIR')
    option(group, '--agent-rounds', 'most replies per instruction', DEFAULT_LIMITS.rounds, type=count, metavar='N')
    option(group, '--agent-repairs', 'most replies that cannot be used', DEFAULT_LIMITS.repairs, type=int, metavar='N')
    option(group, '--agent-seconds', 'most time per instruction', DEFAULT_LIMITS.seconds, type=seconds, metavar='S')
    if has_budget:
        option(
            group,
            '--vlm-budget',
            'limits of the whole run, with all of its parts: calls, tokens, seconds, money (with prompt_price and '
            'completion_price of a million tokens), such as calls=3000,tokens=5000000',
            type=budget,
            metavar='NAME=N[,...]',
        )


def budget(value: str) -> BudgetSettings:
    """Parse the limits of a run's budget."""
    whole = ('calls', 'tokens')
    names = [each.name for each in fields(BudgetSettings)]
    limits: dict[str, float] = {}
    for part in value.split(','):
        name, _, number = part.partition('=')
        name = name.strip()
        if name not in names:
            raise argparse.ArgumentTypeError(f'{shorten(name)!r} is none of {", ".join(names)}')
        if name in limits:
            raise argparse.ArgumentTypeError(f'{name} is given twice')
        try:
            limits[name] = int(number) if name in whole else float(number)
        except ValueError:
            kind = 'whole number' if name in whole else 'number'
            raise argparse.ArgumentTypeError(f'{name} is a {kind}, got {shorten(number)!r}') from None
    try:
        return BudgetSettings(**limits)  # type: ignore[arg-type]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def is_agent(args: argparse.Namespace) -> bool:
    """Return whether the agent is asked for.

    Raises:
        InstructSAMError: Options of the agent are missing, or given without it.
    """
    if args.engine != AGENT:
        for name in ('--vlm', '--vlm-model', '--sam3', '--vlm-budget'):
            if getattr(args, name[2:].replace('-', '_'), None) is not None:
                raise InstructSAMError(f'{name} belongs to --engine agent: add that, or leave it out')
        return False
    for name, value in (('--vlm', args.vlm), ('--vlm-model', args.vlm_model)):
        if value is None:
            raise InstructSAMError(f'--engine agent needs {name}: the endpoint and the name of the model there')
    if segmenter(args) == 'sam3' and args.sam3 is None:
        raise InstructSAMError('--agent-masks sam3 needs --sam3: the folder with its weights')
    if segmenter(args) == 'concept' and args.sam3 is not None:
        raise InstructSAMError('--sam3 belongs to --agent-masks sam3, but concept is given')
    return True


def segmenter(args: argparse.Namespace) -> str:
    """Return the kind of segmenter, 'sam3' or 'concept'."""
    return args.agent_masks or ('concept' if args.sam3 is None else 'sam3')


def vlm_settings(args: argparse.Namespace) -> VlmSettings:
    """Return the endpoint's settings. Raises InstructSAMError."""
    return VlmSettings(
        url=args.vlm,
        model=args.vlm_model,
        temperature=args.vlm_temperature,
        seed=args.vlm_seed,
        max_tokens=args.vlm_max_tokens,
        timeout_s=args.vlm_timeout,
        key_variable=args.vlm_key_variable,
    )


def limits(args: argparse.Namespace) -> Limits:
    """Return the limits of an instruction. Raises InstructSAMError."""
    return Limits(args.agent_rounds, args.agent_repairs, args.agent_seconds)
