"""The client of a VLM, against a real HTTP server on the loopback that misbehaves in every way."""

import asyncio
import base64
import gzip
import json
import logging
import socket
import time
import traceback

import cv2
import numpy as np
import pydantic
import pytest
from chat_server import answers, chat_server, completion, cuts, drips, fails, hangs, says, sends

from instructsam.core.errors import InstructSAMError
from instructsam.train.vlm import client as client_module
from instructsam.train.vlm.budget import Budget, BudgetSettings, BudgetSpent
from instructsam.train.vlm.cache import ReplyCache
from instructsam.train.vlm.chat import Message
from instructsam.train.vlm.client import VlmClient
from instructsam.train.vlm.errors import BadReply, EmptyReply, VlmBusy, VlmError, VlmRefused, VlmUnreachable
from instructsam.train.vlm.settings import VlmSettings

KEY = 'sk-a-very-secret-key-0123456789'
CHAT = (Message.of('system', 'be brief'), Message.of('user', 'hello?'))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', KEY)
    for name in ('http_proxy', 'https_proxy', 'all_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with chat_server() as server:
        yield server


@pytest.fixture
def connect(server):
    clients = []

    def connect(cache=None, budget=None, **settings):
        settings = {'url': server.url, 'model': 'test', 'timeout_s': 10, **settings}
        clients.append(VlmClient(VlmSettings(**settings), cache, budget))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_a_reply_with_its_cost(server, connect):
    reply = connect(seed=5, max_tokens=77).ask_now(CHAT)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ('hello', 7, 3)
    assert (reply.calls, reply.cached, reply.finish_reason) == (1, False, 'stop')
    assert 0 < reply.seconds < 10
    assert server.paths == ['/v1/chat/completions']
    assert server.headers[0]['authorization'] == f'Bearer {KEY}'
    assert server.requests == [
        {
            'model': 'test',
            'messages': [{'role': 'system', 'content': 'be brief'}, {'role': 'user', 'content': 'hello?'}],
            'temperature': 0.0,
            'seed': 5,
            'max_tokens': 77,
        }
    ]


def test_an_image_arrives_as_a_jpeg(server, connect):
    image = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    connect().ask_now([Message.of('user', image, 'what is it?')])
    first, second = server.requests[0]['messages'][0]['content']
    assert second == {'type': 'text', 'text': 'what is it?'}
    head, _, data = first['image_url']['url'].partition(',')
    assert head == 'data:image/jpeg;base64'
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert pixels.shape == image.shape
    assert np.abs(pixels.astype(int) - image).max() < 6


@pytest.mark.parametrize('status', [429, 500, 503, 408])
def test_a_busy_server_is_asked_again(server, connect, status):
    server.actions = [fails(status), fails(status)]
    reply = connect(retries=2).ask_now(CHAT)
    assert (reply.text, reply.calls) == ('hello', 3)


def test_the_wait_that_the_server_asks_for_is_kept(server, connect):
    server.actions = [lambda handler, _: handler.send_json({}, 429, **{'Retry-After': '0.3'})]
    start = time.monotonic()
    assert connect(retries=1).ask_now(CHAT).text == 'hello'
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize(
    ('action', 'settings', 'error', 'text'),
    [
        (fails(429), {'retries': 1}, VlmBusy, 'HTTP 429'),
        (fails(500, {'error': 'out of memory'}), {'retries': 0}, VlmBusy, 'out of memory'),
        (fails(400, {'error': {'message': 'context too long'}}), {}, VlmRefused, 'context too long'),
        (fails(401), {}, VlmRefused, 'OPENAI_API_KEY'),
        (fails(403), {}, VlmRefused, 'OPENAI_API_KEY'),
        (fails(404), {}, VlmRefused, "the model 'test'"),
        (fails(307, Location='http://127.0.0.1:9/v1'), {}, VlmRefused, 'HTTP 307'),
        (hangs, {'timeout_s': 0.2, 'retries': 0}, VlmBusy, 'no complete reply within 0.2 s, in the only try'),
        (drips, {'timeout_s': 0.3, 'retries': 0}, VlmBusy, 'no complete reply within 0.3 s'),
        (cuts, {'retries': 0}, BadReply, 'closed the connection before'),
        (sends(b'<html>a proxy</html>'), {}, BadReply, "is no JSON: '<html>a proxy</html>'"),
        (sends(b''), {}, BadReply, 'is no JSON'),
        (sends(b'[' * 100_000), {}, BadReply, 'is no JSON'),
        (sends(b'\xff\xfe'), {}, BadReply, 'is no JSON'),
        (sends(b'null'), {}, BadReply, 'not a chat completion'),
        (sends(b'{"choices": []}'), {}, BadReply, 'not a chat completion'),
        (sends(b'{"choices": [{"message": null}]}'), {}, BadReply, 'not a chat completion'),
        (sends(b'{"choices": [{"message": {"content": 5}}]}'), {}, BadReply, 'not a chat completion'),
        (sends(b'{"choices": [{"message": {"content": [5]}}]}'), {}, BadReply, 'not a chat completion'),
        (sends(b'{"error": "a 200 that is none"}'), {}, BadReply, 'a 200 that is none'),
        (says(None), {}, EmptyReply, 'without text'),
        (says('  '), {}, EmptyReply, 'without text'),
    ],
)
def test_every_failure_has_its_error(server, connect, action, settings, error, text):
    server.default = action
    start = time.monotonic()
    with pytest.raises(error) as caught:
        connect(**settings).ask_now(CHAT)
    assert text in str(caught.value)
    assert not str(caught.value).endswith('.')
    assert caught.value.is_final == ('Refused' in error.__name__ and 'HTTP 400' not in str(caught.value))
    assert time.monotonic() - start < 3


def test_a_cut_body_is_asked_for_again(server, connect, monkeypatch):
    monkeypatch.setattr('openai._base_client.INITIAL_RETRY_DELAY', 0.01)
    server.actions = [cuts, hangs, drips]
    assert connect(timeout_s=0.5, retries=3).ask_now(CHAT).calls == 4


def test_no_server(connect, monkeypatch):
    monkeypatch.setattr('openai._base_client.INITIAL_RETRY_DELAY', 0.01)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{free.getsockname()[1]}/v1'
    with pytest.raises(VlmUnreachable, match='there is no VLM at http://127') as caught:
        connect(url=url).ask_now(CHAT)
    assert caught.value.is_final


def test_the_limit_of_a_call_bounds_all_its_tries(server, connect):
    server.default = lambda handler, _: handler.send_json({}, 503, **{'Retry-After': '30'})
    start = time.monotonic()
    with pytest.raises(VlmBusy, match=r'within the 0\.2 s that were left'):
        connect().ask_now(CHAT, time_limit_s=0.2)
    assert time.monotonic() - start < 2


def test_a_reply_without_end_is_not_read(server, connect, monkeypatch):
    monkeypatch.setattr(client_module, 'MAX_REPLY_BYTES', 1 << 20)
    bomb = gzip.compress(bytes(8 << 20))
    server.default = sends(bomb, **{'Content-Encoding': 'gzip'})
    with pytest.raises(BadReply, match='more than 1 MB'):
        connect().ask_now(CHAT)


def test_a_compressed_reply(server, connect):
    body = gzip.compress(json.dumps(completion('hi')).encode())
    server.default = sends(body, **{'Content-Encoding': 'gzip'})
    assert connect().ask_now(CHAT).text == 'hi'


@pytest.mark.parametrize('status', [200, 400, 401, 500])
def test_the_key_is_in_no_text(server, connect, tmp_path, caplog, status):
    """The server repeats it, the library logs all that it logs, and the traceback is printed."""
    caplog.set_level(logging.DEBUG)
    server.default = lambda handler, _: handler.send_json(
        {**completion(f'your key is {KEY}'), 'error': f'bad key {KEY}'}, status
    )
    cache = ReplyCache(tmp_path / 'cache.sqlite')
    client = connect(cache, retries=0)
    try:
        text = client.ask_now(CHAT).text
    except VlmError:
        text = traceback.format_exc()
    assert '[key]' in text
    assert KEY not in text
    assert KEY not in caplog.text
    assert KEY not in repr(client.settings)
    cache.close()
    assert KEY.encode() not in (tmp_path / 'cache.sqlite').read_bytes()


@pytest.mark.parametrize('bad', ['sk 1', 'sk\n1', 'schlüssel'])
def test_a_key_that_cannot_be_sent(connect, monkeypatch, bad):
    monkeypatch.setenv('MY_KEY', bad)
    with pytest.raises(InstructSAMError, match='the key in MY_KEY') as caught:
        connect(key_variable='MY_KEY')
    assert bad not in str(caught.value)


def test_no_key_is_needed(server, connect, monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY')
    assert connect().ask_now(CHAT).text == 'hello'
    assert server.headers[0]['authorization'] == 'Bearer none'


class Color(pydantic.BaseModel):
    """A colour."""

    name: str
    red: int


@pytest.mark.parametrize('text', ['{"name": "wine", "red": 90}', '```json\n{"name": "wine", "red": 90}\n```'])
def test_a_reply_of_a_schema(server, connect, text):
    server.default = says(text)
    assert connect().ask_now(CHAT, Color).value == Color(name='wine', red=90)
    form = server.requests[0]['response_format']
    assert form['type'] == 'json_schema'
    assert form['json_schema']['schema']['required'] == ['name', 'red']
    connect(structured=False).ask_now(CHAT, Color)
    assert 'response_format' not in server.requests[1]


@pytest.mark.parametrize('text', ['red', '{"name": "wine"}', '[]', '{"name": "wine", "red": "very"}'])
def test_a_reply_of_another_form(server, connect, tmp_path, text):
    """Servers ignore the form without saying so; the reply is not kept."""
    server.default = says(text)
    cache = ReplyCache(tmp_path / 'cache.sqlite')
    with pytest.raises(BadReply, match='the reply is no Color'):
        connect(cache).ask_now(CHAT, Color)
    assert len(cache) == 0


def test_a_known_reply_costs_nothing(server, connect, tmp_path):
    budget = Budget(BudgetSettings(calls=1))
    first = connect(ReplyCache(tmp_path / 'cache.sqlite'), budget).ask_now(CHAT)
    again = connect(ReplyCache(tmp_path / 'cache.sqlite'), budget).ask_now(CHAT)
    assert (again.text, again.completion_tokens, again.seconds) == (first.text, 3, first.seconds)
    assert (first.cached, again.cached) == (False, True)
    assert len(server.requests) == 1
    with pytest.raises(BudgetSpent, match='budget of 1 calls'):
        connect(ReplyCache(tmp_path / 'cache.sqlite'), budget, seed=1).ask_now(CHAT)
    assert budget.spent.tokens == 10


def test_many_questions_at_once(server, connect):
    server.default = answers(lambda request: request['messages'][-1]['content'].upper())
    client = connect(concurrency=3)

    async def ask_all():
        try:
            return await asyncio.gather(*(client.ask([Message.of('user', f'q{number}')]) for number in range(12)))
        finally:
            await client.aclose()

    assert [reply.text for reply in asyncio.run(ask_all())] == [f'Q{number}' for number in range(12)]
