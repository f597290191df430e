"""One attempt of one request: budget → pace → intent line → endpoint → reply line. Used by `engine.py` alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from jobs.generate.breaker import Breaker, Run
from jobs.generate.budget import Budget, Cost
from jobs.generate.chat import Client
from jobs.generate.faults import Fault, FaultError
from jobs.generate.journal import Attempt, Journal, Reply
from jobs.generate.meter import Meter
from jobs.generate.pace import Pace, Ticket
from jobs.generate.requests import ChatRequest, limited_key
from jobs.generate.tokens import most_prompt_tokens

CHARACTERS_PER_TOKEN = 4
"""For tokens_per_minute: what a prompt probably takes; corrected when the reply says."""


@dataclass(frozen=True)
class Sender:
    """Everything an attempt passes."""

    client: Client
    journal: Journal
    run: Run
    pace: Pace
    budget: Budget
    meter: Meter
    breaker: Breaker
    too_long: set[str] = field(default_factory=set)
    """Keys whose earlier reply does not fit the token limit now asked for."""

    def key(self, form: ChatRequest) -> str:
        """The journal's key of a request to this endpoint."""
        return form.key(self.client.endpoint.logical, self.client.endpoint.model)

    async def send(self, form: ChatRequest, without: frozenset[str]) -> Reply:
        """Send once and keep the reply.

        Raises:
            FaultError: no reply came.
            StoppedError: the budget leaves no room for it.
        """
        prompt_tokens, tariff = most_prompt_tokens(form.turns, form.schema), self.meter.tariff
        worst = await self.budget.reserve(tariff.cost(prompt_tokens, form.max_tokens))
        used = Cost()
        try:
            ticket = await self.pace.enter(prompt_tokens // CHARACTERS_PER_TOKEN + form.max_tokens)
            attempt = self.begin(form, prompt_tokens)
            used = worst
            try:
                answer = await self.client.chat(form, without)
            except FaultError as error:
                used = worst if error.fault.charged else Cost()
                self._failed(attempt, ticket, error.fault)
                raise
            except asyncio.CancelledError:
                self.journal.lose(attempt, "stopped")
                self.pace.failed(ticket, timeout=False)
                raise
            reply = answer.reply
            if not reply.prompt_tokens and not reply.reply_tokens:  # an endpoint that does not count: its worst case
                reply = replace(reply, prompt_tokens=prompt_tokens, reply_tokens=form.max_tokens)
            used = tariff.cost(reply.prompt_tokens, reply.reply_tokens)
            self.keep(attempt, self.key(form), form.max_tokens, reply)
            self.meter.add(reply)
            self.pace.replied(ticket, reply.prompt_tokens + reply.reply_tokens, reply.reply_tokens, answer.headers)
            return reply
        finally:
            self.budget.settle(worst, used)

    def begin(self, form: ChatRequest, prompt_tokens: int, *, batch: bool = False) -> str:
        """Write the intent line of an attempt and give its id."""
        endpoint = self.client.endpoint
        return self.journal.begin(
            Attempt(
                key=self.key(form),
                run=self.run.name,
                endpoint=endpoint.logical,
                model=endpoint.model,
                step=form.step,
                prompt_tokens=prompt_tokens,
                reply_tokens=form.max_tokens,
                batch=batch,
            )
        )

    def keep(self, attempt: str, key: str, max_tokens: int, reply: Reply) -> None:
        """Write the reply to an attempt at a request with this key and token limit."""
        if reply.finish_reason == "length" or key in self.too_long:
            # It holds for this token limit alone: cut off by it, or beside an earlier reply that is too long for it.
            key = limited_key(key, max_tokens)
        self.journal.settle(attempt, reply, key)
        self.breaker.replied()

    def _failed(self, attempt: str, ticket: Ticket, fault: Fault) -> None:
        if fault.charged:
            self.journal.lose(attempt, fault.reason)
        else:
            self.journal.release(attempt)
        if fault.kind == "throttled":
            self.pace.throttled(ticket, fault.retry_after_s or 0.0, fault.headers)
        else:
            self.meter.retried += 1
            self.pace.failed(ticket, timeout=fault.reason == "timeout")
