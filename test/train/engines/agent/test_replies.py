"""Replies of the model: what is accepted as a call, and the named fault of everything else."""

import pytest
from agent_replies import call

from instructsam.train.engines.agent.replies import parse_call, parse_verdict
from instructsam.train.engines.agent.state import Fault, ToolCall


@pytest.mark.parametrize(
    'reply',
    [
        call('segment_phrase', text_prompt='red mug'),
        '<tool>{"name": "segment_phrase", "parameters": {"text_prompt": "red mug"}}}</tool>',
        '<tool>\n```json\n{"name": "segment_phrase", "parameters": {"text_prompt": "red mug"}}\n```\n</tool>',
        '<tool>{"name": "segment_phrase", "parameters": {"text_prompt": "red mug"}}',
        '<tool>{"name": "segment_phrase", "parameters": {"text_prompt": "red mug"}}</tool> then <tool>{}</tool>',
        '<think>first <tool>{"name": "report_no_mask"}</tool>?</think>\n'
        '<tool>{"name": "segment_phrase", "parameters": {"text_prompt": "red mug"}}</tool>',
        'a </think> b </think><tool>{"parameters": {"text_prompt": "red mug"}, "name": "segment_phrase"}</tool>',
    ],
)
def test_calls_that_are_understood(reply):
    found = parse_call(reply)
    assert isinstance(found, ToolCall)
    assert (found.name, found.parameters) == ('segment_phrase', {'text_prompt': 'red mug'})
    assert found.text.endswith('</tool>')
    assert found.text.count('</tool>') == reply.partition('then')[0].count('</tool>') or '</tool>' not in reply


def test_parameters_may_be_left_out_where_there_are_none():
    assert parse_call('<tool>{"name": "report_no_mask"}</tool>').name == 'report_no_mask'
    assert parse_call('<tool>{"name": "segment_phrase"}</tool>').kind == 'bad_parameters'


@pytest.mark.parametrize(
    ('reply', 'kind', 'text'),
    [
        ('', 'no_call', 'has no tool call between <tool> and </tool>'),
        ('The mug is red.', 'no_call', 'has no tool call'),
        ('<think>endless', 'no_call', 'has no tool call'),
        ('<tool>segment_phrase("mug")</tool>', 'bad_json', 'is no JSON'),
        ('<tool></tool>', 'bad_json', 'is no JSON'),
        ("<tool>{'name': 'report_no_mask'}</tool>", 'bad_json', 'is no JSON'),
        ('<tool>{"name": "report_no_mask"} or not</tool>', 'bad_json', 'or not'),
        ('<tool>' + '[' * 50_000 + '</tool>', 'bad_json', 'is no JSON'),
        ('<tool>{"name": ' + '9' * 5000 + '}</tool>', 'bad_json', 'is no JSON'),
        ('<tool>[1]</tool>', 'bad_json', 'has to be a JSON object'),
        (
            call('zoom_in'),
            'unknown_tool',
            "There is no tool 'zoom_in'. The tools are segment_phrase, examine",
        ),
        ('<tool>{"name": ["report_no_mask"]}</tool>', 'unknown_tool', 'There is no tool'),
        (call('segment_phrase', phrase='mug'), 'bad_parameters', 'an object with "text_prompt", not'),
        (
            call('segment_phrase', text_prompt='mug', image=2),
            'bad_parameters',
            "not {'text_prompt': 'mug', 'image': 2}",
        ),
        (call('report_no_mask', reason='none'), 'bad_parameters', 'an object with no keys'),
        ('<tool>{"name": "report_no_mask", "parameters": []}</tool>', 'bad_parameters', 'not []'),
    ],
)
def test_every_other_reply_is_a_named_fault(reply, kind, text):
    fault = parse_call(reply)
    assert isinstance(fault, Fault)
    assert fault.kind == kind
    assert text in fault.message
    assert len(fault.message) < 600


def test_a_reply_that_was_cut_off_is_told_so():
    assert 'cut off because it is too long' in parse_call('The mug ... ' * 100, is_cut=True).message


@pytest.mark.parametrize(
    ('reply', 'verdict'),
    [
        ('It fits. <verdict>Accept</verdict>', True),
        ('<verdict> reject. </verdict>', False),
        ('<think><verdict>Accept</verdict>?</think><verdict>Reject</verdict>', False),
        ('<verdict>Accept</verdict><verdict>Accept</verdict>', True),
        ('<verdict>Accept</verdict> or <verdict>Reject</verdict>', None),
        ('Accept', None),
        ('', None),
    ],
)
def test_verdicts(reply, verdict):
    assert parse_verdict(reply) is verdict
