"""The engine against a real server: nothing paid twice, waits that end, and failures that are told apart."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobs.common.errors import UnavailableError
from jobs.common.generate_settings import TeacherSettings
from jobs.generate import attempts
from jobs.generate.breaker import Run
from jobs.generate.chat import connect
from jobs.generate.endpoint import Endpoint
from jobs.generate.engine import Engine, RefusedError, open_engine
from jobs.generate.journal import Journal, open_journal
from jobs.generate.limit import Limit
from jobs.generate.requests import ChatRequest, Sampling, Turn
from tests.fakes.openai_server import Answer, FakeServer
from tests.generate.world import HANGS_S

KEY = "no/known+shape=of.a.key"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_BACKOFF_S", 0.02)
    monkeypatch.setattr(attempts, "LONGEST_BACKOFF_S", 0.2)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(open_journal(tmp_path / "journal")) as opened:
        yield opened


def request(text: str, max_tokens: int = 200) -> ChatRequest:
    return ChatRequest("revision", (Turn("user", text),), max_tokens, Sampling(0.7, 1.0, 0), "1")


def asking(server: FakeServer, journal: Journal, work: Any, **changes: Any) -> Any:
    """Run `work(engine)` with an engine of its own."""
    given = {"endpoint": "api", "concurrency": 16, "timeout_s": 5, "max_attempts": 3} | changes
    endpoint = Endpoint("test", "fake-teacher", (server.url,), "off", KEY)

    async def main() -> Any:
        async with open_engine(
            endpoint, TeacherSettings.model_validate(given), journal, Run("r", "cai generate")
        ) as engine:
            return await work(engine)

    return asyncio.run(asyncio.wait_for(main(), HANGS_S))


def completion(text: str, reply_tokens: int, finish_reason: str = "stop") -> bytes:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 10, "completion_tokens": reply_tokens}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode()


def told(server: FakeServer) -> list[str]:
    """Texts that were asked, and forget them."""
    asked = sorted(one.last for one in server.history)
    server.history.clear()
    return asked


def test_the_same_request_twice_at_once_is_sent_once(server: FakeServer, journal: Journal) -> None:
    server.respond = lambda _: Answer(delay_s=0.2)

    async def work(engine: Engine) -> Any:
        replies = await asyncio.gather(*(engine.ask(request("same")) for _ in range(10)), engine.ask(request("other")))
        return replies, engine.sender.meter

    replies, meter = asking(server, journal, work)
    assert told(server) == ["other", "same"]
    assert len(set(replies)) == 2
    assert (meter.new.requests, meter.journalled.requests) == (2, 9)


def test_a_shared_request_that_fails_fails_for_all_and_can_be_asked_again(server: FakeServer, journal: Journal) -> None:
    server.enqueue(Answer(status=400, error={"message": "no"}, delay_s=0.1))

    async def work(engine: Engine) -> Any:
        both = await asyncio.gather(*(engine.ask(request("same")) for _ in range(2)), return_exceptions=True)
        return both, await engine.ask(request("same"))

    both, reply = asking(server, journal, work)
    assert all(isinstance(one, RefusedError) for one in both)
    assert reply.text
    assert told(server) == ["same"] * 2


def ask_each(texts: list[str], max_tokens: int) -> Any:
    async def work(engine: Engine) -> list[str]:
        return [reply.text for reply in await asyncio.gather(*(engine.ask(request(t, max_tokens)) for t in texts))]

    return work


def test_a_higher_token_limit_asks_again_only_for_what_was_cut_off(server: FakeServer, journal: Journal) -> None:
    def limited(body: dict[str, Any]) -> Answer:
        wanted = {"short": 5, "long": 80}[body["messages"][-1]["content"]]
        most = body["max_tokens"]
        return Answer(body=completion(f"up to {min(wanted, most)}", min(wanted, most), "length"[: 9 * (wanted > most)]))

    server.respond = limited
    both = ["short", "long"]
    assert asking(server, journal, ask_each(both, 20)) == ["up to 5", "up to 20"]
    assert told(server) == ["long", "short"]
    assert asking(server, journal, ask_each(both, 20)) == ["up to 5", "up to 20"]
    assert told(server) == []
    assert asking(server, journal, ask_each(both, 100)) == ["up to 5", "up to 80"]
    assert told(server) == ["long"]
    assert asking(server, journal, ask_each(both, 40)) == ["up to 5", "up to 40"]
    assert told(server) == ["long"], "a lower limit asks again only for what is too long for it"
    for max_tokens, texts in {
        20: ["up to 5", "up to 20"],
        40: ["up to 5", "up to 40"],
        90: ["up to 5", "up to 80"],
    }.items():
        assert asking(server, journal, ask_each(both, max_tokens)) == texts
    assert told(server) == []


def test_503_with_retry_after_waits_like_429_and_does_not_count_as_failure(
    server: FakeServer, journal: Journal
) -> None:
    busy = Answer(status=503, headers={"Retry-After": "0.05"}, error={"message": "overloaded"})
    server.enqueue(*[busy] * 5)  # more than max_attempts

    async def work(engine: Engine) -> Any:
        return await engine.ask(request("one")), engine.sender.pace.throttled_count, engine.sender.meter.retried

    reply, throttled, retried = asking(server, journal, work)
    assert reply.text
    assert (throttled, retried) == (5, 0)
    assert journal.lost("r") == []


def tiring(server: FakeServer) -> Answer:
    """One reply, then 429 for ever."""
    return Answer(delay_s=0.1) if not server.answered else Answer(status=429, error={"message": "slow down"})


def test_429_for_ever_fails_the_last_few_and_ends_the_run_when_there_are_many(
    server: FakeServer, journal: Journal
) -> None:
    server.respond = lambda _: tiring(server)

    def work(count: int) -> Any:
        async def all_of_them(engine: Engine) -> Any:
            asks = (engine.ask(request(f"{number}")) for number in range(count))
            return await asyncio.gather(*asks, return_exceptions=True)

        return all_of_them

    ends = asking(server, journal, work(5), max_attempts=1)
    refused = [end for end in ends if isinstance(end, RefusedError)]
    assert len(refused) >= 3
    assert {(one.fault.reason, one.fault.status) for one in refused} == {("throttled", 429)}
    assert any(isinstance(end, UnavailableError) for end in asking(server, journal, work(40), max_attempts=1))


def test_a_request_refused_often_is_not_given_up_while_others_get_through(server: FakeServer, journal: Journal) -> None:
    refusals: list[float] = []

    def unfair(body: dict[str, Any]) -> Answer:
        if body["messages"][-1]["content"] != "unlucky":
            return Answer()
        refusals.append(time.monotonic())
        return Answer(status=429, headers={"Retry-After": "0.1"}) if len(refusals) < 12 else Answer(content="at last")

    server.respond = unfair

    async def work(engine: Engine) -> str:
        unlucky, others = asyncio.create_task(engine.ask(request("unlucky"))), 0
        while not unlucky.done():  # one more reply between two refusals
            if len(refusals) > others:
                others = len(refusals)
                await engine.ask(request(f"other {others}"))
            await asyncio.sleep(0.01)
        return (await unlucky).text

    assert asking(server, journal, work, max_attempts=2) == "at last"
    assert len(refusals) == 12


def test_a_closed_port_ends_at_once(server: FakeServer, journal: Journal) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    endpoint = Endpoint("test", "m", (gone,), "off")

    async def main() -> None:
        settings = TeacherSettings(endpoint="api", max_attempts=2)
        async with open_engine(endpoint, settings, journal, Run("r", "cai generate")) as engine:
            await asyncio.gather(*(engine.ask(request(f"{number}")) for number in range(20)))

    with pytest.raises(UnavailableError, match="Then run: cai generate; every reply so far is journalled"):
        asyncio.run(main())
    assert journal.lost("r") == [], "what was never sent cost nothing"


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (Endpoint("host", "m", ("http://model.example/v1",), "off"), "http://127.0.0.1:9"),
        (Endpoint("host", "m", ("http://here.example/v1",), "off"), None),
        (Endpoint("embedded:abc", "m", ("http://127.0.0.1:8081",), "off"), None),
    ],
    ids=["remote", "no_proxy", "embedded"],
)
def test_the_environments_proxy_is_for_remote_endpoints(
    endpoint: Endpoint, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "here.example")

    async def main() -> str | None:
        async with connect(endpoint, 1.0, Limit(1)) as client:
            found = client.session._default_proxy
            return str(found) if found else None

    assert asyncio.run(main()) == expected


def test_a_request_really_goes_through_the_proxy(
    server: FakeServer, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "")
    endpoint = Endpoint("test", "m", ("http://model.example/v1",), "off", KEY)

    async def main() -> str:
        async with open_engine(endpoint, TeacherSettings(), journal, Run("r", "again")) as engine:
            return (await engine.ask(request("hello"))).text

    assert asyncio.run(main())
    assert [one.path for one in server.history] == ["http://model.example/v1/chat/completions"]
