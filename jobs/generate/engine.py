"""Asks one endpoint: paid once, as fast as it allows, within the budget, and nothing lost.

    async with open_engine(endpoint, settings, journal, Run("demo", "cai generate --run demo")) as engine:
        reply = await engine.ask(request)

A request goes: journal (was it answered before?) → budget (worst case set aside) → pace (its turn) → intent line →
endpoint → reply line. What fails one request is a `RefusedError`; what fails them all is an `UnavailableError`.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.common.console import say
from jobs.common.errors import StoppedError, UnavailableError
from jobs.common.generate_settings import TeacherSettings
from jobs.generate.attempts import Attempts
from jobs.generate.batch import Desk
from jobs.generate.batch_post import MOST_LINES
from jobs.generate.breaker import Breaker, Run
from jobs.generate.budget import Budget, Tariff
from jobs.generate.chat import chat_body, connect
from jobs.generate.endpoint import Endpoint
from jobs.generate.faults import Fault, FaultError
from jobs.generate.journal import Journal, Reply
from jobs.generate.limit import Limit
from jobs.generate.meter import Meter
from jobs.generate.pace import Pace
from jobs.generate.quota import Bucket
from jobs.generate.requests import ChatRequest, Step
from jobs.generate.sender import Sender


class RefusedError(Exception):
    """One request failed for good; the run goes on without it."""

    def __init__(self, fault: Fault, request: dict[str, Any], step: Step) -> None:
        super().__init__(fault.detail)
        self.fault = fault
        self.step = step
        self.request = request
        """The body that was sent."""


@dataclass
class Engine:
    """One endpoint, ready to be asked; `open_engine` makes it."""

    sender: Sender
    max_attempts: int
    desk: Desk | None = None
    """Where requests wait for batches; None asks live."""
    _asking: dict[str, asyncio.Future[Reply]] = field(default_factory=dict)
    """Requests on their way: the same one is not paid twice because it is asked twice at once."""
    _without: set[str] = field(default_factory=set)
    """Parameters this endpoint refused; they are left out from then on."""

    @property
    def endpoint(self) -> Endpoint:
        """Who is asked."""
        return self.sender.client.endpoint

    @property
    def lanes(self) -> int:
        """Requests that make sense at once."""
        return MOST_LINES if self.desk else self.sender.pace.limit.most

    async def ask(self, request: ChatRequest) -> Reply:
        """The reply to a request, from the journal or from the endpoint.

        Raises:
            RefusedError: this request failed for good (content policy, too long, every attempt failed).
            UnavailableError: the endpoint is down, refuses the key or has no such model.
            StoppedError: the budget is used up.
        """
        forms = self._forms(request)
        for form in forms:
            if reply := self._journalled(form):
                self._count_journalled(reply)
                return reply
        key = self.sender.key(forms[0])
        if key in self._asking:
            reply = await asyncio.shield(self._asking[key])
            self._count_journalled(reply)
            return reply
        asking = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            reply = await self._ask_endpoint(forms[0])
            asking.set_result(reply)
            return reply
        except BaseException as error:
            asking.set_exception(error if isinstance(error, Exception) else StoppedError("stopped"))
            asking.exception()  # looked at, or it would be reported as overlooked
            raise
        finally:
            del self._asking[key]

    def _forms(self, request: ChatRequest) -> tuple[ChatRequest, ...]:
        """The forms in which a request may have been answered, the one to send first."""
        structured = self.endpoint.structured
        if request.schema is None or structured == "on":
            return (request,)
        plain = replace(request, schema=None)
        return (plain,) if structured == "off" else (request, plain)

    def _count_journalled(self, reply: Reply) -> None:
        self.sender.meter.add_journalled(reply)
        self.sender.breaker.known = True

    def _journalled(self, request: ChatRequest) -> Reply | None:
        key = self.sender.key(request)
        reply = self.sender.journal.get(key)
        if reply and reply.reply_tokens <= request.max_tokens:
            return reply
        if reply:
            self.sender.too_long.add(key)
        return self.sender.journal.get(request.limited_key(key))

    async def _ask_endpoint(self, request: ChatRequest) -> Reply:
        attempts, desk = Attempts(self.max_attempts), self.desk
        before = self.sender.meter.new.requests
        while True:
            without = frozenset(self._without)
            form = replace(request, schema=None) if "response_format" in without else request
            try:
                if desk and (reply := await desk.ask(form, without)):
                    return reply
                desk = None
                return await self.sender.send(form, without)
            except FaultError as error:
                fault = error.fault
            if fault.kind == "parameter":
                refused = fault.parameter
                if refused == "top_logprobs" and refused in without:  # not even a few
                    refused = "logprobs"
                if self._may_leave_out(refused, without):
                    self._leave_out(refused)
                    continue
            replies = self.sender.meter.new.requests
            others_replied, before = replies > before, replies  # since its last attempt, the wait in between included
            if not attempts.may_go_on(fault, others_replied):
                if attempts.count > 1:
                    fault = replace(fault, detail=f"{attempts.count} attempts, the last: {fault.detail}")
                await self._give_up(fault, others_replied)
                raise RefusedError(fault, chat_body(form, self.endpoint.model, without), form.step)
            await asyncio.sleep(attempts.delay_s(fault, others_replied))

    async def _give_up(self, fault: Fault, others_replied: bool) -> None:
        try:
            self.sender.breaker.give_up(fault, others_replied)
        except UnavailableError as error:
            await self.sender.pace.drain(error)  # what is on its way is paid for
            raise

    def _may_leave_out(self, parameter: str, without: frozenset[str]) -> bool:
        return parameter not in without and (parameter != "response_format" or self.endpoint.structured == "auto")

    def _leave_out(self, parameter: str) -> None:
        if parameter not in self._without and parameter in {"temperature", "top_p"}:
            say(f"{self.endpoint.shown} takes no {parameter}; asking without it, whatever the recipe says")
        self._without.add(parameter)


@asynccontextmanager
async def open_engine(
    endpoint: Endpoint, settings: TeacherSettings, journal: Journal, run: Run, budget: Budget | None = None
) -> AsyncIterator[Engine]:
    """Open the connections to an endpoint and close them at the end; nothing is asked yet."""
    # What is loaded by now stays: looking through it again and again would take a sixth of the time of a request.
    gc.freeze()
    most = min(settings.concurrency, endpoint.slots or settings.concurrency)
    buckets = (Bucket(None), Bucket(None))
    if not endpoint.is_embedded:
        buckets = (Bucket(settings.requests_per_minute), Bucket(settings.tokens_per_minute))
    meter, breaker = Meter(Tariff(settings.price, free=endpoint.is_embedded)), Breaker(endpoint.shown, run.rerun)
    budget = budget or Budget(None, None, run.rerun)
    limit = Limit(most)
    async with connect(endpoint, settings.timeout_s, limit) as client:
        sender = Sender(client, journal, run, Pace(limit, buckets), budget, meter, breaker)
        yield Engine(sender, settings.max_attempts)
