"""Cases about waiting well: plain, slow tails, a limit in flight, one request that is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from benchmarks.children import Child, run_child
from benchmarks.measures import Bench, Case, Measure
from benchmarks.questions import question
from tests.fakes.load_behaviour import Behaviour
from tests.fakes.load_server import LoadServer

LATENCY_S, TAIL_S = 0.3, 5.0
REQUESTS, LIMIT = 500, 50
BAD_REQUESTS, BAD_NUMBER = 200, 137
MOST_WASTED = 60
MOST_AROUND_S = 2.5
"""Start-up and final writing together."""

PLAIN = Behaviour(latency_s=LATENCY_S)
TAIL = replace(PLAIN, tail_share=0.05, tail_s=TAIL_S)
LIMITED = replace(PLAIN, limit_in_flight=LIMIT, retry_after_s=1.0)
ONE_BAD = replace(PLAIN, poison_text=question(BAD_NUMBER).split(":")[0] + ":")


def measure_engine(bench: Bench, behaviour: Behaviour, requests: int) -> tuple[Measure, Child]:
    """Run the engine against a fresh server; the time is from the first request to the last reply journalled."""
    with LoadServer(behaviour) as server:
        spec = {"url": server.url, "folder": str(bench.folder), "requests": requests}
        child = run_child("benchmarks.engine_run", spec)
        stats = server.stats()
    said = child.said
    start_s, write_s = said["first_at"] - child.begun_at, child.ended_at - said["last_at"]
    request_s = said["last_at"] - said["first_at"]
    measure = Measure(
        value=request_s,
        request_s=request_s,
        holds=said["rows"] == requests and start_s + write_s <= MOST_AROUND_S,
        wasted=stats.limited,
        rows=said["rows"],
        rss_mib=said["peak_rss_mib"],
        start_s=start_s,
        write_s=write_s,
    )
    return measure, child


def _plain(bench: Bench) -> Measure:
    return measure_engine(bench, PLAIN, REQUESTS)[0]


def _tail(bench: Bench) -> Measure:
    return measure_engine(bench, TAIL, REQUESTS)[0]


def _limited(bench: Bench) -> Measure:
    measure, _ = measure_engine(bench, LIMITED, REQUESTS)
    return replace(measure, holds=measure.holds and (measure.wasted or 0) < MOST_WASTED)


def _one_bad(bench: Bench) -> Measure:
    measure, child = measure_engine(bench, ONE_BAD, BAD_REQUESTS)
    failures = [json.loads(line) for line in Path(bench.folder, "failures.jsonl").read_text().splitlines()]
    named = [(failure["number"], failure["reason"]) for failure in failures]
    return replace(
        measure,
        value=float(child.said["rows"]),
        holds=named == [(BAD_NUMBER, "content_policy")],
        note=f"failures: {', '.join(f'{number} {reason}' for number, reason in named)}; exit 0",
    )


CASES = [
    Case(
        "plain",
        f"{REQUESTS} requests, 300 ms",
        "s",
        1.5,
        "at most",
        _plain,
        ideal=LATENCY_S,
        behaviour=PLAIN,
        requests=REQUESTS,
        condition=f"{REQUESTS} rows, start + end ≤ {MOST_AROUND_S} s",
    ),
    Case(
        "tail",
        "same, 5 % take 5 s",
        "s",
        5.8,
        "at most",
        _tail,
        ideal=TAIL_S,
        behaviour=TAIL,
        requests=REQUESTS,
        condition=f"{REQUESTS} rows, start + end ≤ {MOST_AROUND_S} s",
    ),
    Case(
        "limit",
        f"429 above {LIMIT} in flight, Retry-After 1",
        "s",
        4.5,
        "at most",
        _limited,
        ideal=REQUESTS / LIMIT * LATENCY_S,
        behaviour=LIMITED,
        requests=REQUESTS,
        condition=f"{REQUESTS} rows, < {MOST_WASTED} wasted, start + end ≤ {MOST_AROUND_S} s",
    ),
    Case(
        "one-bad",
        f"1 of {BAD_REQUESTS} gets 400",
        "rows",
        BAD_REQUESTS - 1,
        "at least",
        _one_bad,
        ideal=BAD_REQUESTS - 1,
        behaviour=ONE_BAD,
        requests=BAD_REQUESTS,
        condition="1 named failure, exit 0",
    ),
]
