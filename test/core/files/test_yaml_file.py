"""YAML from outside: one type of error, and no document that stands for billions of values."""

import pytest

from instructsam.core.files.yaml_file import MAX_BYTES, YamlError, parse_yaml, read_yaml


def test_values():
    assert parse_yaml('{a: [1, 2.5, x, null, true], b: 1e-4}', 'it') == {'a': [1, 2.5, 'x', None, True], 'b': '1e-4'}
    assert parse_yaml('{a: &x [1], b: *x}', 'it') == {'a': [1], 'b': [1]}


@pytest.mark.parametrize(
    'text',
    [
        'a: [',
        '!!int ""',
        '!!bool x',
        '!!float x',
        '2001-99-99',
        '!!python/object/apply:os.system [id]',
        '[' * 100_000,
        '{[1]: 2}',
        'a: \0',
        '\ud800',
        '!!timestamp x',
        '!!float ' + '1:' * 200 + '1.5',
        '!!int 1' + ':1' * 2_000_000,  # the base of 60, in quadratic time
        '0x' + 'f' * 10_000,  # more digits than Python prints
    ],
    ids=range(14),
)
def test_everything_that_the_parser_raises_is_one_error(text):
    with pytest.raises(YamlError, match=r'^it is not valid YAML: ') as caught:
        parse_yaml(text, 'it')
    assert '\n' not in str(caught.value)


def test_aliases_cannot_multiply():
    lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x]']
    lines += [f'a{number}: &a{number} [{", ".join([f"*a{number - 1}"] * 9)}]' for number in range(1, 12)]
    with pytest.raises(YamlError, match='more than 100,000 values'):
        parse_yaml('\n'.join(lines), 'it')
    with pytest.raises(YamlError, match='more than 100,000 values'):
        parse_yaml('&a [*a]', 'it')


def test_merge_keys_cannot_multiply():
    """PyYAML 6.0.1 took exponential time for them; 6.0.4 has a limit of its own."""
    assert parse_yaml('{a: &a {x: 1}, b: {<<: *a, y: 2}}', 'it')['b'] == {'x': 1, 'y': 2}
    lines = ['a0: &a0 {x: 1}']
    lines += [f'a{number}: &a{number} {{<<: [{", ".join([f"*a{number - 1}"] * 10)}]}}' for number in range(1, 12)]
    with pytest.raises(YamlError, match='more than 100,000 values'):
        parse_yaml('\n'.join(lines), 'it')


def test_numbers_are_not_to_the_base_of_60():
    assert parse_yaml('[1:30, -1:30.5, 10]', 'it') == ['1:30', '-1:30.5', 10]
    long = '1' + ':1' * 1_000_000
    assert parse_yaml(long, 'it') == long


def test_files(tmp_path):
    file = tmp_path / 'a.yaml'
    file.write_bytes(b'\xef\xbb\xbfa: 1\n')
    assert read_yaml(file) == {'a': 1}
    for content, message in (
        (b'\xff\xfe', 'not a text file in UTF-8'),
        (b'x' * (MAX_BYTES + 1), 'at most'),
        (b'', 'empty'),
    ):
        file.write_bytes(content)
        with pytest.raises(YamlError, match=message):
            read_yaml(file)
    with pytest.raises(YamlError, match='a character device'):
        read_yaml('/dev/zero')
    with pytest.raises(YamlError, match='No such file'):
        read_yaml(tmp_path / 'absent')
