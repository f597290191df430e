"""The budget holds in every order of events, and a stopped run goes on to the same rows."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.common.errors import StoppedError
from jobs.common.generate_settings import PriceSettings
from jobs.common.recipe import PROJECT
from jobs.generate.budget import Budget, Cost, Tariff
from jobs.generate.journal import OpenAttempt, open_journal
from tests.fakes.load_accounts import Stats
from tests.fakes.load_behaviour import Behaviour
from tests.fakes.load_server import LoadServer
from tests.generate.virtual_time import run_virtually
from tests.generate.world import KEY, World, error_line, finish_fetch, recipe_text, write_constitution

PRICE = "{input_usd_per_million_tokens: 1.0, output_usd_per_million_tokens: 4.0, dated: '2026-11-01'}"
PRICED = (f"teacher.price={PRICE}", f"initial.price={PRICE}")
AGAIN = "cai generate --run tiny"

COSTS = st.tuples(st.integers(1, 100), st.floats(0.0, 1.0), st.floats(0.001, 0.5), st.floats(0.0, 0.02))
"""Worst tokens, share of them used, seconds it takes, seconds until it is asked for."""


@given(
    st.lists(COSTS, min_size=1, max_size=40),
    st.one_of(st.none(), st.integers(0, 800)),
    st.one_of(st.none(), st.floats(0.0, 0.01)),
)
@settings(max_examples=150)
def test_spent_and_reserved_never_exceed_the_cap(
    costs: list[tuple[int, float, float, float]], tokens: int | None, usd: float | None
) -> None:
    budget, used = Budget(usd, tokens, AGAIN), Cost()
    in_flight, stopped = 0, 0

    def check() -> None:
        both = budget.spent + budget.reserved
        assert tokens is None or both.tokens <= tokens
        assert usd is None or both.usd <= usd + 1e-8

    async def one(worst_tokens: int, share: float, takes_s: float, begins_s: float) -> None:
        nonlocal in_flight, stopped, used
        await asyncio.sleep(begins_s)
        worst = Cost(worst_tokens / 1e5, worst_tokens)
        try:
            reserved = await budget.reserve(worst)
        except StoppedError:
            stopped += 1
            return
        in_flight += 1
        check()
        await asyncio.sleep(takes_s)
        check()
        taken = int(worst_tokens * share)
        in_flight -= 1
        used += Cost(taken / 1e5, taken)
        budget.settle(reserved, Cost(taken / 1e5, taken))
        check()

    async def main() -> None:
        await asyncio.gather(*(one(*cost) for cost in costs))

    run_virtually(main)
    assert budget.spent.tokens == used.tokens
    assert budget.spent.usd == pytest.approx(used.usd)
    assert budget.reserved.tokens == 0
    assert budget.reserved.usd == pytest.approx(0, abs=1e-9)
    if tokens is None and usd is None:
        assert not stopped


def test_it_stops_only_when_nothing_is_in_flight_and_then_for_all() -> None:
    budget = Budget(None, 100, AGAIN)

    async def main() -> None:
        first = await budget.reserve(Cost(tokens=80))
        large, small = (asyncio.create_task(budget.reserve(Cost(tokens=size))) for size in (90, 20))
        await asyncio.sleep(1)
        assert not large.done()
        budget.settle(first, Cost(tokens=30))
        await asyncio.gather(large, small, return_exceptions=True)
        with pytest.raises(StoppedError):
            large.result()
        with pytest.raises(StoppedError):  # or it would be sent while the run stops, and be lost at its worst case
            small.result()
        with pytest.raises(StoppedError):
            await budget.reserve(Cost(tokens=1))
        assert budget.reserved.tokens == 0

    run_virtually(main)


def test_first_come_first_served_and_who_stops_waiting_takes_nothing_with_him() -> None:
    budget, order = Budget(None, 100, AGAIN), list[int]()

    async def one(size: int) -> None:
        await budget.reserve(Cost(tokens=size))
        order.append(size)

    async def main() -> None:
        held = await budget.reserve(Cost(tokens=100))
        tasks = [asyncio.create_task(one(size)) for size in (41, 42, 3, 4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        budget.settle(held, Cost(tokens=50))
        tasks[1].cancel()  # it had its turn already, and does not live to use it
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [3, 4]
        assert budget.reserved == Cost(tokens=7)

    run_virtually(main)


@pytest.mark.parametrize(
    ("budget", "worst", "said"),
    [
        (Budget(None, 1000, AGAIN, Cost(0.5, 900)), Cost(0.1, 101), "budget_tokens 1000 is reached: 900 used"),
        (Budget(2.5, None, AGAIN, Cost(2.4, 10)), Cost(0.11, 5), "budget_usd 2.5 is reached: $2.4000 spent"),
        (Budget(2.5, 1000, AGAIN, Cost(2.4, 10)), Cost(0.11, 5), "budget_usd 2.5 is reached"),
        (Budget(2.5, 1000, AGAIN, Cost(0.4, 999)), Cost(0.11, 5), "budget_tokens 1000 is reached"),
    ],
)
def test_the_message_says_cap_spent_and_what_to_run(budget: Budget, worst: Cost, said: str) -> None:
    with pytest.raises(StoppedError, match=r"Raise budget_\w+ and run again: cai generate --run tiny") as stopped:
        asyncio.run(budget.reserve(worst))
    assert said in str(stopped.value)


def test_a_run_may_end_exactly_at_its_cap() -> None:
    price = PriceSettings(input_usd_per_million_tokens=0.15, output_usd_per_million_tokens=0.6, dated="2026-11-01")
    cost = Tariff(price).cost(7, 13)
    budget = Budget(1000 * cost.usd, 1000 * cost.tokens, AGAIN)

    async def main() -> None:
        for _ in range(1000):
            budget.settle(await budget.reserve(cost), cost)

    asyncio.run(main())
    assert budget.left.tokens == 0
    with pytest.raises(StoppedError):
        asyncio.run(budget.reserve(cost))


def test_the_batch_price_is_discounted_and_the_embedded_model_is_free() -> None:
    price = PriceSettings(input_usd_per_million_tokens=1, output_usd_per_million_tokens=4, dated="2026-11-01")
    assert Tariff(price).cost(100, 50) == Cost(300 / 1e6, 150)
    assert Tariff(price).cost(100, 50, batch=True) == Cost(150 / 1e6, 150)
    assert Tariff(None, free=True).cost(100, 50) == Cost()
    assert Tariff(None).usd(100, 50) is None


# --- the whole stage ---------------------------------------------------------------------------------------------


@pytest.fixture
def loaded() -> Iterator[LoadServer]:
    with LoadServer(Behaviour(latency_s=0.01)) as server:
        yield server


@pytest.fixture
def make_world(loaded: LoadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OPENAI_BASE_URL", loaded.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("INITIAL_API_KEY", KEY)

    def make(name: str) -> World:
        folder = tmp_path / name
        folder.mkdir()
        write_constitution(folder / "tiny.yaml")
        (folder / "tiny-recipe.yaml").write_text(recipe_text(folder / "tiny.yaml", loaded.url), encoding="utf-8")
        found = World(folder, cast(Any, loaded))
        finish_fetch(found.context)
        return found

    return make


def charged(stats: Stats) -> int:
    return stats.charged_prompt_tokens + stats.charged_reply_tokens


def dollars(stats: Stats) -> float:
    return (stats.charged_prompt_tokens * 1.0 + stats.charged_reply_tokens * 4.0) / 1e6


def lost(world: World) -> list[OpenAttempt]:
    journal = open_journal(world.runs / "journal")
    try:
        return journal.lost("tiny")
    finally:
        journal.close()


def undisturbed(make_world: Any, loaded: LoadServer) -> tuple[dict[str, str], Stats]:
    world = make_world("undisturbed")
    assert world.generate() == 0
    stats = loaded.stats()
    loaded.reset()
    found: dict[str, str] = world.manifest()["outputs"]
    return found, stats


def test_half_the_tokens_stop_with_75_and_more_give_the_same_bytes(
    make_world: Any, loaded: LoadServer, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs, whole = undisturbed(make_world, loaded)
    cap = charged(whole) // 2 + 2000
    world = make_world("capped")
    capsys.readouterr()
    assert world.sets(f"budget_tokens={cap}") == 75
    line = error_line(capsys)
    assert f"budget_tokens {cap} is reached" in line
    assert AGAIN in line
    stopped = loaded.stats()
    assert 0 < charged(stopped) <= cap
    assert (stopped.maybe_prompt_tokens, lost(world)) == (0, []), "stopped with requests in flight"
    assert not (world.stage / "manifest.json").exists()
    asked = stopped.attempts
    assert world.sets(f"budget_tokens={cap}") == 75
    assert loaded.stats().attempts - asked <= 3, "the cap counts what earlier processes spent"
    assert charged(loaded.stats()) <= cap
    assert world.sets(f"budget_tokens={charged(whole) * 20}") == 0
    assert world.manifest()["outputs"] == outputs
    assert charged(loaded.stats()) == charged(whole)
    assert loaded.stats().delivered_twice == 0


def test_half_the_dollars_stop_with_75_and_more_give_the_same_bytes(make_world: Any, loaded: LoadServer) -> None:
    outputs, whole = undisturbed(make_world, loaded)
    cap = round(dollars(whole) / 2 + 0.003, 6)
    world = make_world("capped")
    assert world.sets(*PRICED, f"budget_usd={cap}") == 75
    assert 0 < dollars(loaded.stats()) <= cap
    assert lost(world) == [], "stopped with requests in flight"
    assert world.sets(*PRICED, f"budget_usd={cap * 20}") == 0
    assert world.manifest()["outputs"] == outputs
    account = world.manifest()["measures"]["account"]
    assert account["spent_usd"] == pytest.approx(dollars(loaded.stats()))
    assert dollars(loaded.stats()) == pytest.approx(dollars(whole))


def test_both_caps_hold_together(make_world: Any, loaded: LoadServer, capsys: pytest.CaptureFixture[str]) -> None:
    world = make_world("capped")
    assert world.sets(*PRICED, "budget_usd=100", "budget_tokens=4000") == 75
    assert "budget_tokens 4000" in error_line(capsys)
    assert world.sets(*PRICED, "budget_usd=0.004", "budget_tokens=400000") == 75
    assert "budget_usd 0.004" in error_line(capsys)
    assert charged(loaded.stats()) <= 4000


@pytest.mark.parametrize(
    ("changes", "said"),
    [((), "teacher.price"), ((f"teacher.price={PRICE}", "initial.endpoint=https://model.example/v1"), "initial.price")],
)
def test_dollars_without_a_price_are_refused_before_anything_is_asked(
    make_world: Any,
    loaded: LoadServer,
    changes: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert make_world("unpriced").sets("budget_usd=1", *changes) == 78
    assert said in error_line(capsys)
    assert loaded.stats().attempts == 0


def test_requests_in_flight_at_a_kill_count_at_their_worst_case_and_are_listed(
    make_world: Any, loaded: LoadServer
) -> None:
    outputs, whole = undisturbed(make_world, loaded)
    loaded.change(replace(loaded.behaviour, tail_share=0.3, tail_s=1000.0))  # some are in flight to the end
    world, cap = make_world("killed"), charged(whole) // 2 + 2000
    arguments = world.arguments("--set", f"budget_tokens={cap}")
    process = subprocess.Popen([sys.executable, "-m", "jobs", *arguments], cwd=PROJECT, env=dict(os.environ))
    while not (loaded.stats().delivered > 3 and loaded.stats().in_flight):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    open_then = lost(world)
    assert open_then
    assert {one.reason for one in open_then} == {"in flight"}
    loaded.change(replace(loaded.behaviour, tail_share=0.0))
    while loaded.stats().in_flight:
        time.sleep(0.01)
    assert world.sets(f"budget_tokens={cap}") == 75
    stats = loaded.stats()
    assert charged(stats) + stats.maybe_prompt_tokens + stats.maybe_reply_tokens <= cap
    worst = sum(one.prompt_tokens + one.reply_tokens for one in open_then)
    journal = open_journal(world.runs / "journal")
    paid = sum(one.prompt_tokens + one.reply_tokens for one in journal.account("tiny"))
    journal.close()
    assert paid + worst <= cap
    assert world.sets(f"budget_tokens={cap * 20}") == 0
    account = world.manifest()["measures"]["account"]
    assert account["lost_requests"] == len(open_then)
    assert [one["id"] for one in account["lost"]] == [one.id for one in open_then]
    assert world.manifest()["outputs"] == outputs
    assert json.dumps(account)
