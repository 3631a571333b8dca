"""Client of a vision-language model behind an OpenAI-compatible endpoint: vLLM, SGLang, transformers serve, clouds.

The package `openai` sends, waits as `Retry-After` says and tries again. Added here: a limit of the whole time of a
try, because the package's limits are between two bytes, which a server that drips keeps for ever; a limit of the size;
checks of everything that comes back; a cache; a budget; and errors without the key.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx2
import openai
import pydantic

from instructsam.core.text import shorten
from instructsam.train.vlm.budget import Budget
from instructsam.train.vlm.cache import ReplyCache, request_hash
from instructsam.train.vlm.chat import Message, to_wire
from instructsam.train.vlm.errors import BadReply, EmptyReply, VlmBusy, VlmError, VlmRefused, VlmUnreachable, WrongForm
from instructsam.train.vlm.settings import VlmSettings

MAX_REPLY_BYTES = 16 << 20
FINAL_STATUS = (401, 403, 404, 405)
"""HTTP statuses that every other request would get, too: no permission, no such model or path."""

T = TypeVar('T')


@dataclass(frozen=True)
class Reply:
    """A reply with its cost."""

    text: str
    prompt_tokens: int = 0  # 0 if the server does not count them
    completion_tokens: int = 0
    seconds: float = 0.0  # until the reply was there, waiting for further tries included
    calls: int = 1  # tries
    cached: bool = False  # it came from the cache; the other numbers are those of the first time
    finish_reason: str = ''  # as the server names it: stop, length, ...
    value: pydantic.BaseModel | None = None  # the text as an object of the schema that was asked for


class VlmClient:
    """A client for one endpoint and model.

    Either `ask` from one event loop, or `ask_now` from any threads, one at a time.

    Args:
        settings: The endpoint.
        cache: Replies that are known already.
        budget: Spent by every call that is made.

    Raises:
        InstructSAMError: The key cannot be sent.
    """

    def __init__(self, settings: VlmSettings, cache: ReplyCache | None = None, budget: Budget | None = None) -> None:
        self.settings = settings
        self.cache = cache
        self.budget = budget
        self._http = _HttpClient(settings.timeout_s, budget)
        self._api = openai.AsyncOpenAI(
            api_key=settings.read_key(),
            base_url=settings.url,
            max_retries=settings.retries,
            timeout=settings.timeout_s,
            http_client=self._http,
        )
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._loop: asyncio.AbstractEventLoop | None = None  # of ask_now
        self._lock = threading.Lock()

    async def ask(
        self,
        messages: Sequence[Message],
        schema: type[pydantic.BaseModel] | None = None,
        *,
        time_limit_s: float | None = None,
    ) -> Reply:
        """Return the reply to a chat.

        Args:
            messages: The chat.
            schema: Form of the reply: its text is JSON of this model, which is in `Reply.value`.
            time_limit_s: Limit of the whole call, with all its tries, waits for a free slot included.

        Raises:
            VlmError: There is no usable reply; see train.vlm.errors.
            BudgetSpent: The budget is used up.
        """
        request = self._request(messages, schema)
        key = request_hash(request)
        if self.cache is not None and (known := self.cache.get(key)) is not None:
            return _with_value(replace(Reply(**known), cached=True), schema)
        start = time.perf_counter()
        failure: VlmError
        try:
            reply = await asyncio.wait_for(self._send(request), time_limit_s)
        except asyncio.TimeoutError:
            failure = VlmBusy(f'{self.settings.url} gave no reply within the {time_limit_s:.3g} s that were left')
        except openai.OpenAIError as error:
            failure = self._explain(error)
        else:
            reply = replace(reply, seconds=time.perf_counter() - start)
            checked = _with_value(reply, schema)  # before it is kept: a bad reply must not come again
            if self.cache is not None:
                names = ('text', 'prompt_tokens', 'completion_tokens', 'seconds', 'calls', 'finish_reason')
                self.cache.put(key, {name: getattr(reply, name) for name in names})
            return checked
        # Raised here, without the library's error as its context: that one holds the server's text as it came.
        raise failure

    def ask_now(
        self,
        messages: Sequence[Message],
        schema: type[pydantic.BaseModel] | None = None,
        *,
        time_limit_s: float | None = None,
    ) -> Reply:
        """Do as `ask`, and wait for the reply."""
        return self._run(self.ask(messages, schema, time_limit_s=time_limit_s))

    def close(self) -> None:
        """Close the connections that `ask_now` opened."""
        with self._lock:
            if self._loop is not None:
                self._loop.run_until_complete(self._api.close())
                self._loop.close()
                self._loop = None

    async def aclose(self) -> None:
        """Close the connections that `ask` opened."""
        await self._api.close()

    def _run(self, work: Any) -> Any:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
            task = self._loop.create_task(work)
            try:
                return self._loop.run_until_complete(task)
            finally:
                if not task.done():  # a signal's exception ended the wait
                    task.cancel()
                    self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))

    def _request(self, messages: Sequence[Message], schema: type[pydantic.BaseModel] | None) -> dict[str, Any]:
        settings = self.settings
        request: dict[str, Any] = {
            'model': settings.model,
            'messages': to_wire(messages),
            'temperature': settings.temperature,
            'seed': settings.seed,
            'max_tokens': settings.max_tokens,
        }
        if schema is not None and settings.structured:
            form = {'name': schema.__name__, 'schema': schema.model_json_schema()}
            request['response_format'] = {'type': 'json_schema', 'json_schema': form}
        return request

    async def _send(self, request: dict[str, Any]) -> Reply:
        async with self._slots:
            raw = await self._api.chat.completions.with_raw_response.create(**request)
        reply = self._read(raw.http_response.content)
        if self.budget is not None:
            self.budget.add(reply.prompt_tokens, reply.completion_tokens)
        reply = replace(reply, calls=raw.retries_taken + 1)
        if not reply.text.strip():
            raise EmptyReply(
                f'{self.settings.url} replied without text (finish reason {reply.finish_reason or "not given"!r}): '
                'raise the limit of tokens, or serve the model without a reasoning parser',
                reply,
            )
        return reply

    def _read(self, body: bytes) -> Reply:
        """Return the reply in a body. Raises BadReply."""
        text = body.decode('utf-8', 'replace')
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise BadReply(f'{self.settings.url} replied with something that is no JSON: {self._quote(text)}') from None
        try:
            choice = document['choices'][0]
            content = choice['message'].get('content')
            if content is None:
                content = ''
            elif isinstance(content, list):  # of parts
                content = ''.join(part['text'] for part in content if part.get('type') == 'text')
            if not isinstance(content, str):
                raise TypeError
        except (LookupError, TypeError, AttributeError):
            raise BadReply(
                f'{self.settings.url} replied with JSON that is not a chat completion (no text in choices[0]): '
                f'{self._quote(text)}'
            ) from None
        usage = document.get('usage')
        usage = usage if isinstance(usage, dict) else {}
        reason = choice.get('finish_reason')
        return Reply(
            text=self.settings.without_key(content),
            prompt_tokens=_count(usage.get('prompt_tokens')),
            completion_tokens=_count(usage.get('completion_tokens')),
            finish_reason=shorten(reason, 40) if isinstance(reason, str) else '',
        )

    def _quote(self, text: str) -> str:
        return repr(shorten(self.settings.without_key(text[:4000])))

    def _explain(self, error: openai.OpenAIError) -> VlmError:
        """Return the error to raise for one of the package."""
        url, settings = self.settings.url, self.settings
        tries = f'{settings.retries + 1} tries' if settings.retries else 'the only try'
        if isinstance(error, openai.APITimeoutError):
            return VlmBusy(f'{url} gave no complete reply within {settings.timeout_s:g} s, in {tries}')
        if isinstance(error, openai.APIStatusError):
            reason = self._quote(error.response.text)
            status = error.status_code
            if status in (401, 403):
                return VlmRefused(
                    f'{url} refuses the key (HTTP {status}: {reason}): set the environment variable '
                    f'{settings.key_variable}',
                    is_final=True,
                )
            if status in (408, 409, 429) or status >= 500:
                return VlmBusy(f'{url} is busy or has failed (HTTP {status}: {reason}), in {tries}')
            return VlmRefused(
                f'{url} refuses the request for the model {shorten(settings.model)!r} (HTTP {status}: {reason})',
                is_final=status in FINAL_STATUS or status < 400,
            )
        cause = error.__cause__
        if isinstance(cause, (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.DecodingError)):
            return BadReply(f'{url} closed the connection before its reply was complete, in {tries}')
        reason = self._quote(f'{type(cause or error).__name__}: {cause or error}')
        return VlmUnreachable(
            f'there is no VLM at {url} ({reason}): start the server, or correct the URL', is_final=True
        )


class _HttpClient(openai.DefaultAsyncHttpxClient):
    """An HTTP client whose tries end: each within a time and a size, and paid from the budget.

    Redirects are not followed: they would turn the request into another one.
    """

    def __init__(self, limit_s: float, budget: Budget | None) -> None:
        super().__init__(timeout=limit_s, follow_redirects=False)
        self._limit_s = limit_s
        self._budget = budget

    async def send(self, request: httpx2.Request, *, stream: bool = False, **kwargs: Any) -> httpx2.Response:
        """Return the complete response. Raises httpx2.ReadTimeout, after which `openai` tries again."""
        del stream
        if self._budget is not None:
            self._budget.take_call()
        try:
            return await asyncio.wait_for(self._receive(request, **kwargs), self._limit_s)
        except asyncio.TimeoutError:
            raise httpx2.ReadTimeout(f'no complete reply within {self._limit_s:g} s', request=request) from None

    async def _receive(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        response = await super().send(request, stream=True, **kwargs)
        body = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    raise BadReply(f'{request.url.host} sent a reply of more than {MAX_REPLY_BYTES >> 20} MB')
        finally:
            await response.aclose()
        headers = [(name, value) for name, value in response.headers.items() if name != 'content-encoding']
        return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=request)


def _with_value(reply: Reply, schema: type[pydantic.BaseModel] | None) -> Reply:
    """Return the reply with its text as an object of `schema`. Raises BadReply if it is none."""
    if schema is None:
        return reply
    try:
        return replace(reply, value=schema.model_validate_json(_json_of(reply.text)))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = '.'.join(map(str, first['loc'])) or 'the text'
        raise WrongForm(
            f'the reply is no {schema.__name__}: {shorten(place)}: {shorten(first["msg"])}; it was '
            f'{shorten(reply.text)!r}'
        ) from None


def _json_of(text: str) -> str:
    """Return the text without the fence of a Markdown code block, in which many models put JSON."""
    text = text.strip()
    if text.startswith('```') and text.endswith('```'):
        return text.removesuffix('```').partition('\n')[2]
    return text


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
