"""The gate finds an endpoint's limit, keeps its rates, and never locks up: simulated endpoints in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.generate import pace as pace_module
from jobs.generate.limit import Limit
from jobs.generate.pace import Pace, Ticket
from jobs.generate.quota import Bucket, Quota, duration_s
from tests.generate.virtual_time import run_virtually

TRIP_S = 0.002
TOKENS = 100
"""Of a request, in and out; half of them are the reply's."""


@dataclass
class Simulated:
    """An endpoint with a limit in flight, a limit per second, or a number of slots at which requests queue."""

    latency_s: float = 0.3
    limit: int | None = None
    per_s: float | None = None
    burst: float = 1.0
    slots: int | None = None
    timeout_s: float = float("inf")
    retry_after_s: float = 1.0
    in_flight: int = 0
    most: int = 0
    refused: int = 0
    timeouts: int = 0
    refused_at: list[float] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    _level: float = 0.0
    _at: float = 0.0
    _busy: list[float] = field(default_factory=list)

    async def answer(self) -> str:
        """`ok`, `refused` or `timeout`."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(TRIP_S)
        self.sent_at.append(loop.time())
        if (self.limit is not None and self.in_flight >= self.limit) or not self._allowed(loop.time()):
            self.refused += 1
            self.refused_at.append(loop.time())
            return "refused"
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        took_s = self._took_s(loop.time())
        await asyncio.sleep(min(took_s, self.timeout_s))
        self.in_flight -= 1
        self.timeouts += took_s > self.timeout_s
        return "timeout" if took_s > self.timeout_s else "ok"

    def _allowed(self, now: float) -> bool:
        if self.per_s is None:
            return True
        self._level = min(self.burst, self._level + (now - self._at) * self.per_s) if self._at else self.burst
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def _took_s(self, now: float) -> float:
        if self.slots is None:
            return self.latency_s
        self._busy = self._busy or [now] * self.slots
        start = max(now, min(self._busy))
        self._busy[self._busy.index(min(self._busy))] = start + self.latency_s
        return start + self.latency_s - now


async def ask(pace: Pace, endpoint: Simulated) -> None:
    """One request until it is answered, as the sender does it."""
    loop = asyncio.get_running_loop()
    while True:
        ticket = await pace.enter(TOKENS)
        pace.limit.wired(loop.time())
        ended = await endpoint.answer()
        if ended == "ok":
            pace.replied(ticket, TOKENS, TOKENS // 2, {})
            return
        if ended == "timeout":
            pace.failed(ticket, timeout=True)
            continue
        pace.throttled(ticket, endpoint.retry_after_s, {})
        await asyncio.sleep(endpoint.retry_after_s * random.uniform(1.0, 1.1))


def run_all(pace: Pace, endpoint: Simulated, count: int) -> float:
    """Seconds it takes to get so many answers."""
    pace.limit.round_trip_s = TRIP_S

    async def main() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(*(ask(pace, endpoint) for _ in range(count)))
        return loop.time() - begun

    took_s = run_virtually(main, pace_module)
    assert pace.in_flight == 0
    return took_s


def test_it_finds_a_limit_in_flight_with_few_429s() -> None:
    endpoint = Simulated(limit=50)
    took_s = run_all(Pace(Limit(512)), endpoint, 2000)
    ideal_s = 2000 / 50 * endpoint.latency_s
    assert took_s < 1.5 * ideal_s
    assert endpoint.most == 50
    assert endpoint.refused < 100


def test_no_limit_means_the_ceiling() -> None:
    endpoint = Simulated()
    took_s = run_all(Pace(Limit(512)), endpoint, 5120)
    assert endpoint.most == 512
    assert took_s < 2 * 5120 / 512 * endpoint.latency_s


def test_the_limit_grows_again_when_the_endpoint_allows_more() -> None:
    endpoint, pace = Simulated(limit=20), Pace(Limit(512))
    run_all(pace, endpoint, 200)
    assert pace.limit.value <= 40
    endpoint.limit, endpoint.most = 400, 0
    run_all(pace, endpoint, 6000)  # the virtual clock starts anew, so the hold is at most what is left of it
    assert endpoint.most > 25


def test_a_rate_limit_without_headers_gives_pauses_and_no_storm_of_429s() -> None:
    endpoint = Simulated(per_s=5, burst=5, retry_after_s=1.0)
    took_s = run_all(Pace(Limit(512)), endpoint, 300)
    assert took_s < 3 * 300 / 5
    later = [at for at in endpoint.refused_at if at > endpoint.refused_at[0] + 10]
    in_a_second = max((sum(at <= one < at + 1 for one in later) for at in later), default=0)
    assert endpoint.refused < 2.5 * 300
    assert in_a_second <= 20, "long after the limit is known, requests still come back all at once"


def test_a_server_that_queues_is_not_driven_up() -> None:
    pace = Pace(Limit(1000))
    start = pace.limit.value
    endpoint = Simulated(slots=1, latency_s=0.1)
    run_all(pace, endpoint, 600)
    assert pace.limit.value <= start + 20


def test_timeouts_lower_the_limit_to_what_is_answered_in_time() -> None:
    endpoint, pace = Simulated(slots=4, latency_s=0.5, timeout_s=10.0), Pace(Limit(512))
    took_s = run_all(pace, endpoint, 400)
    assert pace.limit.value <= 100  # 80 are answered within the timeout
    assert endpoint.timeouts < 600
    assert took_s < 4 * 400 / 4 * 0.5


def test_timeouts_do_not_come_again_and_again() -> None:
    endpoint, pace = Simulated(slots=64, latency_s=2.0, timeout_s=10.0), Pace(Limit(512))
    took_s = run_all(pace, endpoint, 5000)  # 320 are answered within the timeout
    assert endpoint.timeouts < 1000  # those of the first burst, and few later
    assert took_s < 2 * 5000 / 64 * 2.0


def test_a_ceiling_of_one_sends_one_after_the_other() -> None:
    endpoint = Simulated(limit=1)
    took_s = run_all(Pace(Limit(1)), endpoint, 20)
    assert (endpoint.most, endpoint.refused) == (1, 0)
    assert took_s == pytest.approx(20 * (0.3 + TRIP_S), rel=0.001)


def test_the_ceiling_holds() -> None:
    endpoint = Simulated()
    run_all(Pace(Limit(7)), endpoint, 100)
    assert endpoint.most == 7


def test_first_come_first_served() -> None:
    pace, order = Pace(Limit(3)), list[int]()

    async def one(number: int) -> None:
        ticket = await pace.enter(TOKENS)
        order.append(number)
        await asyncio.sleep(random.uniform(0.1, 0.5))
        pace.replied(ticket, TOKENS, 50, {})

    async def main() -> None:
        await asyncio.gather(*map(one, range(50)))

    run_virtually(main, pace_module)
    assert order == list(range(50))


def test_who_stops_waiting_takes_no_place_with_him() -> None:
    pace = Pace(Limit(2))

    async def main() -> None:
        held = [await pace.enter(TOKENS) for _ in range(2)]
        waiting = [asyncio.create_task(pace.enter(TOKENS)) for _ in range(10)]
        await asyncio.sleep(0.1)
        for task in waiting[:4]:
            task.cancel()
        pace.replied(held[0], TOKENS, 50, {})  # gives waiting[4] its turn ...
        waiting[4].cancel()  # ... which it does not live to see
        await asyncio.gather(*waiting[:5], return_exceptions=True)
        assert all(task.cancelled() for task in waiting[:5])
        assert pace.in_flight == 2
        for task in waiting[5:]:
            held.append(await task)
            pace.replied(held[-2], TOKENS, 50, {})
        pace.replied(held[-1], TOKENS, 50, {})
        assert pace.in_flight == 0

    run_virtually(main, pace_module)


def answered(pace: Pace, ticket: Ticket, **headers: str) -> None:
    named = {f"x-ratelimit-{name.replace('_', '-')}": value for name, value in headers.items()}
    pace.replied(ticket, TOKENS, 50, named)


@pytest.mark.parametrize("what", ["requests", "tokens"])
def test_nothing_is_sent_before_the_reset_when_the_headers_leave_nothing(what: str) -> None:
    pace = Pace(Limit(8))

    async def main() -> float:
        loop = asyncio.get_running_loop()
        first = await pace.enter(TOKENS)
        left = {"remaining_requests": "100", "reset_requests": "1s", f"remaining_{what}": "0", f"reset_{what}": "1s"}
        answered(pace, first, **left)
        begun = loop.time()
        await pace.enter(TOKENS)
        return loop.time() - begun

    assert run_virtually(main, pace_module) == pytest.approx(1.0, abs=0.01)


def test_what_the_headers_leave_is_sent_at_once_and_no_more() -> None:
    pace = Pace(Limit(50))

    async def main() -> list[float]:
        loop, entered = asyncio.get_running_loop(), list[float]()
        first = await pace.enter(TOKENS)
        answered(pace, first, remaining_requests="3", reset_requests="2s")
        begun = loop.time()
        for _ in range(6):
            await pace.enter(TOKENS)
            entered.append(loop.time() - begun)
        return entered

    waits = run_virtually(main, pace_module)
    assert waits[:3] == [0, 0, 0]
    assert waits[3:] == pytest.approx([2.0, 2.0, 2.0], abs=0.01)


def test_an_older_answer_does_not_overrule_a_newer_one() -> None:
    quota = Quota()
    quota.read({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "5s"}, 10, 1000, 0.0)
    quota.read({"x-ratelimit-remaining-requests": "99", "x-ratelimit-reset-requests": "5s"}, 9, 900, 0.1)
    assert quota.wait_s(11, 1100, 1.0) == pytest.approx(4.0)
    assert quota.wait_s(11, 1100, 5.1) == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining-requests": "0"},
        {"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "1s"},
        {"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "soon"},
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2026-01-01T00:00:00Z"},
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6h0m0s"},  # nobody waits so long unseen
    ],
    ids=str,
)
def test_headers_that_say_nothing_useful_hold_nothing(headers: Mapping[str, str]) -> None:
    quota = Quota()
    quota.read(headers, 1, 100, 0.0)
    assert quota.wait_s(2, 200, 0.0) == 0


def test_durations_are_read_as_openai_writes_them() -> None:
    written = {"6m0s": 360, "120ms": 0.12, "1s": 1, "1h2m3s": 3723, "0.5": 0.5, "2.5s": 2.5, "1d": 86400}
    assert {text: duration_s(text) for text in written} == pytest.approx(written)
    assert [duration_s(text) for text in ("", "soon", "1.2.3s", "1x", "-1s", "s")] == [0] * 6


@given(st.text(alphabet="0123456789.msdh -", max_size=8))
def test_no_duration_breaks_the_reader(text: str) -> None:
    assert duration_s(text) >= 0


@pytest.mark.parametrize(("requests", "tokens"), [(600, None), (None, 60_000), (600, 60_000)])
def test_rates_of_the_recipe_are_kept_in_every_second(requests: int | None, tokens: int | None) -> None:
    endpoint, pace = Simulated(latency_s=0.1), Pace(Limit(512), (Bucket(requests), Bucket(tokens)))
    took_s = run_all(pace, endpoint, 300)  # 10 a second
    assert 28 <= took_s <= 32
    for at in endpoint.sent_at:
        assert sum(at <= one < at + 1 for one in endpoint.sent_at) <= 21  # one second's share at once, and the next's


def test_tokens_that_were_not_used_are_given_back() -> None:
    pace = Pace(Limit(512), (Bucket(None), Bucket(60_000)))

    async def main() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(100):
            ticket = await pace.enter(1000)  # expected: one a second
            pace.replied(ticket, 100, 50, {})  # used: a tenth of it
        return loop.time() - begun

    assert run_virtually(main, pace_module) <= 20


def test_a_request_larger_than_a_minute_still_goes() -> None:
    pace = Pace(Limit(4), (Bucket(None), Bucket(60)))

    async def main() -> float:
        begun = asyncio.get_running_loop().time()
        for _ in range(2):
            pace.replied(await pace.enter(120), 120, 50, {})
        return asyncio.get_running_loop().time() - begun

    assert 115 <= run_virtually(main, pace_module) <= 125


def test_after_close_nothing_goes_and_what_is_in_flight_comes_back() -> None:
    pace = Pace(Limit(2))

    async def main() -> None:
        tickets = [await pace.enter(TOKENS) for _ in range(2)]
        waiting = [asyncio.create_task(pace.enter(TOKENS)) for _ in range(3)]
        await asyncio.sleep(0)
        pace.close()
        for ticket in tickets:
            pace.replied(ticket, TOKENS, 50, {})
        late = asyncio.create_task(pace.enter(TOKENS))
        await asyncio.sleep(100)
        assert pace.in_flight == 0
        assert not any(task.done() for task in (*waiting, late))
        for task in (*waiting, late):
            task.cancel()

    run_virtually(main, pace_module)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(0, 2000)),
        st.tuples(st.sampled_from(["reply", "refuse", "timeout", "fail", "cancel"]), st.integers(0, 100)),
        st.tuples(st.just("wait"), st.integers(1, 5000)),
    ),
    max_size=120,
)
RATES = st.sampled_from([None, 60, 6000])


@dataclass
class Crowd:
    """Requests that come, end and stop waiting in any order."""

    pace: Pace
    held: list[Ticket] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def enter(self, tokens: int) -> None:
        self.held.append(await self.pace.enter(tokens))

    def happen(self, event: str, number: int) -> None:
        if event == "enter":
            self.tasks.append(asyncio.create_task(self.enter(number)))
        elif event == "cancel" and self.tasks:
            self.tasks[number % len(self.tasks)].cancel()
        elif event not in {"wait", "cancel"} and self.held:
            self.end(self.held.pop(number % len(self.held)), event, number)

    def end(self, ticket: Ticket, event: str, number: int) -> None:
        if event == "refuse":
            self.pace.throttled(ticket, number / 10, {})
        elif event == "reply":
            left = {"remaining_requests": str(number % 7), "reset_requests": f"{number}ms"} if number % 2 else {}
            answered(self.pace, ticket, **left)
        else:
            self.pace.failed(ticket, timeout=event == "timeout")

    async def finish(self) -> None:
        """Answer everything until nobody waits; the loop says so if somebody is never let in."""
        while self.held or not all(task.done() for task in self.tasks):
            if self.held:
                answered(self.pace, self.held.pop())
            await asyncio.sleep(0 if self.held else 1)
            assert asyncio.get_running_loop().time() < 100_000


@given(EVENTS, st.integers(1, 80), RATES, st.sampled_from([None, 600, 600_000]))
@settings(max_examples=150)
def test_whatever_happens_everyone_gets_in_in_the_end(
    events: list[tuple[str, int]], most: int, requests: int | None, tokens: int | None
) -> None:
    pace = Pace(Limit(most), (Bucket(requests), Bucket(tokens)))
    crowd = Crowd(pace)

    async def main() -> None:
        for event, number in events:
            crowd.happen(event, number)
            await asyncio.sleep(number / 1000 if event == "wait" else 0)
            assert 0 <= pace.in_flight <= most
            assert 1 <= pace.limit.value <= most
            if all(task.done() for task in crowd.tasks):
                assert pace.in_flight == len(crowd.held)
        await crowd.finish()
        assert pace.in_flight == 0

    run_virtually(main, pace_module)


@pytest.mark.parametrize("seed", range(6))
def test_every_kind_of_endpoint_is_served_to_the_end(seed: int) -> None:
    draw = random.Random(seed)
    endpoint = Simulated(
        latency_s=draw.choice([0.01, 0.3, 3.0]),
        limit=draw.choice([None, 1, 3, 40]),
        per_s=draw.choice([None, 20.0]),
        burst=draw.choice([1.0, 20.0]),
        retry_after_s=draw.choice([0.0, 0.2, 5.0]),
    )
    run_all(Pace(Limit(draw.choice([1, 8, 512]))), endpoint, 150)
    assert endpoint.in_flight == 0
