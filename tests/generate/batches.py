"""What the tests of batch mode share: a server with a Batch API, and the command in two modes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main
from jobs.common.recipe import PROJECT, load_recipe
from jobs.common.stage import RunContext
from jobs.generate import batch, batch_watch
from tests.fakes.load_behaviour import Behaviour
from tests.fakes.load_server import LoadServer
from tests.generate.world import KEY, finish_fetch, write_constitution

QUIET_S, LOOK_S = 0.1, 0.05
LINES = 45 + 45 + 45
"""Requests for prompts, critiques and revisions: each step is one batch, since lists of prompts would come in waves."""
RECIPE = """
constitution: {constitution}
teacher:
  endpoint: api
  model: fake-teacher
  timeout_s: 10
  max_attempts: 3
  price: {{input_usd_per_million_tokens: 1.0, output_usd_per_million_tokens: 4.0, dated: "2026-01-01"}}
initial:
  endpoint: "{url}"
  model: fake-student
  price: {{input_usd_per_million_tokens: 0.0, output_usd_per_million_tokens: 0.0, dated: "2026-01-01"}}
generate:
  prompts_per_principle: 3
  prompts_per_request: 1
  held_out_fraction: 0.34
  max_requests_per_principle: 30
  benign_twins: false
  balance: false
  max_revisions: 1
judge: {{rule: "off"}}
"""


class Batches:
    """A runs folder and the server; `generate` runs the command in this process."""

    def __init__(self, folder: Path, server: LoadServer) -> None:
        self.folder, self.server = folder, server
        write_constitution(folder / "tiny.yaml", [f"value_{number}" for number in range(15)])
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(RECIPE.format(constitution=folder / "tiny.yaml", url=server.url), encoding="utf-8")
        for runs in ("batch", "live"):
            finish_fetch(RunContext(recipe=load_recipe(str(self.recipe)), run="tiny", runs=folder / runs))

    def arguments(self, *changes: str, runs: str = "batch") -> list[str]:
        sets = [part for change in changes for part in ("--set", change)]
        where = ["--recipe", str(self.recipe), "--run", "tiny", "--runs", str(self.folder / runs)]
        return ["generate", *where, *sets, "--set", f"teacher.mode={runs}"]

    def generate(self, *changes: str, runs: str = "batch") -> int:
        return main(self.arguments(*changes, runs=runs))

    def manifest(self, runs: str = "batch") -> dict[str, Any]:
        path = self.folder / runs / "tiny" / "generate" / "manifest.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def rows(self, runs: str = "batch") -> dict[str, str]:
        """Every output by its hash."""
        outputs: dict[str, str] = self.manifest(runs)["outputs"]
        return outputs

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        """Run the command in a process of its own, as the script has it."""
        command = [sys.executable, "-c", script, *arguments, *self.arguments()]
        return subprocess.Popen(command, cwd=PROJECT, env=dict(os.environ), stderr=subprocess.PIPE, text=True)

    def live_rows(self, *changes: str) -> dict[str, str]:
        """What the same server gives live; the books are emptied before and after."""
        self.server.reset()
        assert self.generate(*changes, runs="live") == 0
        self.server.reset()
        return self.rows("live")


@pytest.fixture(scope="module")
def served() -> Iterator[LoadServer]:
    with LoadServer() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, served: LoadServer, monkeypatch: pytest.MonkeyPatch) -> Batches:
    monkeypatch.setenv("OPENAI_BASE_URL", served.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(batch, "QUIET_S", QUIET_S)
    monkeypatch.setattr(batch_watch, "FIRST_LOOK_S", LOOK_S)
    served.change(Behaviour(batch_s=0.02))
    served.reset()
    return Batches(tmp_path, served)
