"""One bag of a folder: annotated, or the reason why it failed."""

from __future__ import annotations

import argparse
import os
import traceback
from dataclasses import dataclass
from pathlib import Path

from instructsam.core import exit_codes
from instructsam.core.errors import InstructSAMError, ModelError, StorageError
from instructsam.core.run_settings import OtherSettingsError, RunRecord
from instructsam_ros.bag.annotate import CommandModel, annotate

OF_ALL = (ModelError, OtherSettingsError, StorageError, BrokenPipeError)
"""Errors that every other bag would have, too: they end the command."""


@dataclass(frozen=True)
class Annotated:
    """A bag that is done, or that failed.

    Attributes:
        name: Its name.
        exit_code: That of `bag annotate` for this bag.
        is_new: It was not finished before.
        error: Why it has no output; empty if it has one.
        printed: The output of the command, if it was not printed yet.
    """

    name: str
    exit_code: int
    is_new: bool = True
    error: str = ''
    printed: str = ''


def annotate_one(args: argparse.Namespace, model: CommandModel) -> Annotated:
    """Annotate one of the bags.

    Raises:
        ModelError, OtherSettingsError, StorageError: They end the command, see OF_ALL.
    """
    out = Path(args.output)
    try:
        code, is_new = annotate(args, model, RunRecord(out.with_name(f'{out.name}.json')))
    except OF_ALL:
        raise
    except InstructSAMError as error:
        return Annotated(out.name, error.exit_code, error=str(error))
    except Exception as error:
        if os.environ.get('INSTRUCTSAM_DEBUG'):
            traceback.print_exc()
        return Annotated(out.name, exit_codes.FAILED, error=f'unexpected {type(error).__name__}: {error}')
    return Annotated(out.name, code, is_new)
