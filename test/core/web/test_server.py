"""`instructsam web`: arguments, socket, checks of requests, signals."""

import json
import os
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('gradio', reason='needs the extra web')

import gradio as gr
from web_engine import PageEngine

import instructsam.core
from instructsam.core import cli, exit_codes
from instructsam.core.errors import InstructSAMError
from instructsam.core.web.page import CAMERA, Newest, Page
from instructsam.core.web.server import is_loopback, listen, private_folder


@pytest.fixture
def engine(monkeypatch):
    engine = PageEngine()
    monkeypatch.setattr(instructsam.core, 'InstructSAM', engine)
    return engine


def get(url, content=None, **headers):
    """Return (status, headers, body) of a request, without a proxy; it is a POST of JSON if it has content."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    if content is not None:
        content, headers['Content-Type'] = json.dumps(content).encode(), 'application/json'
    try:
        with opener.open(urllib.request.Request(url, content, headers), timeout=30) as response:
            return response.status, response.headers, response.read().decode('utf-8', 'replace')
    except urllib.error.HTTPError as error:
        return error.code, error.headers, ''


def ask(url, path, **fields):
    """Return the events of a question about a file that was not uploaded, as a program could ask it."""
    config = json.loads(get(f'{url}/config')[2])
    question = config['dependencies'][0]
    kinds = {each['id']: each['type'] for each in config['components']}
    values = {
        'textbox': 'the mugs',
        'slider': 0.5,
        'radio': 'own image',
        'image': {'path': str(path), **fields},
    }
    data = [values.get(kinds[each]) for each in question['inputs']]
    get(f'{url}/gradio_api/queue/join', {'data': data, 'fn_index': question['id'], 'session_hash': 'program'})
    return get(f'{url}/gradio_api/queue/data?session_hash=program')[2]


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--port', '70000'], 'expected a port from 0 to 65535, got 70000'),
        (['--model', 'missing', '--port', '0'], 'there is no model missing'),
        (['--camera', 'left', '--port', '0'], '--camera belongs to --node'),
        (['--host', '203.0.113.7', '--port', '0'], 'give an address of this machine as --host'),
        (['--host', 'no such host', '--port', '0'], 'cannot listen on port 0 of no such host'),
    ],
)
def test_bad_arguments(engine, arguments, said, capsys):
    try:
        code = cli.main(['web', *arguments])
    except SystemExit as end:  # argparse
        code = end.code
    assert code == exit_codes.USAGE
    assert said in capsys.readouterr().err


def test_a_port_in_use_is_said_before_a_model_is_loaded(capsys):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(['web', '--model', 'absent', '--port', str(port)]) == exit_codes.USAGE
    assert f'port {port} of 127.0.0.1: it is in use; give another --port' in capsys.readouterr().err


def test_without_gradio_the_error_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    assert cli.main(['web']) == exit_codes.USAGE
    assert 'pip install "instructsam-ros[web]"' in capsys.readouterr().err


def test_loopback():
    assert all(map(is_loopback, ('127.0.0.1', '::1', 'localhost', '127.1.2.3')))
    assert not any(map(is_loopback, ('0.0.0.0', 'example.org', '')))


def test_ipv6():
    try:
        listener = listen('::1', 0)
    except InstructSAMError:
        pytest.skip('this machine has no IPv6')
    with listener:
        assert listener.getsockname()[0] == '::1'


def test_the_newest_question_of_a_tab():
    newest = Newest()
    first, other = newest.begin('a'), newest.begin('b')
    assert not first()
    second = newest.begin('a')
    assert (first(), second(), other()) == (True, False, False)
    newest.leave('b')
    assert other()
    newest.close()
    assert second()


@pytest.mark.parametrize('error', [InstructSAMError('no image has arrived'), RuntimeError('a fault')])
def test_an_error_of_a_replaced_question_leaves_the_page_as_it_is(error):
    tab = SimpleNamespace(session_hash='tab')

    def answer(question, cancelled):
        if question.instruction == 'first':
            ask('second')
        raise error

    def ask(instruction):
        answers[instruction] = page._ask(tab, [], CAMERA, None, instruction, 0.5, None)

    answers = {}
    source = SimpleNamespace(name='stand-in', has_camera=True, takes_depth=False, answer=answer)
    page = Page(source, [], 64)
    ask('first')
    assert str(error) in answers['second'][0]
    assert answers['first'] == [gr.skip()] * 6


def test_the_camera_of_the_computer_is_not_mirrored():
    page = Page(SimpleNamespace(name='stand-in', has_camera=False, takes_depth=False), [], 64)
    images = [each for each in page.blocks.blocks.values() if isinstance(each, gr.Image)]
    assert [each.webcam_options.mirror for each in images] == [False]


def test_uploads_are_removed(monkeypatch):
    monkeypatch.delenv('GRADIO_TEMP_DIR', raising=False)
    with private_folder() as folder:
        assert os.environ['GRADIO_TEMP_DIR'] == folder
        (Path(folder) / 'photo.jpg').touch()
    assert not Path(folder).exists()
    assert 'GRADIO_TEMP_DIR' not in os.environ


@pytest.mark.parametrize('host', ['127.0.0.1', '0.0.0.0'])
def test_serving_until_a_signal(engine, host, monkeypatch, capsys, tmp_path):
    """The page answers its own address only, tells the browser to load nothing else, and Ctrl-C ends it.

    It reads files that were uploaded, and no others of this machine or from elsewhere.
    """
    found = {}
    private = tmp_path / 'private.png'
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(private)

    def visit(url):
        own = url.removeprefix('http://')
        found['page'] = get(url)
        found['camera'] = get(f'{url}/camera.jpg')
        found['another site'] = get(url, Origin='http://example.org')
        found['its own'] = get(url, Origin=url)
        found['a name that resolves to here'] = get(url, Host=f'example.org:{own.rpartition(":")[2]}')
        is_file = {'meta': {'_type': 'gradio.FileData'}}
        found['a private file'] = ask(url, private, **is_file)
        found['a private file by its name'] = ask(url, private)
        found['an address'] = ask(url, f'{url}/camera.jpg', **is_file)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr('webbrowser.open', lambda url: threading.Thread(target=visit, args=(url,)).start())
    assert cli.main(['web', '--port', '0', '--host', host, '--open']) == exit_codes.INTERRUPTED
    out, err = capsys.readouterr()
    assert 'in a browser' in out
    assert ('it has no password' in err) == (host == '0.0.0.0')
    status, headers, _ = found['page']
    assert status == 200
    assert "default-src 'self'" in headers['Content-Security-Policy']
    assert found['camera'][0] == 404
    assert found['another site'][0] == 403
    assert found['its own'][0] == 200
    assert found['a name that resolves to here'][0] == (403 if host == '127.0.0.1' else 200)
    assert 'not uploaded by a user' in found['a private file']
    assert 'give a file that was uploaded' in found['a private file by its name']
    assert 'downloads nothing' in found['an address']
