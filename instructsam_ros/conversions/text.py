"""Text that fits into messages and logs: one line, limited length, valid UTF-8."""

SHOWN_CHARACTERS = 200  # longest text of an instruction or an error in the log and in diagnostics


def one_line(text: object) -> str:
    """Return `str(text)` with every run of whitespace replaced by one space."""
    return ' '.join(str(text).split())


def shorten(text: object) -> str:
    """Return `str(text)` as one line, cut after SHOWN_CHARACTERS characters."""
    line = one_line(text)
    return line if len(line) <= SHOWN_CHARACTERS else f'{line[:SHOWN_CHARACTERS]}...'


def valid_utf8(text: str) -> str:
    """Return `text` with lone surrogates replaced by question marks, because rclpy cannot send them."""
    return text.encode('utf-8', 'replace').decode('utf-8')
