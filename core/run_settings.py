"""Resuming: a run resumes only with the settings and the data that its output was started with.

A run's settings are plain values by dotted key, such as `data[0].annotations`. Files count by content: their
fingerprints are settings, and their paths may change.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from instructsam.core.errors import InstructSAMError
from instructsam.core.files.json_file import write_json
from instructsam.core.text import shorten

CHUNK_BYTES = 1 << 20
SHOWN_CHARACTERS = 120  # longest value in a message
_ABSENT = 'absent'
_INDEX = re.compile(r'\[\d+\]')


class OtherSettingsError(InstructSAMError):
    """An output belongs to a run with other settings or data; the message names each with both values."""


def check_settings(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    output: Path | str,
    advice: str,
    may_change: Collection[str] = (),
) -> list[str]:
    """Compare the settings that an output was started with and those of the run that would resume it.

    Args:
        before: The settings that it was started with, nested or flat.
        now: The settings of the run that would resume it.
        output: The output, for the message.
        advice: The way out, apart from repeating the earlier settings.
        may_change: Keys that do not affect the results, with [] for any index.

    Returns:
        The differences of keys in `may_change` as texts.

    Raises:
        OtherSettingsError: Other keys differ.
    """
    before, now = _plain(before), _plain(now)
    changed = [key for key in {**before, **now} if before.get(key, _ABSENT) != now.get(key, _ABSENT)]
    texts = [f'{key} was {_shown(before, key)}, now {_shown(now, key)}' for key in changed]
    if any(_INDEX.sub('[]', key) not in may_change for key in changed):
        raise OtherSettingsError(
            f'{output} was started with other settings ({"; ".join(texts)}): repeat those to resume it, or {advice}'
        )
    return texts


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted key, as JSON would give them back."""
    return json.loads(json.dumps(dict(_flat(settings, ''))))


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not key):
        for name, each in value.items():
            yield from _flat(each, f'{key}.{name}' if key else str(name))
    elif isinstance(value, (list, tuple)) and value and all(isinstance(each, Mapping) for each in value):
        for index, each in enumerate(value):
            yield from _flat(each, f'{key}[{index}]')
    else:
        yield key, value


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return shorten(repr(settings[key]), SHOWN_CHARACTERS) if key in settings else _ABSENT


class RunRecord:
    """The file with the settings that an output was started with.

    Args:
        file: The file; its folder exists and is locked.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def start(self, settings: Mapping[str, Any], **results: Any) -> None:
        """Write the settings, and results by name."""
        write_json(self.file, {'settings': _plain(settings), **results})

    def read(self) -> dict[str, Any] | None:
        """Return the file's contents, 'settings' among them; None if there is no file.

        Raises:
            InstructSAMError: The file is damaged.
        """
        try:
            document = json.loads(self.file.read_text(encoding='utf-8'))
        except FileNotFoundError:
            return None
        except ValueError as error:
            document = error
        if not isinstance(document, dict) or not isinstance(document.get('settings'), dict):
            raise InstructSAMError(f'{self.file} is damaged: give the run another output, or delete its folder')
        return document


def fingerprint(files: Iterable[tuple[str, Path]]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of (name, file) pairs: of the names and contents, in their order."""
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(name.encode())
        with file.open('rb') as content:
            while chunk := content.read(CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def model_fingerprint(folder: Path) -> str:
    """Return the fingerprint of a model folder: of its weights, configuration, tokenizer and template."""
    suffixes = ('.safetensors', '.json', '.jinja')
    files = (file for file in sorted(folder.rglob('*')) if file.suffix in suffixes and file.is_file())
    return fingerprint((file.name, file) for file in files)
