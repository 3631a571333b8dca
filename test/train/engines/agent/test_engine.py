"""The agent's engine with a real client, against servers on the loopback; the segmenter is a table."""

import json
import time

import numpy as np
import pytest
from agent_replies import call
from chat_server import answers, chat_server, completion, cuts, drips, fails, hangs, says

from instructsam.core.errors import ImageError, InstructionError
from instructsam.core.rle import Rle
from instructsam.train.engines.agent.backends import PhraseImage
from instructsam.train.engines.agent.engine import AgentEngine, QueryFailed
from instructsam.train.engines.agent.state import Limits, Mark
from instructsam.train.vlm.client import VlmClient
from instructsam.train.vlm.errors import VlmRefused, VlmUnreachable
from instructsam.train.vlm.settings import VlmSettings

HEIGHT, WIDTH = 60, 80
IMAGE = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)


def square(x, score):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:15, x : x + 10] = True
    return Mark(Rle.encode(mask), score)


class Table:
    """A segmenter with known masks."""

    masks = {'mug': (square(0, 0.6), square(20, 0.9)), 'spoon': ()}  # noqa: RUF012

    def encode(self, image):
        if image.ndim != 3:
            raise ImageError('no image')
        return PhraseImage(*image.shape[:2], None)

    def segment(self, encoded, phrase):
        if phrase not in self.masks:
            raise InstructionError('it is not in the table')
        return self.masks[phrase]


@pytest.fixture
def server():
    with chat_server() as server:
        yield server


@pytest.fixture
def ask(server):
    """Return a function that asks the agent; it returns the result and the recorded conversation."""
    clients = []

    def ask(query='the mugs', limits=None, **settings):
        settings = {'url': server.url, 'model': 'simulated', 'retries': 0, 'timeout_s': 5, **settings}
        clients.append(VlmClient(VlmSettings(**settings)))
        conversations = []
        engine = AgentEngine(clients[-1], Table(), Limits(**(limits or {})), conversations.append)
        try:
            result = engine.segment(engine.encode(IMAGE), query)
        except Exception:
            ask.failed = conversations
            raise
        (conversation,) = conversations
        json.dumps(conversation)
        return result, conversation

    yield ask
    for client in clients:
        client.close()


def script(server, *replies):
    server.actions = [says(reply) for reply in replies]


SEGMENT = call('segment_phrase', text_prompt='mug')
EXAMINE = call('examine_each_mask')
SELECT = call('select_masks_and_return', final_answer_masks=[1])
ACCEPT, REJECT = '<verdict>Accept</verdict>', '<verdict>Reject</verdict>'


def test_a_conversation(server, ask):
    script(server, SEGMENT, EXAMINE, REJECT, ACCEPT, SELECT)
    result, conversation = ask()
    assert [instance.score for instance in result.instances] == [0.6]
    assert (result.phrases, result.finish_reason, result.status) == (('mug',), 'stop', 'ok')
    assert result.usage == {
        'rounds': 3, 'checks': 2, 'calls': 5, 'prompt_tokens': 35, 'completion_tokens': 15, 'cached': 0,
    }  # fmt: skip
    assert result.to_json()['usage'] == result.usage
    assert set(result.timings_ms) == {'image_encoders', 'vlm', 'masks'}
    assert [each['kind'] for each in conversation['exchanges']] == ['round', 'round', 'check', 'check', 'round']
    assert [each.get('accepted') for each in conversation['exchanges']] == [None, None, False, True, None]
    assert conversation['exchanges'][4]['masks'] == [square(0, 0.6).mask.to_coco()]
    assert conversation['finish_reason'] == 'stop'
    assert [str(request).count("'type': 'image_url'") for request in server.requests] == [1, 2, 3, 3, 2]


def test_no_target_is_an_answer(server, ask):
    script(server, call('report_no_mask'))
    result, _ = ask()
    assert (result.status, result.finish_reason, result.phrases) == ('no_target', 'stop', ())


def test_the_threshold_applies_to_the_scores_of_the_masks(server):
    script(server, SEGMENT, call('select_masks_and_return', final_answer_masks=[1, 2]))
    client = VlmClient(VlmSettings(server.url, 'simulated'))
    engine = AgentEngine(client, Table())
    result = engine.segment(engine.encode(IMAGE), 'the mugs', score_threshold=0.7)
    assert [instance.score for instance in result.instances] == [0.9]
    client.close()


def test_bad_replies_are_repaired(server, ask):
    script(
        server, 'hm', '<tool>{"name"</tool>', SEGMENT, call('select_masks_and_return', final_answer_masks=[3]), SELECT
    )
    result, conversation = ask(limits={'repairs': 3})
    assert [instance.score for instance in result.instances] == [0.9]
    assert conversation['rounds'] == 5
    assert 'the numbers in the newest image are 1 to 2' in conversation['exchanges'][-1]['sent']


def test_a_phrase_that_the_segmenter_refuses(server, ask):
    script(server, call('segment_phrase', text_prompt='unicorn'), SEGMENT, SELECT)
    result, conversation = ask()
    assert len(result.instances) == 1
    assert "The phrase 'unicorn' cannot be used: it is not in the table" in conversation['exchanges'][1]['sent']


def test_an_empty_reply_is_repaired(server, ask):
    """It was paid for like the others, with the tries before it."""
    server.actions = [fails(503), says(None), says(SEGMENT), says(SELECT)]
    result, _ = ask(retries=1)
    assert len(result.instances) == 1
    assert [result.usage[name] for name in ('calls', 'prompt_tokens', 'completion_tokens')] == [4, 21, 9]


@pytest.mark.parametrize('unclear', ['', 'Accept', ACCEPT + REJECT])
def test_a_mask_without_a_clear_verdict_stays(server, ask, unclear):
    script(server, SEGMENT, EXAMINE, unclear or None, unclear or None, 'no', REJECT, SELECT)
    result, conversation = ask()
    assert [instance.score for instance in result.instances] == [0.9]
    assert [each['accepted'] for each in conversation['exchanges'] if each['kind'] == 'check'] == [
        None,
        None,
        None,
        False,
    ]


@pytest.mark.parametrize(
    ('limits', 'replies', 'reason', 'count'),
    [
        ({'rounds': 2}, [SEGMENT, 'hm'], 'round_budget', 2),
        ({'repairs': 1}, [SEGMENT, 'hm', 'hm'], 'repair_budget', 2),
        ({'repairs': 0}, ['hm'], 'repair_budget', 0),
    ],
)
def test_a_limit_ends_with_the_best_masks(server, ask, limits, replies, reason, count):
    script(server, *replies)
    result, conversation = ask(limits=limits)
    assert (result.finish_reason, len(result.instances)) == (reason, count)
    assert result.status == ('ok' if count else 'error')
    assert conversation['finish_reason'] == reason


@pytest.mark.parametrize('slow', [hangs, drips, fails(503, **{'retry-after-ms': '60000'})])
def test_the_time_ends_with_the_best_masks(server, ask, slow):
    server.actions = [says(SEGMENT), slow]
    start = time.monotonic()
    result, _ = ask(limits={'seconds': 0.5}, retries=3, timeout_s=60)
    assert (result.finish_reason, len(result.instances)) == ('time_budget', 2)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize('failure', [fails(500), fails(429), fails(400), cuts])
def test_a_failure_is_the_end_of_a_query_but_not_of_the_run(server, ask, failure):
    server.actions = [says(SEGMENT), failure]
    with pytest.raises(QueryFailed):
        ask()
    (conversation,) = ask.failed
    assert conversation['error']
    assert conversation['rounds'] == 1


def test_a_refused_key_ends_the_run(server, ask):
    server.default = fails(401)
    with pytest.raises(VlmRefused, match='refuses the key'):
        ask()
    assert len(server.requests) == 1


def test_no_server_ends_the_run(ask):
    with pytest.raises(VlmUnreachable, match='there is no VLM'):
        ask(url='http://127.0.0.1:9/v1')


def test_input_that_cannot_be_used(server, ask):
    with pytest.raises(InstructionError, match='empty'):
        ask(query=' ')
    client = VlmClient(VlmSettings(server.url, 'simulated'))
    first, second = AgentEngine(client, Table()), AgentEngine(client, Table())
    with pytest.raises(ImageError, match='another engine'):
        second.segment(first.encode(IMAGE), 'the mug')
    with pytest.raises(InstructionError, match='cannot be given phrases'):
        first.segment(first.encode(IMAGE), 'the mug', answer='mug')
    client.close()


def test_two_conversations_are_equal(server, ask):
    """The same replies lead to the same requests, byte by byte: colours and numbers are not drawn at random."""

    def reply(request):
        return SEGMENT if len(request['messages']) == 2 else SELECT

    server.default = answers(reply)
    first, second = ask()[1], ask()[1]
    sent = [json.dumps(request) for request in server.requests]
    assert sent[: len(sent) // 2] == sent[len(sent) // 2 :]
    for conversation in (first, second):
        conversation.pop('seconds')
        for exchange in conversation['exchanges']:
            exchange.pop('seconds')
    assert first == second


def test_the_tokens_of_a_reply_that_was_cut_off(server, ask):
    cut = completion('The mug is')
    cut['choices'][0]['finish_reason'] = 'length'
    server.actions = [lambda handler, _: handler.send_json(cut), says(SEGMENT), says(SELECT)]
    _, conversation = ask()
    assert 'cut off because it is too long' in conversation['exchanges'][1]['sent']
