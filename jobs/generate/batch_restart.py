"""Batches of an earlier process: found again, so that nothing is paid twice; used by `batch.py`."""

from __future__ import annotations

from collections import defaultdict

from jobs.common.console import say
from jobs.generate.batch_lines import Line, marker
from jobs.generate.batch_post import Post
from jobs.generate.batch_watch import NO_BATCH_API, patiently
from jobs.generate.budget import Cost
from jobs.generate.endpoint import Endpoint
from jobs.generate.faults import FaultError
from jobs.generate.journal import Journal, OpenAttempt
from jobs.generate.journal_tables import IN_FLIGHT
from jobs.generate.requests import CHOICES


def still_waiting(journal: Journal, run: str, endpoint: Endpoint) -> list[OpenAttempt]:
    """Requests of a run that were sent to an endpoint in batches, by earlier processes, and may still be fetched."""
    return [
        one
        for one in journal.lost(run)
        if one.batch and one.reason == IN_FLIGHT and (one.endpoint, one.model) == (endpoint.logical, endpoint.model)
    ]


async def pick_up(post: Post) -> None:
    """Watch the batches of earlier processes.

    Raises:
        FaultError: the endpoint is down or refuses.
    """
    sender = post.sender
    found: dict[str, list[OpenAttempt]] = defaultdict(list)
    for one in still_waiting(sender.journal, sender.run.name, post.api.endpoint):
        found[one.batch_id].append(one)
    if nameless := found.pop("", []):
        batch_id = await _find(post, nameless)
        if batch_id:
            found[batch_id] += nameless
    for batch_id, attempts in found.items():
        lines = [_line(post, one) for one in attempts]
        post.earlier |= {(line.key, line.max_tokens): line for line in lines}
        post.watch(batch_id, lines)
    if found:
        requests = sum(map(len, found.values()))
        say(f"{requests} requests wait in {in_words(len(found))} at {post.api.endpoint.shown}; they are not sent again")


def in_words(count: int) -> str:
    """So many batches, in words."""
    return f"{count} batch" + ("es" if count != 1 else "")


async def _find(post: Post, attempts: list[OpenAttempt]) -> str | None:
    """The batch that a process made before it was killed; what was never sent is given back."""
    sender, ids = post.sender, [one.id for one in attempts]
    try:
        batch = await patiently(lambda: post.api.find(marker(sender.run.name, ids), attempts[0].at))
    except FaultError as error:
        if error.fault.status not in NO_BATCH_API:
            raise
        batch = None
    if batch:
        sender.journal.batch_created(batch.id, ids)
        return batch.id
    for one in attempts:
        sender.journal.release(one.id)
        sender.budget.settle(_worst(post, one), Cost())
    return None


def _line(post: Post, one: OpenAttempt) -> Line:
    between = CHOICES.get(one.step, ())
    return Line(one.key, one.reply_tokens, _worst(post, one), between, id=one.id, is_awaited=False)


def _worst(post: Post, one: OpenAttempt) -> Cost:
    return post.sender.meter.tariff.cost(one.prompt_tokens, one.reply_tokens, batch=True)
