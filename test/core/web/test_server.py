"""`instructsam web`: arguments, socket, checks of requests, signals."""

import os
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip('gradio', reason='needs the extra web')

from web_engine import PageEngine

import instructsam.core
from instructsam.core import cli, exit_codes
from instructsam.core.errors import InstructSAMError
from instructsam.core.web.server import is_loopback, listen
from instructsam.core.web.uploads import private_folder


@pytest.fixture
def engine(monkeypatch):
    engine = PageEngine()
    monkeypatch.setattr(instructsam.core, 'InstructSAM', engine)
    return engine


def get(url, **headers):
    """Return (status, headers) of a request, without a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=30) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


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


@pytest.mark.parametrize('host', ['127.0.0.1', '::1', 'localhost', '127.1.2.3'])
def test_loopback(host):
    assert is_loopback(host)
    assert not is_loopback('0.0.0.0')
    assert not is_loopback('example.org')


def test_ipv6():
    try:
        listener = listen('::1', 0)
    except InstructSAMError:
        pytest.skip('this machine has no IPv6')
    with listener:
        assert listener.getsockname()[0] == '::1'


def test_uploads_are_removed(monkeypatch):
    monkeypatch.delenv('GRADIO_TEMP_DIR', raising=False)
    with private_folder() as folder:
        assert os.environ['GRADIO_TEMP_DIR'] == folder
        (Path(folder) / 'photo.jpg').touch()
    assert not Path(folder).exists()
    assert 'GRADIO_TEMP_DIR' not in os.environ


@pytest.mark.parametrize('host', ['127.0.0.1', '0.0.0.0'])
def test_serving_until_a_signal(engine, host, monkeypatch, capsys):
    """The page answers its own address only, tells the browser to load nothing else, and Ctrl-C ends it."""
    found = {}

    def visit(url):
        url = url.replace('0.0.0.0', '127.0.0.1')
        own = url.removeprefix('http://')
        found['page'] = get(url)
        found['camera'] = get(f'{url}/camera.jpg')
        found['another site'] = get(url, Origin='http://example.org')
        found['its own'] = get(url, Origin=url)
        found['a name that resolves to here'] = get(url, Host=own.replace('127.0.0.1', 'example.org'))
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr('webbrowser.open', lambda url: threading.Thread(target=visit, args=(url,)).start())
    assert cli.main(['web', '--port', '0', '--host', host, '--open']) == exit_codes.INTERRUPTED
    out, err = capsys.readouterr()
    assert 'in a browser' in out
    assert ('it has no password' in err) == (host == '0.0.0.0')
    status, headers = found['page']
    assert status == 200
    assert "default-src 'self'" in headers['Content-Security-Policy']
    assert found['camera'][0] == 404
    assert found['another site'][0] == 403
    assert found['its own'][0] == 200
    assert found['a name that resolves to here'][0] == (403 if host == '127.0.0.1' else 200)
    assert 'Traceback' not in err
