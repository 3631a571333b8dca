"""JSON documents that commands write for `--json`."""

from __future__ import annotations

import json
import sys
from typing import Any

from instructsam.core.atomic_write import write_text


def write_json(path: str, document: dict[str, Any]) -> None:
    """Write `document` to a file, or to stdout if `path` is '-'.

    The file is replaced completely or not at all. Raises StorageError if it cannot be written.
    """
    text = json.dumps(document, indent=2) + '\n'
    if path == '-':
        sys.stdout.write(text)
        return
    write_text(path, text)
