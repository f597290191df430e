"""What the tests of generate share: the tiny world's texts and the command as a function."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main
from jobs.common.jsonl import write_json
from jobs.common.recipe import PROJECT, load_recipe
from jobs.common.stage import Result, RunContext, StagePlan, open_stage
from tests.fakes.openai_server import FakeServer

HANGS_S = 120
"""A process that needs longer, on however busy a machine, hangs."""
KEY = "sk-test-0123456789-very-secret"
PRINCIPLES = ("honesty", "kindness", "thrift")


@dataclass(frozen=True)
class World:
    """One runs folder and one fake endpoint."""

    folder: Path
    server: FakeServer

    @property
    def recipe(self) -> str:
        return str(self.folder / "tiny-recipe.yaml")

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def stage(self) -> Path:
        return self.runs / "tiny" / "generate"

    @property
    def context(self) -> RunContext:
        return RunContext(recipe=load_recipe(self.recipe), run="tiny", runs=self.runs)

    def arguments(self, *more: str) -> list[str]:
        return ["generate", "--recipe", self.recipe, "--run", "tiny", "--runs", str(self.runs), *more]

    def generate(self, *more: str) -> int:
        """Run the command in this process and give its exit code."""
        return main(self.arguments(*more))

    def sets(self, *changes: str) -> int:
        return self.generate(*(part for change in changes for part in ("--set", change)))

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.stage / name).read_text(encoding="utf-8").splitlines()]

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.stage / "manifest.json").read_text(encoding="utf-8"))
        return found


def recipe_text(constitution: Path, url: str) -> str:
    return f"""
constitution: {constitution}
teacher: {{endpoint: api, model: fake-teacher, concurrency: 8, timeout_s: 10, max_attempts: 3}}
initial: {{endpoint: "{url}", model: fake-student}}
generate:
  prompts_per_principle: 6
  prompts_per_request: 3
  held_out_fraction: 0.34
  max_requests_per_principle: 4
  benign_twins: false
  balance: false
  max_revisions: 1
judge: {{rule: "off"}}
"""


def write_constitution(path: Path, names: Sequence[str] = PRINCIPLES) -> None:
    principles = "".join(
        f"""
  - id: {name}
    title: The value of {name}
    text: The answer shows {name} in every line.
    category: test
    source: a test
    critique_request: Where does your last answer lack {name}?
    revision_request: Rewrite the answer with {name}. Give only the new answer.
"""
        for name in names
    )
    path.write_text(
        f"name: {path.stem}\ntitle: Tiny\nlanguage: en\nversion: 1\ndescription: For tests.\nprinciples:{principles}",
        encoding="utf-8",
    )


def finish_fetch(context: RunContext, gguf: str | None = None) -> None:
    """Leave what fetch leaves."""
    student: dict[str, Any] = {"kind": "gguf", "path": "models/x.gguf", "name": "tiny", "revision": None, "sha256": {}}
    with open_stage(context, StagePlan("fetch", {}, (), "cpu")) as stage:
        assert stage is not None
        fetched = {"student": student, "teacher_gguf": gguf, "initial_gguf": gguf, "mix_in": {}}
        write_json(stage.folder / "models.json", fetched)
        stage.finish(Result(outputs=[stage.folder / "models.json"]))


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one error line that was printed."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, lines
    return lines[0]


def start(world: World, *more: str) -> subprocess.Popen[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "jobs", *world.arguments(*more)]
    return subprocess.Popen(command, cwd=PROJECT, env=dict(os.environ), stderr=subprocess.PIPE, text=True)


def wait_for(world: World, asked: int) -> None:
    """Wait until the endpoint has been asked so often."""
    deadline = time.monotonic() + HANGS_S
    while len(world.server.history) < asked:
        assert time.monotonic() < deadline, "the job never asked"
        time.sleep(0.01)
