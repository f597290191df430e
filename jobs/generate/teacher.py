"""The one client of every endpoint, and the only import of `openai`.

    async with connect(endpoint, limits, journal, meter) as teacher:
        reply = await teacher.ask(request)

A reply in the journal is returned without asking. 429, 5xx, timeouts and broken connections are tried again, no sooner
than Retry-After says, up to `max_attempts`; other 4xx are not. What fails one request is a `RefusedError`, what fails
them all is an `UnavailableError`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import openai

from jobs.common.console import say
from jobs.common.errors import UnavailableError
from jobs.generate import faults
from jobs.generate.endpoint import Endpoint
from jobs.generate.journal import Journal, Reply
from jobs.generate.meter import Meter
from jobs.generate.requests import ChatRequest

REFUSED_BEFORE_FIRST_REPLY = 3
"""So many refused requests and not one reply: the endpoint cannot serve this run at all."""

LONGEST_BACKOFF_S = 30.0
"""Longest wait between two attempts where the endpoint names none."""


class RefusedError(Exception):
    """The endpoint refused one request for good; the run goes on without it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Limits:
    """How hard an endpoint may be asked."""

    concurrency: int
    timeout_s: float
    max_attempts: int
    rerun: str
    """The command that goes on later, for messages."""


@dataclass
class Teacher:
    """One endpoint, ready to be asked; `connect` makes it."""

    endpoint: Endpoint
    limits: Limits
    journal: Journal
    meter: Meter
    clients: list[openai.AsyncOpenAI]
    _slots: asyncio.Semaphore
    _first: asyncio.Lock = field(default_factory=asyncio.Lock)
    _known: bool = False
    """Has the endpoint answered once? Until then requests go one at a time, so that a wrong key is refused once."""
    _without: set[str] = field(default_factory=set)
    """Parameters this endpoint refused; they are left out from then on."""
    _pause_until: float = 0.0
    _refused: int = 0

    async def ask(self, request: ChatRequest) -> Reply:
        """The reply to a request, from the journal or from the endpoint.

        Raises:
            RefusedError: the endpoint refuses this request (content policy, too long).
            UnavailableError: the endpoint is down, refuses the key or has no such model.
        """
        plain = replace(request, schema=None)
        forms = {"on": (request,), "off": (plain,), "auto": (request, plain)}[self.endpoint.structured]
        for form in forms:
            if reply := self.journal.get(self._key(form)):
                self.meter.journalled.add(reply)
                return reply
        async with self._slots:
            if self._known:
                return await self._send(forms[0])
            async with self._first:
                if not self._known:
                    reply = await self._send(forms[0])
                    self._known = True
                    return reply
            return await self._send(forms[0])

    def _key(self, request: ChatRequest) -> str:
        return request.key(self.endpoint.logical, self.endpoint.model)

    async def _send(self, request: ChatRequest) -> Reply:
        attempts = 0
        while True:
            await self._wait_out_pause()
            without = frozenset(self._without)
            form = replace(request, schema=None) if "response_format" in without else request
            try:
                reply = await self._call(form, without)
            except (openai.APIError, faults.MalformedError) as error:
                fault = faults.classify(error, self.endpoint.model, self.endpoint.key_name)
                name = fault.parameter
                if fault.kind == "parameter" and name not in without and self._may_leave_out(name):
                    self._leave_out(name)
                    continue
                attempts += 1
                await asyncio.sleep(self._delay_s(fault, attempts))
                continue
            self.journal.append(self._key(form), reply)
            self.meter.new.add(reply)
            return reply

    def _may_leave_out(self, parameter: str) -> bool:
        return parameter != "response_format" or self.endpoint.structured == "auto"

    def _leave_out(self, parameter: str) -> None:
        if parameter not in self._without and parameter in {"temperature", "top_p"}:
            say(f"{self.endpoint.shown} takes no {parameter}; asking without it, whatever the recipe says")
        self._without.add(parameter)

    async def _call(self, request: ChatRequest, without: frozenset[str]) -> Reply:
        client = self.clients[request.lane % len(self.clients)]
        sampling = vars(request.sampling) | {"seed": request.sent_seed}
        extra: dict[str, Any] = {name: value for name, value in sampling.items() if name not in without}
        extra["max_completion_tokens" if "max_tokens" in without else "max_tokens"] = request.max_tokens
        if request.schema:
            schema = {"name": request.schema.name, "schema": request.schema.json_schema, "strict": True}
            extra["response_format"] = {"type": "json_schema", "json_schema": schema}
        messages: Any = request.messages
        try:
            completion: Any = await client.chat.completions.create(
                model=self.endpoint.model, messages=messages, **extra
            )
        except ValueError as error:  # the client lets a body that is not JSON through as this
            raise faults.MalformedError(faults.one_line(str(error), 80)) from None
        return faults.read_completion(completion, self.endpoint.model)

    def _delay_s(self, fault: faults.Fault, attempts: int) -> float:
        """Seconds to wait before the next attempt, or the error that ends the request or the run."""
        where, again = self.endpoint.shown, f"Then run: {self.limits.rerun}"
        if fault.kind == "fatal":
            raise UnavailableError(f"{where}: {fault.detail} {again}") from None
        if fault.kind in {"parameter", "refused"}:
            self._refused += 1
            if self._refused >= REFUSED_BEFORE_FIRST_REPLY and not self.meter.requests:
                counted = f"refused the first {self._refused} requests ({fault.detail})"
                raise UnavailableError(f"{where} {counted}. Check the recipe's teacher section. {again}") from None
            raise RefusedError(fault.reason, fault.detail) from None
        if attempts >= self.limits.max_attempts:
            kept = "every reply so far is journalled."
            last = f"{attempts} attempts of one request, the last: {fault.detail}"
            raise UnavailableError(f"{where}: {last} {again}; {kept}") from None
        if fault.retry_after_s is None:
            return float(min(LONGEST_BACKOFF_S, 0.25 * 2**attempts) * random.uniform(0.5, 1.0))
        # The endpoint asks for a pause: every request takes it, not only this one.
        self._pause_until = max(self._pause_until, asyncio.get_running_loop().time() + fault.retry_after_s)
        return 0.0

    async def _wait_out_pause(self) -> None:
        left_s = self._pause_until - asyncio.get_running_loop().time()
        if left_s > 0:
            await asyncio.sleep(left_s)


@asynccontextmanager
async def connect(endpoint: Endpoint, limits: Limits, journal: Journal, meter: Meter) -> AsyncIterator[Teacher]:
    """Open the clients of an endpoint and close them at the end; nothing is asked yet."""
    clients = [
        openai.AsyncOpenAI(
            base_url=url,
            api_key=endpoint.key,
            timeout=limits.timeout_s,
            max_retries=0,
            # A proxy of the environment cannot reach this process's own loopback.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if endpoint.is_embedded else None,
        )
        for url in endpoint.base_urls
    ]
    slots = asyncio.Semaphore(limits.concurrency)
    try:
        yield Teacher(endpoint, limits, journal, meter, clients, slots, _known=endpoint.is_embedded)
    finally:
        for client in clients:
            await client.close()
