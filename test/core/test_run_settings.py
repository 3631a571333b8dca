"""An output goes on only with the settings that it was started with."""

import os

import pytest

from instructsam.core.errors import InstructSAMError
from instructsam.core.run_settings import OtherSettingsError, RunRecord, check_settings, fingerprint, model_fingerprint

BEFORE = {'steps': 4, 'data': [{'file': 'a', 'content': '1'}], 'lora': None, 'betas': (0.9, 0.98), 'workers': 2}


def check(before=BEFORE, /, **changes):
    may_change = {'workers', 'data[].file'}
    return check_settings(
        before, {**BEFORE, **changes}, output='run', advice='give another output', may_change=may_change
    )


def test_equal_settings():
    assert check() == []
    assert check(betas=[0.9, 0.98]) == []


def test_keys_that_may_change():
    assert check(workers=3, data=[{'file': 'b', 'content': '1'}]) == [
        "data[0].file was 'a', now 'b'",
        'workers was 2, now 3',
    ]


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'steps': 6}, 'steps was 4, now 6'),
        ({'data': [{'file': 'b', 'content': '2'}]}, "data[0].file was 'a', now 'b'; data[0].content was '1', now '2'"),
        ({'data': [*BEFORE['data'], {'file': 'c', 'content': '3'}]}, "data[1].content was absent, now '3'"),
        ({'data': []}, "data[0].content was '1', now absent"),
        ({'lora': {'rank': 2}}, 'lora.rank was absent, now 2'),
        ({'new': None}, 'new was absent, now None'),
        ({'betas': (0.9, 0.9)}, 'betas was [0.9, 0.98], now [0.9, 0.9]'),
    ],
    ids=str,
)
def test_other_settings(changes, said):
    with pytest.raises(OtherSettingsError) as caught:
        check(**changes, workers=9)
    text = str(caught.value)
    assert text.startswith('run was started with other settings (')
    assert text.endswith('): repeat those to resume it, or give another output')
    assert said in text
    assert 'workers was 2, now 9' in text


def test_long_values_are_shortened():
    with pytest.raises(OtherSettingsError) as caught:
        check(lora='x' * 10_000)
    assert len(str(caught.value)) < 500


def test_the_record(tmp_path):
    record = RunRecord(tmp_path / 'run.json')
    assert record.read() is None
    record.start(BEFORE, written=3)
    found = record.read()
    assert found['written'] == 3
    assert check(found['settings']) == []
    for text in ('', '[]', '{"settings": 3}', '{"settings"', '\udcff'):
        record.file.write_bytes(text.encode('utf-8', 'surrogateescape'))
        with pytest.raises(InstructSAMError, match=r'run.json is damaged'):
            record.read()


def test_a_fingerprint_is_that_of_names_and_contents(tmp_path):
    one, other = tmp_path / 'one', tmp_path / 'other'
    one.write_bytes(b'a' * 3_000_000)
    other.write_bytes(b'a' * 3_000_000)
    assert fingerprint([('x', one)]) == fingerprint([('x', other)])
    assert fingerprint([('x', one)]) != fingerprint([('y', one)])
    other.write_bytes(b'a' * 2_999_999 + b'b')
    assert fingerprint([('x', one)]) != fingerprint([('x', other)])


def test_only_regular_files_are_read_for_the_fingerprint_of_a_model(tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    before = model_fingerprint(tmp_path)
    os.mkfifo(tmp_path / 'waits.json')
    (tmp_path / 'folder.json').mkdir()
    assert model_fingerprint(tmp_path) == before
