"""Two thousand requests through a real engine, here or in a process of its own that a test can kill.

python -m tests.generate.storm URL FOLDER COUNT CONCURRENCY
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing
from pathlib import Path

from jobs.common.generate_settings import TeacherSettings
from jobs.generate import attempts
from jobs.generate.breaker import Run
from jobs.generate.endpoint import Endpoint
from jobs.generate.engine import Engine, RefusedError, open_engine
from jobs.generate.journal import Journal, Reply, open_journal
from jobs.generate.requests import ChatRequest, Sampling, Turn

MODEL, LOGICAL, RUN = "fake-teacher", "storm.test", "storm"
MAX_ATTEMPTS, TIMEOUT_S = 4, 0.8


def storm_endpoint(url: str) -> Endpoint:
    """The load server under a name that does not change with its port."""
    return Endpoint(LOGICAL, MODEL, (url,), "off")


def storm_requests(count: int) -> list[ChatRequest]:
    """Different requests, always the same ones."""
    sampling = Sampling(0.7, 1.0, 0)
    return [
        ChatRequest("revision", (Turn("user", f"Item {number}: what do you make of it?"),), 200, sampling, "1")
        for number in range(count)
    ]


async def ask_all(engine: Engine, requests: list[ChatRequest]) -> list[Reply | RefusedError]:
    """Every request's end, in the requests' order."""

    async def one(request: ChatRequest) -> Reply | RefusedError:
        try:
            return await engine.ask(request)
        except RefusedError as error:
            return error

    return list(await asyncio.gather(*map(one, requests)))


async def drive(
    url: str, journal: Journal, requests: list[ChatRequest], concurrency: int
) -> list[Reply | RefusedError]:
    """Ask everything at once."""
    settings = TeacherSettings(
        endpoint="api", model=MODEL, concurrency=concurrency, timeout_s=TIMEOUT_S, max_attempts=MAX_ATTEMPTS
    )
    async with open_engine(storm_endpoint(url), settings, journal, Run(RUN, "cai generate")) as engine:
        return await ask_all(engine, requests)


def main(url: str, folder: str, count: str, concurrency: str) -> None:
    """Ask until killed or done."""
    attempts.FIRST_BACKOFF_S = 0.05
    with closing(open_journal(Path(folder))) as journal:
        asyncio.run(drive(url, journal, storm_requests(int(count)), int(concurrency)))


if __name__ == "__main__":
    main(*sys.argv[1:])
