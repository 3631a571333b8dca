"""An OpenAI-compatible server of the simulated annotator's replies, on the loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from instructsam.core.errors import DataError, InstructSAMError
from instructsam.train.data_engine.simulated.annotator import Request, SimulatedAnnotator

MODEL = 'simulated-annotator'
MAX_BODY_BYTES = 64 << 20
STOP_POLL_S = 0.02  # time within which the server ends
LETTERS_PER_TOKEN = 4  # the usage in the replies is an estimate
TOKENS_PER_PICTURE = 256


@contextmanager
def serving(annotator: SimulatedAnnotator, port: int = 0) -> Iterator[str]:
    """Serve an annotator on the loopback within a context; yield the URL of the API, which ends in /v1.

    Args:
        annotator: The annotator. Requests are answered in several threads.
        port: TCP port; 0: any that is free.
    """

    class Handler(_Handler):
        simulated = annotator

    server = ThreadingHTTPServer(('127.0.0.1', port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(STOP_POLL_S,), daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_address[1]}/v1'
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers chat completions and the list of models."""

    simulated: SimulatedAnnotator
    protocol_version = 'HTTP/1.1'

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Log nothing."""

    def do_GET(self) -> None:  # the base class's name
        """Answer the list of models."""
        if self.path.rstrip('/') == '/v1/models':
            self._send(200, {'object': 'list', 'data': [{'id': MODEL, 'object': 'model', 'owned_by': 'simulated'}]})
        else:
            self._send(404, {'error': {'message': f'no such path: {self.path[:80]}'}})

    def do_POST(self) -> None:  # the base class's name
        """Answer a chat completion."""
        length = int(self.headers.get('Content-Length') or 0)
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            self._send(413, {'error': {'message': f'a request has at most {MAX_BODY_BYTES} bytes'}})
            return
        body = self.rfile.read(length)
        if self.path != '/v1/chat/completions':
            self._send(404, {'error': {'message': f'no such path: {self.path[:80]}'}})
            return
        try:
            request = read_request(body)
            text = self.simulated.reply(request)
        except InstructSAMError as error:
            self._send(400, {'error': {'message': str(error), 'type': 'invalid_request_error'}})
            return
        self._send(200, _completion(text, request))

    def _send(self, status: int, document: Mapping[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def read_request(body: bytes) -> Request:
    """Return the request in the body of a chat completion. Raises DataError."""
    try:
        document = json.loads(body)
        form = document['response_format']['json_schema']['name']
        texts: list[str] = []
        pictures: list[str] = []
        for message in document['messages']:
            content = message['content']
            parts: list[Any] = [{'type': 'text', 'text': content}] if isinstance(content, str) else content
            for part in parts:
                if part['type'] == 'text':
                    texts.append(part['text'])
                else:
                    pictures.append(part['image_url']['url'])
        encoded = np.frombuffer(base64.b64decode(pictures[0].partition(',')[2]), np.uint8)
        bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except (ValueError, LookupError, TypeError, AttributeError, cv2.error) as error:
        raise DataError(f'not a request with a picture and a JSON schema: {type(error).__name__}') from error
    if bgr is None:
        raise DataError('the picture cannot be decoded')
    return Request(form, np.ascontiguousarray(bgr[..., ::-1]), texts, hashlib.sha256(body).hexdigest())


def _completion(text: str, request: Request) -> dict[str, Any]:
    """Return a chat completion whose id and usage depend on the request alone."""
    sent = TOKENS_PER_PICTURE + sum(map(len, request.texts)) // LETTERS_PER_TOKEN
    received = len(text) // LETTERS_PER_TOKEN
    return {
        'id': f'simulated-{request.key[:16]}',
        'object': 'chat.completion',
        'created': 0,
        'model': MODEL,
        'choices': [{'index': 0, 'message': {'role': 'assistant', 'content': text}, 'finish_reason': 'stop'}],
        'usage': {'prompt_tokens': sent, 'completion_tokens': received, 'total_tokens': sent + received},
    }
