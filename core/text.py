"""Text from outside in logs and terminals: one line, no control characters, limited length.

Instructions, names of topics, files and cameras, and messages of other libraries' errors may hold anything. Written to
a log as they are, a line break would forge an entry and an escape sequence would command the terminal that shows it.
"""

import unicodedata

SHOWN_CHARACTERS = 200
"""Longest text of an instruction or an error in the log and in diagnostics."""

JOINERS = '\u200c\u200d'
"""Zero-width characters that Persian, Indic scripts and emoji need, and that cannot reorder or hide other text."""


def one_line(text: object) -> str:
    r"""Return `str(text)` on one line and safe to print.

    Every run of whitespace becomes one space. Characters that command a terminal or reorder text (control characters,
    bidirectional formatting, lone surrogates, unassigned code points) become Python's escapes, such as `\x1b`.
    """
    line = ' '.join(str(text).split())
    return line if line.isprintable() else ''.join(map(_escape, line))


def shorten(text: object, limit: int = SHOWN_CHARACTERS) -> str:
    """Return one_line(text); a longer one is cut after `limit` characters and followed by the full length."""
    full = str(text)
    # The rest is not even looked at, so that a text of megabytes costs no more than a short one.
    line = one_line(full[: 10 * limit])
    if len(line) <= limit and len(full) <= 10 * limit:
        return line
    return f'{line[:limit]}... ({len(full):,} characters)'


def _escape(character: str) -> str:
    if character.isprintable() or character in JOINERS or unicodedata.category(character) == 'Co':
        return character  # Private use: icon fonts draw these.
    return character.encode('unicode_escape').decode('ascii')
