"""`instructsam doctor`: exit code, lines, JSON and the model; ROS has tests of its own."""

import importlib.util
import json
import shutil

import pytest

from instructsam.core import cli
from instructsam.core.commands import doctor
from instructsam.core.doctor.check import fault, note, ok


@pytest.fixture
def with_checks(monkeypatch):
    """Function that makes the command run the given checks only."""

    def use(*checks):
        monkeypatch.setattr(doctor, '_checks_of_computer', lambda args: [('all', lambda: checks)])
        monkeypatch.setattr(doctor, '_checks_of_ros', lambda args: [])

    return use


def test_nothing_wrong(with_checks, capsys):
    with_checks(ok('Python', '3.12'), note('GPU', 'none', 'buy one'))
    assert cli.main(['doctor']) == 0
    assert capsys.readouterr().out == 'ok    Python: 3.12\nnote  GPU: none\n      -> buy one\nno faults\n'


def test_a_fault(with_checks, capsys):
    with_checks(fault('torch', 'missing', 'pip install torch'))
    assert cli.main(['doctor']) == 3
    assert capsys.readouterr().out == 'FAULT torch: missing\n      -> pip install torch\n1 fault\n'


@pytest.mark.parametrize('arguments', [['--json'], ['--json', '-']])
def test_json(with_checks, capsys, arguments):
    with_checks(fault('torch', 'missing', 'pip install torch'))
    assert cli.main(['doctor', *arguments]) == 3
    assert json.loads(capsys.readouterr().out) == {
        'faults': 1,
        'checks': [{'name': 'torch', 'level': 'fault', 'text': 'missing', 'advice': 'pip install torch'}],
    }


def test_json_to_a_file(with_checks, capsys, tmp_path):
    with_checks(ok('Python', '3.12'))
    assert cli.main(['doctor', '--json', str(tmp_path / 'checks.json')]) == 0
    assert 'Python' in capsys.readouterr().out
    assert json.loads((tmp_path / 'checks.json').read_text())['faults'] == 0


def test_json_in_a_missing_folder_ends_the_command_before_the_checks(with_checks, capsys, tmp_path):
    with_checks(ok('Python', '3.12'))
    assert cli.main(['doctor', '--json', str(tmp_path / 'absent/checks.json')]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert 'there is no folder' in err


@pytest.mark.parametrize(('arguments', 'level'), [([], 'note'), (['--node', '/perception'], 'fault')])
def test_an_installation_without_ros(monkeypatch, capsys, arguments, level):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(doctor, '_checks_of_computer', lambda args: [])
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name, *rest: None if name == 'instructsam_ros' else find_spec(name, *rest)
    )
    cli.main(['doctor', '--json', *([] if not arguments else ['-']), *arguments])
    (check,) = json.loads(capsys.readouterr().out)['checks']
    assert (check['name'], check['level']) == ('ROS', level)


@pytest.mark.parametrize(
    ('name', 'level', 'text'),
    [
        ('tabletop', 'ok', 'tabletop: 7.9 M parameters, F16'),
        ('no/model', 'fault', "'no/model' is not in the hub's cache"),
        ('nowhere', 'fault', 'there is no model folder nowhere'),
    ],
)
def test_models(name, level, text):
    from instructsam.core.doctor.model import check_model

    (check,) = check_model(name)
    assert (check.level, text in check.text) == (level, True), check


def test_a_model_without_weights(tmp_path, checkpoint):
    from instructsam.core.doctor.model import check_model

    shutil.copytree(checkpoint, tmp_path / 'model', ignore=shutil.ignore_patterns('*.safetensors*'))
    (check,) = check_model(str(tmp_path / 'model'))
    assert (check.level, 'holds no weights' in check.text) == ('fault', True), check
