"""Cases about our own cost: 20,000 requests that take no time, and 200,000 that are paid already."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.children import run_child
from benchmarks.load_cases import measure_engine
from benchmarks.measures import Bench, Case, Measure
from jobs.common.generate_settings import TeacherSettings
from tests.fakes.load_behaviour import Behaviour
from tests.fakes.load_server import LoadServer

FAST_REQUESTS, JOURNALLED = 20_000, 200_000
MOST_RSS_MIB = 300.0
FLAT_BYTES = 1024
"""Memory may grow by so much for each request of the second half; a reply that is kept takes more."""


def _fast(bench: Bench) -> Measure:
    requests = FAST_REQUESTS // 10 if bench.quick else FAST_REQUESTS
    # Who goes first alternates, so that a machine that warms up or gets busy favours neither.
    if bench.repeat % 2:
        theirs = _client_rate(requests)
        measure, child = measure_engine(bench, Behaviour(), requests)
    else:
        measure, child = measure_engine(bench, Behaviour(), requests)
        theirs = _client_rate(requests)
    ours = requests / measure.value
    rss = child.said["rss_mib"]
    grown = (rss[-1] - rss[1]) * 2**20 / (requests / 2)
    return Measure(
        value=ours / theirs,
        holds=measure.rows == requests and max(rss) < MOST_RSS_MIB and grown < FLAT_BYTES,
        wasted=measure.wasted,
        rows=measure.rows,
        rss_mib=measure.rss_mib,
        request_s=measure.request_s,
        start_s=measure.start_s,
        write_s=measure.write_s,
        note=f"{ours:.0f}/s against {theirs:.0f}/s; RSS {' → '.join(f'{mib:.0f}' for mib in rss)} MiB",
    )


def _client_rate(requests: int) -> float:
    with LoadServer() as server:
        spec = {"url": server.url, "requests": requests, "lanes": TeacherSettings().concurrency}
        said = run_child("benchmarks.openai_client", spec).said
    return float(requests / (said["last_at"] - said["first_at"]))


def _journalled(bench: Bench) -> Measure:
    requests = JOURNALLED // 10 if bench.quick else JOURNALLED
    with LoadServer() as server:
        spec: dict[str, Any] = {"url": server.url, "folder": str(bench.folder), "requests": requests}
        paid = Path(bench.folder.parent, f"journal-of-{requests}")
        if not paid.exists():
            run_child("benchmarks.paid_journal", spec | {"folder": str(paid)}, timeout_s=600)
        shutil.copytree(paid, bench.folder / "journal")
        child = run_child("benchmarks.engine_run", spec)
        attempts = server.stats().attempts
    said = child.said
    request_s = said["last_at"] - said["first_at"]
    return Measure(
        value=request_s,
        request_s=request_s,
        holds=attempts == 0 and said["rows"] == requests and said["peak_rss_mib"] < MOST_RSS_MIB,
        rows=said["rows"],
        rss_mib=said["peak_rss_mib"],
        start_s=said["first_at"] - child.begun_at,
        write_s=child.ended_at - said["last_at"],
        note=f"{attempts} requests sent",
    )


CASES = [
    Case(
        "fast",
        "20,000 requests, 0 ms: engine / openai client on aiohttp",
        "x",
        0.7,
        "at least",
        _fast,
        condition=f"RSS < {MOST_RSS_MIB:.0f} MiB, flat",
    ),
    Case(
        "journalled",
        "200,000 journalled items, nothing to ask",
        "s",
        10.0,
        "at most",
        _journalled,
        condition=f"0 requests, RSS < {MOST_RSS_MIB:.0f} MiB",
    ),
]
