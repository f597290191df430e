"""A run with a scripted teacher: fetch is done, and `generate`, `repair` and a look at the gates are one call each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main
from jobs.common.constitution import load_constitution
from jobs.common.jsonl import sha256_file, write_atomic, write_json
from jobs.common.recipe import load_recipe
from jobs.common.records import record_id
from jobs.common.settings import AuditSettings
from jobs.common.stage import Result, RunContext, StagePlan, open_stage
from jobs.measure.gates import gates
from jobs.measure.measure import measure
from jobs.measure.measured import Gate
from jobs.measure.run_data import read_run
from tests.fakes.openai_server import FakeServer
from tests.fakes.teachers import STUDENT, Habit, ScriptedTeacher, near_copy

CONSTITUTION = "south_africa"
RECIPE = """
constitution: {constitution}
teacher: {{endpoint: api, model: fake-teacher, concurrency: 16, timeout_s: 30, max_attempts: 3}}
initial: {{endpoint: "{url}", model: {student}}}
generate:
  prompts_per_principle: {prompts}
  prompts_per_request: {prompts}
  max_requests_per_principle: 4
  benign_twins: false
  balance: false
  max_revisions: 1
"""


@dataclass(frozen=True)
class ScriptedRun:
    """One runs folder and one scripted endpoint."""

    folder: Path
    server: FakeServer

    @property
    def recipe(self) -> str:
        """Path of the recipe."""
        return str(self.folder / "scripted.yaml")

    @property
    def context(self) -> RunContext:
        """As the command makes it."""
        return RunContext(recipe=load_recipe(self.recipe), run="scripted", runs=self.folder / "runs")

    def cai(self, command: str, *more: str) -> int:
        """Run a command in this process and give its exit code."""
        runs = ("--runs", str(self.folder / "runs"))
        return main([command, "--recipe", self.recipe, "--run", "scripted", *runs, *more])

    def gates(self, stage: str, settings: AuditSettings | None = None) -> dict[str, Gate]:
        """The audit's verdict on a stage's files, against the recipe's gates or others."""
        data = read_run(self.context.folder / stage, self.context.constitution())
        found = gates(data, measure(data), settings or self.context.recipe.audit)
        return {gate.name: gate for gate in found}

    def rows(self, stage: str, name: str) -> list[dict[str, Any]]:
        """The rows of a file."""
        text = (self.context.folder / stage / name).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def manifest(self, stage: str) -> dict[str, Any]:
        """A stage's manifest."""
        found: dict[str, Any] = json.loads((self.context.folder / stage / "manifest.json").read_text(encoding="utf-8"))
        return found

    def pairs(self, stage: str) -> int:
        """Pairs of a stage, held-out ones included."""
        return len(self.rows(stage, "pairs.jsonl")) + len(self.rows(stage, "held_out_pairs.jsonl"))

    def repeat_prompts(self, every: int) -> int:
        """Damage generate's files as no teacher can: every so many-th prompt becomes a near-copy of the one before.

        The one before is of the same principle and most often of another split, so this leaks too. Gives how many.
        """
        folder = self.context.folder / "generate"
        prompts = self.rows("generate", "prompts.jsonl")
        new: dict[str, tuple[str, str]] = {}
        for index in range(every, len(prompts), every):
            source, copy = prompts[index - 1], prompts[index]
            text = near_copy(source["prompt"])
            new[copy["id"]] = record_id(copy["principle_id"], text), text
        for path in folder.glob("*.jsonl"):
            rows = [_renamed(json.loads(line), new) for line in path.read_text(encoding="utf-8").splitlines()]
            write_atomic(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode())
        manifest = self.manifest("generate")
        manifest["outputs"] = {name: sha256_file(folder / name) for name in manifest["outputs"]}
        write_json(folder / "manifest.json", manifest)
        return len(new)


@contextmanager
def scripted_run(folder: Path, habit: Habit, prompts: int = 10) -> Iterator[ScriptedRun]:
    """A run whose fetch is done and whose endpoint has the habit; the environment names it while it is open."""
    constitution = load_constitution(CONSTITUTION)
    with FakeServer(ScriptedTeacher(constitution, habit)) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.url)
        patch.setenv("OPENAI_API_KEY", "sk-test")
        text = RECIPE.format(constitution=CONSTITUTION, url=server.url, student=STUDENT, prompts=prompts)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scripted.yaml").write_text(text, encoding="utf-8")
        run = ScriptedRun(folder, server)
        _finish_fetch(run.context)
        yield run


def _finish_fetch(context: RunContext) -> None:
    student: dict[str, Any] = {"kind": "gguf", "path": "models/x.gguf", "name": "tiny", "revision": None, "sha256": {}}
    with open_stage(context, StagePlan("fetch", {}, (), "cpu")) as stage:
        assert stage is not None
        fetched = {"student": student, "teacher_gguf": None, "initial_gguf": None, "mix_in": {}}
        write_json(stage.folder / "models.json", fetched)
        stage.finish(Result(outputs=[stage.folder / "models.json"]))


def _renamed(row: dict[str, Any], new: dict[str, tuple[str, str]]) -> dict[str, Any]:
    if row["id"] in new:
        row["id"], text = new[row["id"]]
        if "prompt" in row:
            row["prompt"] = text
    return row
