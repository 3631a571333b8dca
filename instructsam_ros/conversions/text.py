"""Text that fits into messages: valid UTF-8."""


def valid_utf8(text: str) -> str:
    """Return `text` with lone surrogates replaced by question marks, because rclpy cannot send them."""
    return text.encode('utf-8', 'replace').decode('utf-8')
