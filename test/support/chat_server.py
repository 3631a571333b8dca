"""A chat-completions server on the loopback, written with the standard library, that does what a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Action = Callable[['Handler', dict[str, Any]], None]
"""Answers one request: gets the handler and the request's JSON."""


class Handler(BaseHTTPRequestHandler):
    """Passes a request on to the server's next action."""

    protocol_version = 'HTTP/1.1'
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        with self.server.lock:
            self.server.requests.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.server.paths.append(self.path)
            action = self.server.actions.pop(0) if self.server.actions else self.server.default
        action(self, body)

    def send_json(self, document: object, status: int = 200, **headers: str) -> None:
        self.send_body(json.dumps(document).encode(), status, **{'Content-Type': 'application/json', **headers})

    def send_body(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {'Content-Length': str(len(body)), **headers}.items():
            self.send_header(name.replace('_', '-'), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class ChatServer(ThreadingHTTPServer):
    """The server; `actions` are used up one per request, then `default` answers."""

    daemon_threads = True

    def __init__(self, default: Action) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.default = default
        self.actions: list[Action] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()  # set at the end of the test: slow actions wait for it

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_address[1]}/v1'

    def handle_error(self, *_: object) -> None:
        """Say nothing of connections that the client closed."""


@contextmanager
def chat_server(default: Action | None = None) -> Iterator[ChatServer]:
    """Run a server in a thread until the block ends; by default it says 'hello'."""
    server = ChatServer(default or says('hello'))
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def completion(text: str | None, *, prompt_tokens: int = 7, completion_tokens: int = 3) -> dict[str, Any]:
    """Return a chat completion."""
    return {
        'id': 'one',
        'object': 'chat.completion',
        'created': 0,
        'model': 'test',
        'choices': [{'index': 0, 'message': {'role': 'assistant', 'content': text}, 'finish_reason': 'stop'}],
        'usage': {
            'prompt_tokens': prompt_tokens,
            'completion_tokens': completion_tokens,
            'total_tokens': prompt_tokens + completion_tokens,
        },
    }


def says(text: str | None) -> Action:
    """Answer with a text."""
    return lambda handler, _: handler.send_json(completion(text))


def answers(reply: Callable[[dict[str, Any]], str]) -> Action:
    """Answer with the text that a function of the request returns."""
    return lambda handler, request: handler.send_json(completion(reply(request)))


def fails(status: int, document: object = None, **headers: str) -> Action:
    """Answer with an HTTP status, and a wait of 10 ms before another try."""
    return lambda handler, _: handler.send_json(
        document or {'error': {'message': 'no'}}, status, **{'retry-after-ms': '10', **headers}
    )


def sends(body: bytes, **headers: str) -> Action:
    """Answer with these bytes as JSON."""
    return lambda handler, _: handler.send_body(body, **{'Content-Type': 'application/json', **headers})


def hangs(handler: Handler, _: dict[str, Any]) -> None:
    """Accept the request and send nothing."""
    handler.server.ended.wait(30)
    handler.close_connection = True


def drips(handler: Handler, _: dict[str, Any]) -> None:
    """Send one byte every 20 ms, for ever."""
    handler.send_response(200)
    handler.send_header('Content-Length', '1000000')
    handler.end_headers()
    while not handler.server.ended.wait(0.02):
        handler.wfile.write(b' ')
        handler.wfile.flush()


def cuts(handler: Handler, _: dict[str, Any]) -> None:
    """Announce a body and close the connection in the middle of it."""
    body = json.dumps(completion('a long text')).encode()
    handler.send_response(200)
    handler.send_header('Content-Type', 'application/json')
    handler.send_header('Content-Length', str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True
