"""The parameter table, its documentation and the command line."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import yaml

from instructsam_ros.node.parameters import PARAMETERS

ROOT = Path(__file__).parents[3]
WITHOUT_VISION_MSGS = pytest.mark.skipif(
    importlib.util.find_spec('vision_msgs') is not None, reason='vision_msgs is installed here'
)


def run_node(*arguments):
    """Return (exit code, stdout, stderr) of a node that ends at once."""
    command = [sys.executable, '-m', 'instructsam_ros.node.perception_node', *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_parameter_file_documents_every_parameter_with_its_default():
    path = ROOT / 'config' / 'perception.yaml'
    documented = yaml.safe_load(path.read_text())['/**']['ros__parameters']
    defaults = {parameter.name: parameter.default for parameter in PARAMETERS}
    assert documented == defaults
    assert {name: type(value) for name, value in documented.items()} == {n: type(v) for n, v in defaults.items()}
    lines = path.read_text().splitlines()
    for name in defaults:
        at = next(i for i, line in enumerate(lines) if line.startswith(f'    {name}:'))
        assert lines[at - 1].lstrip().startswith('#'), f'{name} has no comment'


def test_help_names_every_parameter():
    code, out, _ = run_node('--help')
    assert code == 0
    for parameter in PARAMETERS:
        assert parameter.name in out
        assert parameter.description in out


@pytest.mark.parametrize(
    ('arguments', 'why'),
    [
        (['-p', 'score_threshold:=2.0'], 'out of range'),
        (['-p', 'score_threshold:=.nan'], 'out of range'),
        (['-p', 'score_threshold:=1'], "expecting type 'DOUBLE'"),
        (['-p', 'mode:=fast'], "mode is one of consistent, reference, got 'fast'"),
        (['-p', 'rectified:=maybe'], "rectified is one of auto, true, false, got 'maybe'"),
        (['-p', 'rectified:=3'], "rectified is one of auto, true, false, got '3'"),
        (['-p', 'frame_tolerance:=any'], 'frame_tolerance is pairs of frames'),
        (['-p', 'trigger'], "parse parameter override rule: '-p trigger'"),
        (['--params-file', 'no_such_file.yaml'], 'no_such_file.yaml'),
        pytest.param(
            ['-p', 'vision_msgs:=true'], 'sudo apt install ros-$ROS_DISTRO-vision-msgs', marks=WITHOUT_VISION_MSGS
        ),
    ],
    ids=' '.join,
)
def test_bad_start_ends_with_one_line_and_code_2(arguments, why):
    code, _, err = run_node('--ros-args', *arguments)
    assert code == 2
    assert err.startswith('instructsam-perception: ')
    assert why in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize('name', [parameter.name for parameter in PARAMETERS])
@pytest.mark.parametrize('value', [None, [], [1, 2], [0.5], [True], b'ab', {}, 1j], ids=str)
def test_a_value_of_no_or_another_type_is_refused(name, value):
    parameter = next(parameter for parameter in PARAMETERS if parameter.name == name)
    assert parameter.refusal(value).startswith(f'{name} ')


@pytest.mark.parametrize('source', ['command line', 'file'])
def test_a_parameter_without_a_value_ends_with_one_line_and_code_2(tmp_path, source):
    """ROS has no type for an empty list and passes it on as no value."""
    file = tmp_path / 'perception.yaml'
    file.write_text('/**:\n  ros__parameters:\n    cameras: []\n')
    arguments = ['--params-file', str(file)] if source == 'file' else ['-p', 'cameras:=[]']
    code, _, err = run_node('--ros-args', *arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert 'cameras is a list of texts, got no value (ROS reads an empty list as none)' in err


def test_unknown_argument_ends_with_code_2():
    code, _, err = run_node('--fast')
    assert code == 2
    assert 'unrecognized arguments: --fast' in err
