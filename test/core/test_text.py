"""Text from outside in logs and terminals."""

import unicodedata

import pytest

from instructsam.core.text import SHOWN_CHARACTERS, one_line, shorten


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('the red mug', 'the red mug'),
        ('two\nlines\r\n\tand  more\u2028', 'two lines and more'),
        ('\x1b[31mred\x07\x00\x9b2J', '\\x1b[31mred\\x07\\x00\\x9b2J'),
        ('gnp\u202etxt.exe\u2066', 'gnp\\u202etxt.exe\\u2066'),
        ('\ufeffbom \ud800', '\\ufeffbom \\ud800'),
        ('日本語 die Tasse קומקום чайник', '日本語 die Tasse קומקום чайник'),
        ('\N{WOMAN}\u200d\N{PERSONAL COMPUTER} \u200c', '\N{WOMAN}\u200d\N{PERSONAL COMPUTER} \u200c'),
        (ValueError('a\nb'), 'a b'),
    ],
)
def test_one_line_shows_text_and_escapes_what_commands_a_terminal(text, shown):
    assert one_line(text) == shown


def test_no_character_reaches_the_terminal_unless_it_is_printable_or_joins():
    everything = one_line(''.join(map(chr, range(0x110000))))
    assert {c for c in everything if not c.isprintable() and unicodedata.category(c) != 'Co'} == {'\u200c', '\u200d'}
    everything.encode()  # no lone surrogate is left


def test_shorten_tells_the_full_length():
    assert shorten('x' * SHOWN_CHARACTERS) == 'x' * SHOWN_CHARACTERS
    assert shorten('x' * 100_000) == 'x' * SHOWN_CHARACTERS + '... (100,000 characters)'
    assert shorten('\n' * 5000) == '... (5,000 characters)'
    assert shorten('\x1b' * 4, limit=8) == '\\x1b\\x1b... (4 characters)'
