"""Tests in several processes do not disturb each other."""

import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_a_file_goes_to_one_process(tmp_path):
    (in_two,) = re.findall(r'bin/pytest (-n .*?) \|\|', (ROOT / 'scripts/test').read_text())
    tests = 'import pytest\n\n@pytest.mark.parametrize("number", range(20))\ndef test(number):\n    pass\n'
    for name in ('test_one', 'test_other'):
        (tmp_path / f'{name}.py').write_text(tests)
    command = [sys.executable, '-m', 'pytest', '-v', *shlex.split(in_two)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    ran = re.findall(r'\[(gw\d)\].* PASSED (test_\w+)', done.stdout)
    assert len(ran) == 40, done.stdout + done.stderr
    assert len(set(ran)) == 2, done.stdout + done.stderr


def test_a_domain_id_is_reserved(domain_id):
    with socket.socket() as other, pytest.raises(OSError, match='in use'):
        other.bind(('127.0.0.1', 7400 + 250 * domain_id))
