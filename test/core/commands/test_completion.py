"""Completion of the command line, as the shells ask for it."""

import os
import subprocess
import sys

import pytest
from command_line import COMMAND

pytest.importorskip('argcomplete', reason='needs the extra completion')

from instructsam.core import cli


@pytest.fixture
def completions(tmp_path):
    """Function that returns the completions of a line. In a process, because argcomplete takes over descriptors."""

    def ask(line):
        asked = {
            '_ARGCOMPLETE': '1',
            '_ARGCOMPLETE_IFS': '\n',
            '_ARGCOMPLETE_STDOUT_FILENAME': str(tmp_path / 'out'),
            'COMP_LINE': line,
            'COMP_POINT': str(len(line)),
        }
        subprocess.run(COMMAND, env=os.environ | asked, check=True)
        return (tmp_path / 'out').read_text().split('\n')

    return ask


@pytest.mark.parametrize(
    ('line', 'expected', 'absent'),
    [
        ('instructsam se', 'segment ', 'doctor '),
        ('instructsam segment photo.jpg --thr', '--threshold ', '--json '),
        ('instructsam segment photo.jpg --mode ', 'reference', 'tabletop'),
        ('instructsam models des', 'describe ', 'list '),
        ('instructsam models fetch --rev', '--revision ', '--json '),
        ('instructsam completion ', 'fish', 'segment'),
    ],
)
def test_completions(completions, line, expected, absent):
    found = completions(line)
    assert expected.strip() in [each.strip() for each in found]
    assert absent.strip() not in [each.strip() for each in found]


@pytest.mark.parametrize(('shell', 'word'), [('bash', 'complete '), ('zsh', 'compdef'), ('fish', 'complete ')])
def test_scripts(capsys, shell, word):
    assert cli.main(['completion', shell]) == 0
    out = capsys.readouterr().out
    assert word in out
    assert 'instructsam' in out


def test_without_argcomplete_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'argcomplete', None)
    assert cli.main(['completion', 'bash']) == 2
    assert 'instructsam-ros[completion]' in capsys.readouterr().err
