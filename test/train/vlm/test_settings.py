"""The settings of a VLM's endpoint: values out of range, and URLs that may hold a secret."""

import pytest

from instructsam.core.errors import InstructSAMError
from instructsam.train.vlm.settings import VlmSettings


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        ({'url': 'localhost:8000'}, 'the URL of the VLM is http'),
        ({'url': 'file:///etc/passwd'}, 'the URL of the VLM is http'),
        ({'url': 'http://user:secret@host/v1'}, 'give http://host/v1, and the key in'),
        ({'url': 'http://host/v1?key=secret'}, 'give http://host/v1, and the key in'),
        ({'model': ' '}, 'the name of the VLM is empty'),
        ({'temperature': float('nan')}, 'temperature of the VLM is from 0 to 2, got nan'),
        ({'retries': -1}, 'retries of the VLM'),
        ({'timeout_s': 0}, 'timeout_s of the VLM'),
        ({'key_variable': 'sk-123'}, 'is not the name of an environment variable'),
    ],
)
def test_values_out_of_range(change, text):
    with pytest.raises(InstructSAMError) as caught:
        VlmSettings(**{'url': 'http://localhost:8000/v1', 'model': 'm', **change})
    assert text in str(caught.value)
    assert 'secret' not in str(caught.value)


def test_the_header_names_what_decides_the_replies():
    header = VlmSettings('http://localhost:8000/v1', 'm', seed=3).header()
    assert header == {'model': 'm', 'temperature': 0.0, 'seed': 3, 'max_tokens': 1024, 'structured': True}
