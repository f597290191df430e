"""Case of the embedded teacher: the engine beside a bare aiohttp load generator, on the same server in one process.

python -m benchmarks.embedded_case '{"folder": "/tmp/x", "requests": 32, "order": ["raw", "ours"]}'
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.children import run_child
from benchmarks.drive import Drive
from benchmarks.measures import Bench, Case, Measure
from jobs.common.embedded_gguf import find_embedded_gguf
from jobs.common.generate_settings import TeacherSettings
from jobs.generate.breaker import Run
from jobs.generate.chat import chat_body
from jobs.generate.embedded import Slots, serve
from jobs.generate.endpoint import Endpoint
from jobs.generate.engine import open_engine
from jobs.generate.journal import open_journal
from jobs.generate.requests import ChatRequest, Sampling, Turn
from jobs.prepare.embedded_weights import EMBEDDED_NAME

MAX_TOKENS = 64
REQUESTS = 32
"""In one block; blocks of both sides take turns, because the machine's speed drifts."""
CONTEXT_TOKENS = 512


def _request(number: int, side: str, lane: int) -> ChatRequest:
    # Both sides ask for equally long replies to other texts, so that none finds the other's in the server's memory.
    return ChatRequest(
        step="initial",
        turns=(Turn("user", f"Tell a story about traveller number {number} of the {side} group, day by day."),),
        max_tokens=MAX_TOKENS,
        sampling=Sampling(0.7, 0.95, 0),
        prompt_version="benchmark",
        lane=lane,
    )


async def _raw(urls: tuple[str, ...], lanes: int, requests: int) -> tuple[float, int]:
    """Seconds and reply tokens of a bare aiohttp client."""
    drive, tokens = Drive(requests), 0
    async with aiohttp.ClientSession() as session:

        async def ask(number: int, lane: int) -> None:
            nonlocal tokens
            body = chat_body(_request(number, "northern", lane), EMBEDDED_NAME)
            async with session.post(f"{urls[lane % len(urls)]}/chat/completions", json=body) as answer:
                reply_tokens = (await answer.json())["usage"]["completion_tokens"]
            tokens += reply_tokens

        await drive.run(range(requests), lanes, ask)
    return drive.last_at - drive.first_at, tokens


async def _ours(urls: tuple[str, ...], lanes: int, requests: int, folder: Path) -> tuple[float, int]:
    """Seconds and reply tokens of the engine."""
    drive, tokens = Drive(requests), 0
    endpoint = Endpoint("embedded:bench", EMBEDDED_NAME, urls, "off", slots=lanes)
    with closing(open_journal(folder)) as journal:
        async with open_engine(
            endpoint, TeacherSettings(), journal, Run("bench", "python -m benchmarks.generation")
        ) as engine:

            async def ask(number: int, lane: int) -> None:
                nonlocal tokens
                reply = await engine.ask(_request(number, f"southern {folder.name}", lane))
                tokens += reply.reply_tokens

            await drive.run(range(requests), engine.lanes, ask)
    return drive.last_at - drive.first_at, tokens


async def _main(spec: dict[str, Any]) -> dict[str, float]:
    """Reply tokens per second of both sides."""
    with serve(find_embedded_gguf(), Slots(TeacherSettings().concurrency, CONTEXT_TOKENS), "cai fetch") as served:
        lanes, requests = served.slots, spec["requests"]
        await _raw(served.urls, lanes, lanes)  # the first replies of a server are slow
        seconds, tokens = {"raw": 0.0, "ours": 0.0}, {"raw": 0, "ours": 0}
        for number, side in enumerate(spec["order"]):
            if side == "raw":
                found = await _raw(served.urls, lanes, requests)
            else:
                found = await _ours(served.urls, lanes, requests, Path(spec["folder"], str(number)))
            seconds[side] += found[0]
            tokens[side] += found[1]
    return {side: tokens[side] / seconds[side] for side in seconds}


def _embedded(bench: Bench) -> Measure:
    order = ["raw", "ours", "ours", "raw"] if bench.repeat % 2 == 0 else ["ours", "raw", "raw", "ours"]
    spec = {"folder": str(bench.folder), "requests": REQUESTS, "order": order[:2] if bench.quick else order}
    said = run_child("benchmarks.embedded_case", spec, timeout_s=600).said
    return Measure(said["ours"] / said["raw"], note=f"{said['ours']:.0f} tokens/s against {said['raw']:.0f} raw")


CASES = [
    Case("embedded", "embedded teacher: engine / bare aiohttp, reply tokens/s", "x", 0.85, "at least", _embedded, 1.0)
]

if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(json.loads(sys.argv[1])))))
