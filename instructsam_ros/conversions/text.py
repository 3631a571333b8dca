"""Text that fits into messages and logs: one line, limited length, valid UTF-8."""

from instructsam.core.display.text import one_line as one_line
from instructsam.core.display.text import shorten as shorten


def valid_utf8(text: str) -> str:
    """Return `text` with lone surrogates replaced by question marks, because rclpy cannot send them."""
    return text.encode('utf-8', 'replace').decode('utf-8')
