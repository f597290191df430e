"""Every fault at once, seeded, 2,000 items: nothing lost, nothing twice, nothing silently wrong, also over a kill -9.

The server's books, the journal and what the engine gave back are three independent accounts; they must agree.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from jobs.common.recipe import PROJECT
from jobs.generate import attempts
from jobs.generate.chat import Answer, Client, chat_body
from jobs.generate.engine import RefusedError
from jobs.generate.journal import Journal, Reply, open_journal
from jobs.generate.requests import ChatRequest
from tests.fakes.load_behaviour import Behaviour
from tests.fakes.load_replies import Asked, read_body, write_reply
from tests.fakes.load_server import LoadServer
from tests.generate.storm import LOGICAL, MAX_ATTEMPTS, MODEL, RUN, drive, storm_requests

ITEMS = 2000
FAULTS = {
    "latency_s": 0.01,
    "tail_share": 0.01,
    "tail_s": 0.2,
    "retry_after_s": 0.1,
    "poison": 0.01,
    "error_500": 0.1,
    "timeout": 0.02,
    "dropped": 0.05,
    "garbage": 0.05,
    "truncated": 0.05,
    "empty": 0.02,
}
Ended = list[Reply | RefusedError]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_BACKOFF_S", 0.05)


def asked(request: ChatRequest) -> Asked:
    found = read_body(chat_body(request, MODEL))
    assert found
    return found


def digest(request: ChatRequest) -> str:
    return asked(request).digest.hex()


def journalled(journal: Journal, request: ChatRequest) -> Reply | None:
    key = request.key(LOGICAL, MODEL)
    return journal.get(key) or journal.get(request.limited_key(key))


@dataclass(frozen=True)
class Books:
    """What the journal says of a run."""

    lost: Counter[str]
    """Attempts that may have been charged, by the digest of their body."""
    worst_tokens: int
    """What those may have cost."""
    replies: int
    tokens: tuple[int, int]
    """Of requests and of replies."""


def run_storm(server: LoadServer, folder: Path, items: int = ITEMS, concurrency: int = 500) -> tuple[Ended, Books]:
    """Ends of all items, and the books after them."""
    requests = storm_requests(items)
    with closing(open_journal(folder)) as journal:
        ends = asyncio.run(drive(server.url, journal, requests, concurrency))
        digests = {request.key(LOGICAL, MODEL): digest(request) for request in requests}
        lost = journal.lost(RUN)
        (paid,) = journal.account(RUN)
        books = Books(
            lost=Counter(digests[one.key] for one in lost),
            worst_tokens=sum(one.prompt_tokens + one.reply_tokens for one in lost),
            replies=paid.requests,
            tokens=(paid.prompt_tokens, paid.reply_tokens),
        )
        for request, end in zip(requests, ends, strict=True):
            assert journalled(journal, request) == (end if isinstance(end, Reply) else None)
        assert journal.damaged == 0
    return ends, books


def check_truth(server: LoadServer, ends: Ended, books: Books) -> None:
    """Each end is what the server really did with that body."""
    bodies = server.bodies()
    for request, end in zip(storm_requests(len(ends)), ends, strict=True):
        body, (tried, delivered) = asked(request), bodies[digest(request)]
        fates = [server.behaviour.fate(body, number) for number in range(tried)]
        if isinstance(end, Reply):
            assert delivered - 1 <= books.lost[body.digest.hex()], "paid twice, though the first reply was received"
            wrote = write_reply(body, fates[-1])
            choice = json.loads(wrote.data)["choices"][0]
            assert (end.text, end.finish_reason) == (choice["message"]["content"], choice["finish_reason"])
            assert (end.prompt_tokens, end.reply_tokens) == (wrote.prompt_tokens, wrote.reply_tokens)
        elif fates[0] == "bad_request":
            assert (tried, end.fault.reason, end.fault.status) == (1, "content_policy", 400)
        else:
            assert tried == MAX_ATTEMPTS, "given up too early or asked too often"
            told = {"error_500": 500, "garbage": 200, "timeout": None, "dropped": None}
            assert end.fault.status == told.get(fates[-1]) or end.fault.reason == "timeout"  # a slow machine
            assert int(end.fault.detail.split(" attempts, the last: ")[0]) >= MAX_ATTEMPTS  # the server counts no 429
        assert not (isinstance(end, RefusedError) and end.request != body.body)


def check_books(server: LoadServer, ends: Ended, books: Books) -> None:
    """Money: exact for replies that came, the worst case for those that may have been charged."""
    replies = [end for end in ends if isinstance(end, Reply)]
    assert books.replies == len(replies)
    assert books.tokens == (sum(one.prompt_tokens for one in replies), sum(one.reply_tokens for one in replies))
    stats = server.stats()
    delivered = sum(delivered for _, delivered in server.bodies().values())
    unread = sum(stats.outcomes.get(name, 0) for name in ("timeout", "dropped", "garbage", "abandoned"))
    assert books.lost.total() == unread + delivered - len(replies), "one that may be charged is not accounted for"
    charged = stats.charged_prompt_tokens + stats.charged_reply_tokens
    maybe = stats.maybe_prompt_tokens + stats.maybe_reply_tokens
    assert charged + maybe <= sum(books.tokens) + books.worst_tokens


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_paid_twice_or_silently_wrong(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_wire, most = 0, 0
    chat = Client.chat

    async def counted(self: Client, request: ChatRequest, without: frozenset[str]) -> Answer:
        nonlocal on_the_wire, most
        on_the_wire += 1
        most = max(most, on_the_wire)
        try:
            return await chat(self, request, without)
        finally:
            on_the_wire -= 1

    monkeypatch.setattr(Client, "chat", counted)
    with LoadServer(Behaviour(**FAULTS, limit_in_flight=64, seed=seed)) as server:  # type: ignore[arg-type]
        ends, books = run_storm(server, tmp_path)
        assert most <= 500
        assert server.stats().limited > 0
        check_truth(server, ends, books)
        check_books(server, ends, books)
        kinds = Counter(type(end).__name__ for end in ends)
        assert kinds["Reply"] > 0.95 * ITEMS
        assert kinds["RefusedError"] > 0.005 * ITEMS
        before = server.bodies()
        again, books = run_storm(server, tmp_path)
        refused = {digest(one) for one, end in zip(storm_requests(ITEMS), ends, strict=True) if not is_reply(end)}
        asked_again = {body for body, counts in server.bodies().items() if counts != before[body]}
        assert asked_again == refused
        assert all(one == two for one, two in zip(ends, again, strict=True) if is_reply(one))
        assert books.replies == sum(map(is_reply, again))


def is_reply(end: Reply | RefusedError) -> bool:
    return isinstance(end, Reply)


def test_the_ceiling_holds_whatever_happens(tmp_path: Path) -> None:
    with LoadServer(Behaviour(**FAULTS, seed=3)) as server:  # type: ignore[arg-type]
        ends, books = run_storm(server, tmp_path, items=700, concurrency=40)
        stats = server.stats()
        assert stats.limited == 0
        # A connection given up may be seen closed only after the next request came.
        assert stats.most_in_flight <= 40 + stats.outcomes["timeout"] // 4
        check_truth(server, ends, books)


def test_after_kill_9_in_the_storm_only_requests_in_flight_are_sent_again(tmp_path: Path) -> None:
    requests = {digest(request): request for request in storm_requests(ITEMS)}
    with LoadServer(Behaviour(**FAULTS, limit_in_flight=64, seed=4)) as server:  # type: ignore[arg-type]
        command = [sys.executable, "-m", "tests.generate.storm", server.url, str(tmp_path), str(ITEMS), "500"]
        process = subprocess.Popen(command, cwd=PROJECT)
        while server.stats().delivered < ITEMS // 2:
            assert process.poll() is None
            time.sleep(0.02)
        stormy = server.behaviour
        server.change(replace(stormy, latency_s=1000.0, tail_share=0.0))  # so that it cannot end before the kill
        process.kill()
        process.wait()
        server.change(stormy)
        while server.stats().in_flight:
            time.sleep(0.02)
        before = server.bodies()
        with closing(open_journal(tmp_path)) as journal:
            kept = {body for body, request in requests.items() if journalled(journal, request)}
            open_then = [one for one in journal.lost(RUN) if one.reason == "in flight"]
        assert ITEMS // 2 - 64 <= len(kept) < ITEMS
        assert 0 < len(open_then) <= 500
        ends, books = run_storm(server, tmp_path)
        after = server.bodies()
        assert all(after[body] == before[body] for body in kept), "a journalled reply was asked again"
        replies = [end for end in ends if isinstance(end, Reply)]
        assert books.replies == len(replies)
        assert books.tokens[1] == sum(reply.reply_tokens for reply in replies)
        for body, (_, delivered) in after.items():
            assert delivered - 1 <= books.lost[body], "paid twice and not accounted for"
        for request, end in zip(storm_requests(ITEMS), ends, strict=True):
            if isinstance(end, Reply):
                outcome = server.behaviour.fate(asked(request), after[digest(request)][0] - 1)
                assert json.loads(write_reply(asked(request), outcome).data)["choices"][0]["message"]["content"] == (
                    end.text
                )
