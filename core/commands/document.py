"""JSON documents that commands write for `--json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from instructsam.core.errors import InstructSAMError


def write_json(path: str, document: dict[str, Any]) -> None:
    """Write `document` to a file, or to stdout if `path` is '-'.

    Raises InstructSAMError if the file cannot be written.
    """
    text = json.dumps(document, indent=2) + '\n'
    if path == '-':
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise InstructSAMError(f'cannot write {path}: {error.strerror}') from error
