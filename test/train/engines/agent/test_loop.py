"""The loop by replies alone: every tool, every fault, pruning, limits, and mutated replies."""

import collections
import os
import random

import numpy as np
import pytest
from agent_replies import call, random_reply, random_verdict

from instructsam.core.errors import InstructSAMError
from instructsam.core.rle import Rle
from instructsam.train.engines.agent import loop, tools
from instructsam.train.engines.agent.replies import parse_verdict
from instructsam.train.engines.agent.state import AgentState, Answer, CheckRequest, Limits, Mark, SegmentRequest
from instructsam.train.vlm.chat import ImagePart

HEIGHT, WIDTH = 60, 80
IMAGE = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
REPLIES = int(os.environ.get('INSTRUCTSAM_AGENT_REPLIES', 500))
"""Number of mutated replies. By hand: 10000."""


def square(x, score, side=10):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5 : 5 + side, x : x + side] = True
    return Mark(Rle.encode(mask), score)


FOUND = {'mug': [square(0, 0.6), square(20, 0.9), square(40, 0.7)], 'bowl': [square(60, 0.8)], 'spoon': []}


def begin(**limits):
    return loop.start('the two mugs', HEIGHT, WIDTH, Limits(**limits))


def advance(state, *replies, verdicts=(), found=FOUND):
    """Return what the replies lead to; verdicts are used up by examine_each_mask."""
    verdicts = list(verdicts)
    for reply in replies:
        assert isinstance(state, AgentState)
        state = loop.step(state, reply)
        if isinstance(state, SegmentRequest):
            state = tools.add_masks(state.state, state.phrase, found.get(state.phrase, []))
        elif isinstance(state, CheckRequest):
            state = tools.keep_accepted(state.state, [verdicts.pop(0) for _ in state.state.marks])
    return state


def segment(phrase):
    return call('segment_phrase', text_prompt=phrase)


def select(*numbers):
    return call('select_masks_and_return', final_answer_masks=list(numbers))


EXAMINE, NONE = call('examine_each_mask'), call('report_no_mask')


def texts(state):
    return [message.text for message in loop.messages(state, IMAGE)]


def images(state):
    return [
        part.image for message in loop.messages(state, IMAGE) for part in message.parts if isinstance(part, ImagePart)
    ]


def test_the_first_messages():
    state = begin()
    chat = loop.messages(state, IMAGE)
    assert [message.role for message in chat] == ['system', 'user']
    assert "'the two mugs'" in chat[1].text
    assert (images(state)[0] == IMAGE).all()


def test_a_phrase_is_segmented_and_masks_are_selected():
    state = advance(begin(), segment('mug'))
    assert [mark.score for mark in state.marks] == [0.9, 0.7, 0.6]
    assert '3 masks, numbered from 1 to 3' in texts(state)[-1]
    raw, marked = images(state)
    assert (raw == IMAGE).all()
    assert (marked != IMAGE).any()
    answer = advance(state, select(3, 1, 1))
    assert [mark.score for mark in answer.marks] == [0.9, 0.6]
    assert (answer.phrase, answer.finish_reason) == ('mug', 'stop')


def test_no_target():
    answer = advance(begin(), NONE)
    assert isinstance(answer, Answer)
    assert (answer.marks, answer.finish_reason) == ((), 'stop')


def test_examined_masks_are_dropped_and_renumbered():
    state = advance(begin(), segment('mug'), EXAMINE, verdicts=[True, False, True])
    assert [mark.score for mark in state.marks] == [0.9, 0.6]
    assert '1 mask was removed. 2 remain, numbered anew from 1 to 2' in texts(state)[-1]
    assert [mark.score for mark in advance(state, select(2)).marks] == [0.6]
    assert len(images(state)) == 2
    assert any('no longer shown' in text for text in texts(state))


def test_rejected_masks_are_no_longer_shown():
    state = advance(begin(), segment('mug'), EXAMINE, verdicts=[False] * 3)
    assert len(images(state)) == 1
    assert "None of the masks of 'mug' answers the query" in texts(state)[-1]


@pytest.mark.parametrize(
    ('before', 'reply', 'text'),
    [
        ([], 'I think it is the mug.', 'no tool call'),
        ([], '<tool>{"name": "segment_phrase", </tool>', 'no JSON'),
        ([], call('crop'), 'There is no tool'),
        ([], segment(''), '"text_prompt" is a phrase'),
        ([], segment(7), '"text_prompt" is a phrase'),
        ([], segment('mug ' * 100), 'characters. Use a short noun phrase'),
        ([], EXAMINE, 'There are no masks. Call segment_phrase'),
        ([], select(1), 'There are no masks. Call segment_phrase'),
        ([segment('spoon')], EXAMINE, 'There are no masks of the last phrase'),
        ([segment('spoon')], select(1), 'There are no masks of the last phrase'),
        ([segment('mug')], select(4), 'There is no mask 4: the numbers in the newest image are 1 to 3'),
        ([segment('mug')], select(0, 1), 'There is no mask 0'),
        ([segment('mug')], select(), 'The list is empty'),
        ([segment('mug')], call('select_masks_and_return', final_answer_masks='1'), 'is a list of numbers'),
        ([segment('mug')], select('1'), 'is a list of numbers'),
        ([segment('mug')], select(True), 'is a list of numbers'),
        ([segment('mug'), EXAMINE], select(1), 'There are no masks of the last phrase'),
        ([segment('mug'), EXAMINE], EXAMINE, 'There are no masks of the last phrase'),
    ],
)
def test_a_call_that_cannot_be_used_is_repaired(before, reply, text):
    """No exception, no empty answer: the model is told, and the next good call goes on."""
    state = advance(begin(), *before, verdicts=[False] * 3)
    state = advance(state, reply)
    assert text in texts(state)[-1]
    assert state.repairs == 1
    answer = advance(state, segment('bowl'), select(1))
    assert [mark.score for mark in answer.marks] == [0.8]


@pytest.mark.parametrize('again', ['mug', ' MUG ', '\uff4d\uff55\uff47'])
def test_a_phrase_is_not_segmented_twice(again):
    state = advance(begin(), segment('mug'))
    state = loop.step(state, segment(again))
    assert isinstance(state, AgentState)
    assert "Use a phrase that is not among these: 'mug'" in texts(state)[-1]
    assert len(advance(state, select(1, 2, 3)).marks) == 3  # the masks are still there
    assert state.repairs == 0


def test_a_phrase_that_the_segmenter_refuses():
    request = loop.step(begin(), segment('mug'))
    state = loop.refuse_phrase(request, 'it has too many tokens')
    assert "The phrase 'mug' cannot be used: it has too many tokens" in texts(state)[-1]
    assert [message.role for message in loop.messages(state, IMAGE)] == ['system', 'user', 'assistant', 'user']
    assert 'not among these' in texts(loop.step(state, segment('mug')))[-1]


def test_only_the_newest_phrase_stays_in_the_conversation():
    state = advance(begin(), segment('spoon'), segment('mug'), 'no call', segment('mug'), segment('bowl'))
    assert len(loop.messages(state, IMAGE)) == 4
    assert "These phrases did not help and cannot be used again: 'spoon', 'mug'" in texts(state)[1]
    assert "'bowl' found 1 mask" in texts(state)[-1]


def test_overlapping_masks_are_suppressed_by_the_smaller_area():
    part, whole = square(0, 0.6, side=8), square(0, 0.9, side=50)
    kept = tools.suppress_overlaps([part, whole, square(60, 0.5)])
    assert [mark.score for mark in kept] == [0.9, 0.5]
    empty = Mark(Rle.encode(np.zeros((HEIGHT, WIDTH), bool)), 1.0)
    assert tools.suppress_overlaps([empty]) == ()


def test_at_most_a_hundred_masks_are_shown():
    many = [Mark(Rle.encode(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) == i * 20), i / 200) for i in range(150)]
    state = advance(begin(), segment('x'), found={'x': many})
    assert len(state.marks) == 100
    assert min(mark.score for mark in state.marks) == 50 / 200


@pytest.mark.parametrize(
    ('limits', 'replies', 'verdicts', 'reason', 'scores'),
    [
        ({'rounds': 2}, [segment('mug'), 'hm'], (), 'round_budget', [0.9, 0.7, 0.6]),
        ({'rounds': 2}, [segment('mug'), EXAMINE], (True, False, False), 'round_budget', [0.9]),
        ({'rounds': 2}, [segment('mug'), EXAMINE], (False,) * 3, 'round_budget', []),
        ({'rounds': 3}, [segment('bowl'), segment('mug'), EXAMINE], (False,) * 3, 'round_budget', [0.8]),
        ({'rounds': 2}, [segment('bowl'), segment('spoon')], (), 'round_budget', [0.8]),
        ({'repairs': 1}, [segment('bowl'), 'hm', 'hm'], (), 'repair_budget', [0.8]),
        ({'repairs': 0}, ['hm'], (), 'repair_budget', []),
    ],
)
def test_a_limit_ends_with_the_best_masks_so_far(limits, replies, verdicts, reason, scores):
    state = advance(begin(**limits), *replies[:-1])
    assert loop.limit_reached(state) is None
    answer = loop.limit_reached(advance(state, replies[-1], verdicts=verdicts))
    assert (answer.finish_reason, [mark.score for mark in answer.marks]) == (reason, scores)
    assert answer.phrase == {0.8: 'bowl', 0.9: 'mug'}.get(scores[0] if scores else 0, '')


@pytest.mark.parametrize('limits', [{'rounds': 0}, {'repairs': -1}, {'seconds': 0}, {'seconds': float('nan')}])
def test_limits_out_of_range(limits):
    with pytest.raises(InstructSAMError, match='limits of the agent'):
        Limits(**limits)


def test_the_question_about_one_mask_has_three_images():
    _, question = loop.check_messages('the mug', IMAGE, FOUND['mug'][0])
    assert sum(isinstance(part, ImagePart) for part in question.parts) == 3
    assert "'the mug'" in question.text


def test_mutated_replies_never_leave_the_loop():
    """Any reply leads to a state, a request or an answer, and every conversation ends."""
    replies, ends, seed = 0, collections.Counter(), 0
    while replies < REPLIES:
        try:
            answer, rounds = converse_with_mutations(random.Random(seed))
        except BaseException as error:
            raise AssertionError(f'conversation {seed}') from error
        ends[answer.finish_reason, bool(answer.marks)] += 1
        replies += rounds
        seed += 1
    assert len(ends) >= 5  # all kinds of ends occur
    print(replies, 'replies in', seed, 'conversations:', dict(ends))


def converse_with_mutations(rng):
    """Return the answer of one conversation and the number of its replies."""
    state = begin(rounds=12, repairs=rng.choice((0, 2, 12)))
    while (answer := loop.limit_reached(state)) is None:
        before = state
        outcome = loop.step(state, random_reply(rng), is_cut=rng.random() < 0.1)
        if isinstance(outcome, SegmentRequest):
            if rng.random() < 0.1:
                outcome = loop.refuse_phrase(outcome, 'no reason')
            else:
                found = [square(rng.randrange(70), rng.random(), rng.randrange(1, 10)) for _ in range(rng.randrange(5))]
                outcome = tools.add_masks(outcome.state, outcome.phrase, found)
        elif isinstance(outcome, CheckRequest):
            verdicts = [parse_verdict(random_verdict(rng)) is not False for _ in outcome.state.marks]
            outcome = tools.keep_accepted(outcome.state, verdicts)
        if isinstance(outcome, Answer):
            answer = outcome
            break
        state = outcome
        assert state.rounds == before.rounds + 1
        chat = loop.messages(state, IMAGE)
        assert len(chat) <= 8
        assert [message.role for message in chat] == (['system'] + ['user', 'assistant'] * 4)[: len(chat)]
        assert chat[-1].role == 'user'
        assert sum(isinstance(part, ImagePart) for message in chat for part in message.parts) <= 2
    assert answer.finish_reason in ('stop', 'round_budget', 'repair_budget')
    assert bool(answer.marks) == bool(answer.phrase)
    return answer, state.rounds + (answer.finish_reason == 'stop')
