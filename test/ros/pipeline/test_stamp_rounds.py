"""Rounds of stamps: every topic counts them alike, however their restarts interleave."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from instructsam_ros.pipeline.stamp_rounds import PATIENCE, StampRounds

MS = 1_000_000


def rounds(*arrivals):
    """Return the round of each message; `arrivals`: (topic, stamp in ms)."""
    numbered = StampRounds()
    return [numbered.assign(topic, milliseconds * MS) for topic, milliseconds in arrivals]


def test_stamps_that_go_on_are_one_round():
    assert rounds(('image', 0), ('depth', 0), ('image', 5000), ('depth', 5000)) == [0] * 4


@pytest.mark.parametrize('late', [0, 1, 3])
def test_topics_restart_one_after_the_other(late):
    """Depth arrives up to three messages after its image, so at a restart both rounds arrive mixed."""
    stamps = [100 * index for index in range(20)] * 3
    timed = [(index, 'image', stamp) for index, stamp in enumerate(stamps)]
    timed += [(index + late + 0.5, 'depth', stamp) for index, stamp in enumerate(stamps)]
    arrivals = [(topic, stamp) for _, topic, stamp in sorted(timed)]
    numbers = dict.fromkeys(('image', 'depth'), ())
    for (topic, _), number in zip(arrivals, rounds(*arrivals), strict=True):
        numbers[topic] += (number,)
    assert numbers['image'] == numbers['depth'] == (0,) * 20 + (1,) * 20 + (2,) * 20


def test_any_step_back_is_a_new_round():
    assert rounds(('image', 5000), ('depth', 5000), ('image', 4995), ('depth', 4995)) == [0, 0, 1, 1]


def test_stamps_of_a_topic_may_jitter():
    numbered = StampRounds()
    stamps = (2000, 1500, 2100, 900, 950)
    assert [numbered.assign('info', stamp * MS, 1000 * MS) for stamp in stamps] == [0, 0, 0, 1, 1]


def test_a_topic_that_was_silent_at_the_end_of_the_round_joins():
    assert rounds(('image', 0), ('depth', 0), ('image', 2000), ('image', 0), ('depth', 100)) == [0, 0, 0, 1, 1]
    assert rounds(('image', 0), ('depth', 300), ('image', 2000), ('image', 0), ('depth', 200)) == [0, 0, 0, 1, 1]


def test_one_wrong_stamp_does_not_separate_the_topics():
    arrivals = [('image', 0), ('depth', 0), ('image', 99_000), ('image', 200), ('depth', 200), ('image', 300)]
    assert rounds(*arrivals) == [0, 0, 0, 1, 1, 1]
    swapped = [({'image': 'depth', 'depth': 'image'}[topic], stamp) for topic, stamp in arrivals]
    assert rounds(*swapped) == [0, 0, 0, 1, 1, 1]


def test_a_wrong_stamp_of_slow_topics():
    """The image comes first each time, so it joins one message later."""
    arrivals = [(topic, stamp) for stamp in range(0, 20_000, 3000) for topic in ('image', 'depth')]
    arrivals.insert(4, ('depth', 99_000))
    assert rounds(*arrivals) == [0] * 6 + [1] * 9


def test_a_topic_that_begins_later_belongs_to_the_present_round():
    assert rounds(('image', 5000), ('image', 0), ('depth', 0), ('image', 5000), ('image', 0)) == [0, 1, 1, 1, 2]


@pytest.mark.parametrize('ahead', ['image', 'depth'])
def test_one_wrong_stamp_does_not_separate_topics_one_of_which_is_always_ahead(ahead):
    """Stamps of one topic are 50 ms later than those of the other that arrive at the same time."""
    behind = 'depth' if ahead == 'image' else 'image'
    arrivals = [(topic, stamp) for t in range(0, 3000, 33) for topic, stamp in ((ahead, t + 50), (behind, t))]
    for wrong in (ahead, behind):
        index = max(i for i, (topic, stamp) in enumerate(arrivals) if topic == wrong and stamp < 500)
        numbers = rounds(*arrivals[:index], (wrong, 200), *arrivals[index:])
        assert numbers[-40:] == [1] * 40


def test_a_topic_that_steps_back_and_stops_does_not_separate_the_others():
    arrivals = [(topic, 1000 + 33 * t) for t in range(PATIENCE) for topic in ('image', 'depth')]
    numbers = rounds(('other', 2000), *arrivals[:10], ('other', 500), *arrivals[10:])
    assert numbers[-20:] == [1] * 20
