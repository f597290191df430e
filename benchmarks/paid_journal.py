"""Writes a journal in which numbered requests are paid already: `python -m benchmarks.paid_journal JSON`."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.questions import LOGICAL, MAX_TOKENS, MODEL, request
from jobs.generate.journal import Attempt, Reply, open_journal
from tests.fakes.openai_server import sentence


async def _main(spec: dict[str, Any]) -> dict[str, Any]:
    with closing(open_journal(Path(spec["folder"]))) as journal:
        for number in range(spec["requests"]):
            asked = request(number)
            attempt = Attempt(asked.key(LOGICAL, MODEL), "bench", LOGICAL, MODEL, asked.step, 60, MAX_TOKENS)
            reply = Reply(
                text=sentence(str(number), 60), finish_reason="stop", prompt_tokens=30, reply_tokens=80, model=MODEL
            )
            journal.settle(journal.begin(attempt), reply)
            if number % 100 == 0:
                await asyncio.sleep(0)  # lets the journal share one fsync between many lines
    return {"requests": spec["requests"]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(json.loads(sys.argv[1])))))
