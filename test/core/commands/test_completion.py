"""Completion of the command line, as the shells ask for it."""

import io

import pytest

pytest.importorskip('argcomplete', reason='needs the extra completion')

from instructsam.core import cli
from instructsam.core.commands.completion import complete
from instructsam.core.commands.parser import CommandParser, add_commands


class EndedError(Exception):
    """The process would have ended."""


@pytest.fixture
def completions(monkeypatch):
    """Function that returns the completions of a line."""

    def end(code):
        raise EndedError

    def ask(line):
        monkeypatch.setenv('_ARGCOMPLETE', '1')
        monkeypatch.setenv('_ARGCOMPLETE_IFS', '\n')
        monkeypatch.setenv('COMP_LINE', line)
        monkeypatch.setenv('COMP_POINT', str(len(line)))
        parser = CommandParser(prog='instructsam')
        add_commands(parser, cli.COMMANDS, dest='command')
        out = io.StringIO()
        with pytest.raises(EndedError):
            complete(parser, output_stream=out, exit_method=end)
        return out.getvalue().split('\n')

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
    monkeypatch.setitem(__import__('sys').modules, 'argcomplete', None)
    assert cli.main(['completion', 'bash']) == 2
    assert 'instructsam-ros[completion]' in capsys.readouterr().err
