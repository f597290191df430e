"""A fast OpenAI-compatible server for load and faults, in a process of its own, with exact books.

with LoadServer(Behaviour(latency_s=0.3, limit_in_flight=50, retry_after_s=1)) as server:
    ...                                  # OPENAI_BASE_URL=server.url
    assert server.stats().limited < 60

python -m tests.fakes.load_server '{"latency_s": 0.3}'      # prints its port; ends with its parent or with Ctrl-C

It serves POST /v1/chat/completions, /v1/files and /v1/batches. Replies are a pure function of the request body; faults
are a seeded hash of the body and of how often it was seen, so every run repeats.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.fakes.load_accounts import Stats
from tests.fakes.load_behaviour import Behaviour
from tests.fakes.load_http import Connection
from tests.fakes.load_service import Service

ROOT = Path(__file__).resolve().parents[2]


class LoadServer:
    """The server process; use it as a context manager."""

    def __init__(self, behaviour: Behaviour = Behaviour()) -> None:  # noqa: B008 - frozen
        self.behaviour = behaviour
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Base URL, as OPENAI_BASE_URL takes it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> LoadServer:
        command = [sys.executable, "-m", "tests.fakes.load_server", json.dumps(asdict(self.behaviour))]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()

    def stats(self) -> Stats:
        """The books now."""
        return Stats(**self._control("stats"))

    def bodies(self) -> dict[str, tuple[int, int]]:
        """Attempts (429s not counted) and completions delivered, by hash of the request body."""
        return {digest: (attempts, delivered) for digest, (attempts, delivered) in self._control("bodies").items()}

    def reset(self) -> None:
        """Empty the books, forget what was seen, files and batches; what is in flight goes on unseen."""
        self._control("reset", b"")

    def change(self, behaviour: Behaviour) -> None:
        """Behave otherwise from the next request on; the books stay."""
        self.behaviour = behaviour
        self._control("behaviour", json.dumps(asdict(behaviour)).encode())

    def _control(self, what: str, data: bytes | None = None) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}/control/{what}", data, timeout=30) as answer:
            return json.load(answer)


async def _serve(behaviour: Behaviour) -> None:
    service = Service(behaviour)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service.handle), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent = os.getppid()
    while os.getppid() == parent:  # a killed test leaves no server behind
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(Behaviour(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))))
