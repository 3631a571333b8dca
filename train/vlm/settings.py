"""Settings of a vision-language model's endpoint: its address, sampling and limits. The key is never among them."""

import math
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from instructsam.core.errors import InstructSAMError
from instructsam.core.text import shorten

NO_KEY = 'none'
"""Sent where the key's variable is not set: servers of one's own ask for none, but the protocol has the field."""

HIDDEN = '[key]'
MAX_RETRIES = 20


@dataclass(frozen=True)
class VlmSettings:
    """An endpoint and the way to ask it. The defaults make a server as repeatable as it can be.

    Raises:
        InstructSAMError: A value is out of range, or the URL has parts that could hold a secret.
    """

    url: str  # of the API, such as http://localhost:8000/v1
    model: str  # name under which the server has the model
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 1024  # of a reply
    timeout_s: float = 60.0  # for one try, from the connection to the last byte
    retries: int = 4  # further tries if the server is busy or fails
    key_variable: str = 'OPENAI_API_KEY'  # environment variable with the key
    concurrency: int = 8  # requests at the same time
    structured: bool = True  # ask the server to keep to the schema, where there is one

    def __post_init__(self) -> None:
        """Check the values."""
        address = urlsplit(self.url)
        if address.scheme not in ('http', 'https') or not address.hostname:
            raise InstructSAMError(
                f'the URL of the VLM is http://HOST:PORT/v1 or https://HOST/v1, got {shorten(_shown(self.url))!r}'
            )
        if address.username is not None or address.query or address.fragment:
            raise InstructSAMError(
                f'the URL of the VLM has a user name, a query or a fragment, where a key may be: give '
                f'{_shown(self.url)}, and the key in the environment variable {self.key_variable}'
            )
        if not self.model.strip():
            raise InstructSAMError('the name of the VLM is empty: give the name under which the server has it')
        if not re.fullmatch(r'[A-Za-z_]\w*', self.key_variable):
            raise InstructSAMError(f'{shorten(self.key_variable)!r} is not the name of an environment variable')
        for name, low, high in (
            ('temperature', 0, 2),
            ('seed', 0, 2**31 - 1),
            ('max_tokens', 1, 1 << 20),
            ('timeout_s', 0.001, 86400),
            ('retries', 0, MAX_RETRIES),
            ('concurrency', 1, 1024),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise InstructSAMError(f'{name} of the VLM is from {low} to {high}, got {value}')

    def read_key(self) -> str:
        """Return the key from the environment, or NO_KEY.

        Raises:
            InstructSAMError: It cannot be sent. The HTTP library's own error would show it.
        """
        key = os.environ.get(self.key_variable, '').strip()
        if not re.fullmatch(r'[!-~]*', key):
            raise InstructSAMError(
                f'the key in {self.key_variable} has spaces, line breaks or characters other than ASCII: set it again'
            )
        return key or NO_KEY

    def without_key(self, text: str) -> str:
        """Return a text of the server without the key, which some repeat in their errors."""
        key = os.environ.get(self.key_variable, '').strip()
        return text.replace(key, HIDDEN) if len(key) >= 4 else text

    def header(self) -> dict[str, Any]:
        """Return what decides the replies, for the header of a run: everything but the address and the limits."""
        names = ('model', 'temperature', 'seed', 'max_tokens', 'structured')
        return {name: getattr(self, name) for name in names}


def _shown(url: str) -> str:
    """Return a URL without the parts that may hold a secret."""
    address = urlsplit(url)
    return address._replace(netloc=address.netloc.rpartition('@')[2], query='', fragment='').geturl()
