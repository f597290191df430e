"""Our engine by itself in a process: asks numbered requests, writes a row for each reply, reports its figures.

python -m benchmarks.engine_run '{"url": "…/v1", "folder": "/tmp/x", "requests": 500}'

Other keys: `system` (system prompt of every second request), `embedded` (a GGUF, instead of `url`).
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.drive import Drive
from benchmarks.questions import LOGICAL, MODEL, request
from jobs.common.generate_settings import TeacherSettings
from jobs.generate.breaker import Run
from jobs.generate.endpoint import Endpoint
from jobs.generate.engine import RefusedError, open_engine
from jobs.generate.journal import open_journal

RUN = Run("bench", "python -m benchmarks.generation")


async def _main(spec: dict[str, Any]) -> dict[str, Any]:
    settings = TeacherSettings(endpoint="api", model=MODEL)  # the defaults, in every case
    endpoint = Endpoint(LOGICAL, MODEL, (spec["url"],), settings.structured)
    folder, drive = Path(spec["folder"]), Drive(spec["requests"])
    rows = failures = 0
    folder.mkdir(parents=True, exist_ok=True)
    with (
        closing(open_journal(folder / "journal")) as journal,
        (folder / "rows.jsonl").open("w", encoding="utf-8") as out,
        (folder / "failures.jsonl").open("w", encoding="utf-8") as failed,
    ):
        async with open_engine(endpoint, settings, journal, RUN) as engine:

            async def ask(number: int, lane: int) -> None:
                nonlocal rows, failures
                try:
                    reply = await engine.ask(request(number, spec.get("system", "") if number % 2 == 0 else ""))
                except RefusedError as error:
                    failures += 1
                    failed.write(
                        json.dumps({"number": number, "reason": error.fault.reason, "detail": error.fault.detail})
                        + "\n"
                    )
                    return
                rows += 1
                out.write(json.dumps({"number": number, "text": reply.text}) + "\n")

            await drive.run(range(spec["requests"]), settings.concurrency, ask)
    return drive.figures() | {"rows": rows, "failures": failures}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(json.loads(sys.argv[1])))))
