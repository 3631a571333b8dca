"""JSON documents that commands write with `--json`."""

import json
import sys
from pathlib import Path

from instructsam.core.errors import InstructSAMError


def write_json(path, document):
    """Writes `document` to a file, or to stdout for '-'. Raises InstructSAMError."""
    text = json.dumps(document, indent=2) + '\n'
    if path == '-':
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise InstructSAMError(f'cannot write {path}: {error.strerror}') from error
