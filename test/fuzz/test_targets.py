"""The seeded short form of fuzzing: a few examples of every target, equal in every run. scripts/fuzz: for hours."""

from unittest import mock

import pytest

pytest.importorskip('hypothesis', reason='needs the extra `test`')

from harness.campaign import run_round
from harness.worker import Worker
from hypothesis.internal.conjecture import providers

WITHOUT_ROS = {'images': 12, 'model_folders': 5, 'recipes': 4, 'data_sets': 30}  # number of examples
WITH_ROS = {'bags': 10, 'messages': 6, 'goals': 4}
SEED = 1
SLOWNESS = 2.0  # the machine runs other tests


@pytest.fixture(scope='module')
def worker():
    """A child that imports torch once, for all targets without ROS."""
    with Worker(*WITHOUT_ROS, slowness=SLOWNESS) as worker:
        yield worker


@pytest.fixture(scope='module')
def ros_worker():
    """A child for all targets with ROS."""
    pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')
    with Worker(*WITH_ROS, slowness=SLOWNESS) as worker:
        yield worker


def check(worker, name, count):
    failures = []

    def on_outcome(example, outcome):
        if outcome.state == 'failed':
            failures.append(f'{outcome.kind}\n{example.to_json()}\n{outcome.message}')

    # Hypothesis also tries the constants of the modules that are imported, which depend on the tests before this one.
    provider = providers.HypothesisProvider
    with mock.patch.object(provider, '_maybe_draw_constant', return_value=None, create=True):
        run_round(worker, name, SEED, count, on_outcome)
    assert not failures, '\n\n'.join(failures)


@pytest.mark.parametrize('name', WITHOUT_ROS)
def test_inputs_are_answered_or_refused(worker, name):
    check(worker, name, WITHOUT_ROS[name])


@pytest.mark.parametrize('name', WITH_ROS)
def test_inputs_of_ros_are_answered_or_refused(ros_worker, name):
    check(ros_worker, name, WITH_ROS[name])
