"""The socket of the page, the checks of every request, and the thread that serves it.

Gradio's own `launch` would look for a free port, fetch its own page through a proxy if one is configured, and ask the
network for its version. Here the page is mounted in an application of ours.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit

import fastapi
import gradio as gr
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from instructsam.core.display.jpeg import encode_jpeg, shrink_to
from instructsam.core.errors import InstructSAMError
from instructsam.core.web.mask_view import LONGEST_SIDE_PX
from instructsam.core.web.page import STYLE, THEME, Page

MAX_UPLOAD_BYTES = 200_000_000  # largest file; larger ones are refused while they arrive
END_S = 5.0  # time that open connections get when the page ends

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; frame-ancestors 'none'; form-action 'self'"
)
"""Content-Security-Policy: the browser itself refuses every request to elsewhere. Gradio compiles templates (eval)."""


@contextmanager
def private_folder() -> Generator[str, None, None]:
    """Keep uploads in a separate folder, which is removed at the end, and disable Gradio's usage reports.

    Gradio reads both from the environment, the first when a component is made: enter this before the page is built.
    """
    with tempfile.TemporaryDirectory(prefix='instructsam_web_', ignore_cleanup_errors=True) as folder:
        changed = {'GRADIO_TEMP_DIR': folder, 'GRADIO_ANALYTICS_ENABLED': 'False'}
        before = {name: os.environ.pop(name, None) for name in changed}
        os.environ.update(changed)
        try:
            yield folder
        finally:
            for name in changed:
                del os.environ[name]
            os.environ.update({name: value for name, value in before.items() if value is not None})


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InstructSAMError: The port is in use or not allowed, or there is no such address.
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        number = getattr(error, 'errno', None)
        if number == errno.EADDRINUSE:
            reason = 'it is in use; give another --port, or 0 for a free one'
        elif number == errno.EACCES:
            reason = 'ports below 1024 are reserved; give another --port'
        else:
            reason = f'{getattr(error, "strerror", None) or error}; give an address of this machine as --host'
        raise InstructSAMError(f'cannot listen on port {port} of {host}: {reason}') from error


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def is_local(listener: socket.socket) -> bool:
    """Return whether only this machine reaches a socket."""
    return is_loopback(listener.getsockname()[0])


class Guard:
    """Refuses requests of other sites, and tells the browser to load nothing from elsewhere.

    A page of another site can send requests to this machine: directly, which the header Origin shows, or by a name
    of its own that resolves to the loopback (DNS rebinding), which the header Host shows. Starlette's
    TrustedHostMiddleware checks Host alone, and cannot read IPv6 addresses.

    Args:
        app: The application behind it.
        is_local: Whether the page is for this machine alone.
    """

    def __init__(self, app: ASGIApp, *, is_local: bool) -> None:
        self._app = app
        self._is_local = is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode('latin-1') for name, value in scope['headers']}
        host, origin = headers.get(b'host', ''), headers.get(b'origin')
        is_foreign = origin not in (None, f'http://{host}', f'https://{host}')
        if is_foreign or (self._is_local and not is_loopback(_name_of(host))):
            response = fastapi.Response('this page answers its own address only\n', 403)
            await response(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message['type'] == 'http.response.start':
                more = ((b'content-security-policy', POLICY.encode()), (b'referrer-policy', b'no-referrer'))
                message['headers'] = [*message['headers'], *more]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def _name_of(host: str) -> str:
    try:
        return urlsplit(f'//{host}').hostname or ''
    except ValueError:
        return ''


def application(page: Page) -> fastapi.FastAPI:
    """Return the page as an application, with the newest image of the camera at /camera.jpg."""
    app = fastapi.FastAPI(openapi_url=None)

    @app.get('/camera.jpg')
    def camera() -> fastapi.Response:
        image = page.source.newest_image()
        if image is None:
            return fastapi.Response('there is no image yet\n', 404)
        content = encode_jpeg(shrink_to(image, LONGEST_SIDE_PX))
        return fastapi.Response(content, media_type='image/jpeg', headers={'Cache-Control': 'no-store'})

    gr.mount_gradio_app(
        app,
        page.blocks,
        '/',
        theme=THEME,
        css=STYLE.read_text(),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=False,
        allowed_paths=page.sample_folders,
        max_file_size=MAX_UPLOAD_BYTES,
    )
    # Only then does Gradio refuse to copy a file of this machine that a request names, instead of an uploaded one.
    page.blocks.has_launched = True
    return app


@contextmanager
def serve(page: Page, listener: socket.socket) -> Generator[str, None, None]:
    """Serve the page in a thread while the block runs; yields its URL for a browser of this machine.

    Args:
        page: The page.
        listener: The socket, from `listen`.

    Raises:
        InstructSAMError: The server has ended.
    """
    guarded = Guard(application(page), is_local=is_local(listener))
    server = uvicorn.Server(uvicorn.Config(guarded, log_level='warning', timeout_graceful_shutdown=1, ws='none'))
    thread = threading.Thread(target=server.run, kwargs={'sockets': [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise InstructSAMError('the server of the page has ended; the lines above say why')
            thread.join(0.02)
        host, port = listener.getsockname()[:2]
        if ipaddress.ip_address(host).is_unspecified:
            host = 'localhost'
        yield f'http://{f"[{host}]" if ":" in host else host}:{port}'
    finally:
        page.newest.close()
        server.should_exit = True
        thread.join(END_S)
