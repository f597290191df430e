"""Chat requests to one endpoint, over aiohttp; `openai` itself is used for batches alone (decision 009).

    async with connect(endpoint, timeout_s, Limit(512)) as client:
        answer = await client.chat(request, without=frozenset())     # Answer, or FaultError

Nothing is tried again here; that is `engine.py`.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from jobs.generate import faults
from jobs.generate.completion import read_completion
from jobs.generate.endpoint import NO_KEY, Endpoint
from jobs.generate.faults import FaultError
from jobs.generate.journal import Reply
from jobs.generate.limit import Limit
from jobs.generate.requests import ChatRequest

TOP_LOGPROBS, FEW_LOGPROBS = 20, 5
"""Tokens whose probability is asked for beside the one written; the fewer where an endpoint refuses the more."""
CONNECT_S = 20.0
"""Longest wait for a connection."""


@dataclass(frozen=True)
class Answer:
    """A reply and the headers it came with."""

    reply: Reply
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Client:
    """One endpoint's connections; `connect` makes it."""

    endpoint: Endpoint
    timeout_s: float
    session: aiohttp.ClientSession

    async def chat(self, request: ChatRequest, without: frozenset[str]) -> Answer:
        """Ask once.

        Args:
            request: what is asked.
            without: parameters this endpoint does not take.

        Raises:
            FaultError: no reply came; says what that means.
        """
        urls = self.endpoint.base_urls
        url = f"{urls[request.lane % len(urls)]}/chat/completions"
        body = json.dumps(chat_body(request, self.endpoint.model, without)).encode()
        status, headers, content = await self._post(url, body)
        if status >= 300:
            endpoint = self.endpoint
            said = self._without_key(content)
            raise FaultError(faults.classify(status, headers, said, model=endpoint.model, key_name=endpoint.key_name))
        try:
            reply = read_completion(json.loads(content), self.endpoint.model, request.choices)
        except (ValueError, RecursionError):
            reply = None
        if reply is None:
            raise FaultError(faults.malformed(status, self._without_key(content)))
        return Answer(reply, headers)

    async def _post(self, url: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        try:
            async with self.session.post(url, data=body, allow_redirects=False) as response:
                return response.status, response.headers, await response.read()
        except aiohttp.ConnectionTimeoutError as error:
            raise FaultError(faults.no_answer(error, sent=False)) from None
        except TimeoutError:
            raise FaultError(faults.too_late(self.timeout_s)) from None
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError) as error:  # refused, no host, a proxy's no
            raise FaultError(faults.no_answer(error, sent=False)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise FaultError(faults.no_answer(error, sent=True)) from None

    def _without_key(self, content: bytes) -> bytes:
        # Some endpoints repeat the key they refuse, and JSON may write any of its signs as \/ or \u002B.
        if self.endpoint.key == NO_KEY:
            return content
        signs = (rf"(?:\\?{re.escape(sign)}|\\u00{ord(sign):02x})" for sign in self.endpoint.key)
        return re.sub("".join(signs).encode(), b"[key]", content, flags=re.IGNORECASE)


def chat_body(request: ChatRequest, model: str, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The JSON body of a chat request, without parameters the endpoint does not take."""
    sampling = vars(request.sampling) | {"seed": request.sent_seed}
    body: dict[str, Any] = {"model": model, "messages": request.messages}
    body |= {name: value for name, value in sampling.items() if name not in without}
    body["max_completion_tokens" if "max_tokens" in without else "max_tokens"] = request.max_tokens
    if request.schema and "response_format" not in without:
        schema = {"name": request.schema.name, "schema": request.schema.json_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.choices and "logprobs" not in without:
        body |= {"logprobs": True, "top_logprobs": FEW_LOGPROBS if "top_logprobs" in without else TOP_LOGPROBS}
    return body


@asynccontextmanager
async def connect(endpoint: Endpoint, timeout_s: float, limit: Limit) -> AsyncIterator[Client]:
    """Open the connections of an endpoint and close them at the end; nothing is asked yet.

    The limit learns from them how long a round trip takes.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_S, timeout_s))
    headers = {"Authorization": f"Bearer {endpoint.key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit.most),
        timeout=timeout,
        headers=headers,
        proxy=_proxy(endpoint),
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[_stopwatch(limit)],
        auto_decompress=True,
    ) as session:
        yield Client(endpoint, timeout_s, session)


def _stopwatch(limit: Limit) -> aiohttp.TraceConfig:
    async def begin(_session: Any, context: SimpleNamespace, _: Any) -> None:
        context.begun = time.monotonic()

    async def end(_session: Any, context: SimpleNamespace, _: Any) -> None:
        limit.round_trip_s = min(limit.round_trip_s, time.monotonic() - context.begun)

    async def wired(_session: Any, _context: SimpleNamespace, _: Any) -> None:
        limit.wired(time.monotonic())

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(wired)
    trace.on_connection_create_start.append(begin)
    trace.on_connection_create_end.append(end)
    return trace


def _proxy(endpoint: Endpoint) -> str | None:
    """The environment's proxy for this endpoint; the embedded servers are on this process's own loopback.

    aiohttp's `trust_env` would read ~/.netrc as well, for every single request.
    """
    parts = urlsplit(endpoint.base_urls[0])
    if endpoint.is_embedded or urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)
