"""The file that remembers what a run has spent, so that its budget holds for all of its parts."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

from instructsam.core.errors import InstructSAMError
from instructsam.core.files.json_file import read_json_object, write_json
from instructsam.train.vlm.budget import Budget, Spending

SAVE_S = 5.0
"""Time between two writes: as much of the spending is forgotten at a kill."""


class SpendingFile:
    """A JSON file with the fields of Spending.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved = Spending()
        self._saved_at = time.monotonic()

    def read(self) -> Spending:
        """Return what was spent; nothing if there is no file.

        Raises:
            InstructSAMError: The file is damaged.
        """
        if not self.path.exists():
            return Spending()
        try:
            spending = Spending(**read_json_object(self.path))
            if not all(isinstance(value, (int, float)) and value >= 0 for value in asdict(spending).values()):
                raise ValueError('it has a value that is not a number')
        except (OSError, ValueError, TypeError) as error:
            raise InstructSAMError(
                f'{self.path} is damaged ({error}): delete it; the budget then starts at 0'
            ) from error
        self._saved = replace(spending, seconds=0)
        return spending

    def save(self, budget: Budget, *, now: bool = False) -> None:
        """Write what was spent, if it is more than before; at most every SAVE_S seconds, or `now`.

        Raises:
            StorageError: The file cannot be written.
        """
        if not now and time.monotonic() < self._saved_at + SAVE_S:
            return
        spent = budget.spent
        if (saved := replace(spent, seconds=0)) != self._saved:
            write_json(self.path, asdict(spent))
            self._saved, self._saved_at = saved, time.monotonic()
