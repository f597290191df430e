"""A run whose data stage and audit have finished, made by hand: what publish reads, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from jobs.__main__ import main
from jobs.common.jsonl import write_json
from jobs.common.recipe import PROJECT, load_recipe
from jobs.common.stage import Result, RunContext, StagePlan, open_stage

RECIPE = """
constitution: {constitution}
teacher: {{endpoint: api, model: fake-teacher}}
initial: {{endpoint: "http://10.1.2.3:8000/v1?token=abc", model: fake-student}}
audit: {{on_failure: {on_failure}}}
"""
CONSTITUTION = """
name: tiny
title: 'Tiny: a "test"'
language: en
version: 1
description: For tests.
principles:
  - id: thrift
    title: Thrift
    text: The answer shows thrift in every line.
    category: test
    source: a test
    critique_request: Where does your last answer lack thrift?
    revision_request: Rewrite the answer with thrift. Give only the new answer.
"""
ROWS = {"train_sft": 3, "test_sft": 2, "train_prefs": 4, "test_prefs": 2}
SHARE = {"count": 3, "total": 4, "low": 0.301, "high": 0.954}
GREEN = {"name": "leaks", "value": 0.0, "limit": 0.0, "light": "green", "says": "no prompt is in two splits", "fix": ""}
RED = {
    "name": "length_only",
    "value": 0.986,
    "limit": 0.65,
    "light": "red",
    "says": "chosen is longer in 98.6 % of 220 pairs",
    "fix": "cai repair",
}


@dataclass(frozen=True)
class Finished:
    """The run's folder and how to publish it."""

    folder: Path
    what: str = "data"
    """`data` or `model`."""

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def run(self) -> Path:
        return self.runs / "tiny"

    @property
    def published(self) -> Path:
        return self.run / "publish" / self.what

    @property
    def context(self) -> RunContext:
        return RunContext(recipe=load_recipe(str(self.recipe)), run="tiny", runs=self.runs)

    @property
    def recipe(self) -> Path:
        return self.folder / "tiny-recipe.yaml"

    def arguments(self, *more: str) -> list[str]:
        common = ["--recipe", str(self.recipe), "--run", "tiny", "--runs", str(self.runs), "--licence", "cc-by-4.0"]
        return ["publish", self.what, *common, *more]

    def publish(self, *more: str) -> int:
        """Run the command in this process."""
        return main(self.arguments(*more))

    def start(self, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command in a process of its own: huggingface_hub reads its endpoint once, on import."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        variables |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(self.folder / "hf")}
        command = [sys.executable, "-m", "jobs", *self.arguments(*more)]
        return subprocess.run(
            command, cwd=PROJECT, env=variables | environment, capture_output=True, text=True, check=False
        )


def finish_run(folder: Path, on_failure: str = "stop") -> Finished:
    """Leave what fetch and generate leave."""
    run = Finished(folder)
    (folder / "tiny.yaml").write_text(CONSTITUTION, encoding="utf-8")
    run.recipe.write_text(RECIPE.format(constitution=folder / "tiny.yaml", on_failure=on_failure), encoding="utf-8")
    with open_stage(run.context, StagePlan("fetch", {}, (), "cpu")) as stage:
        assert stage
        stage.finish(Result([]))
    finish_generate(run)
    return run


def finish_generate(run: Finished, **measures: Any) -> None:
    """Leave a finished generate stage."""
    constitution = run.context.constitution()
    ingredients = {
        "constitution": {"name": "tiny", "sha256": constitution.sha256},
        "prompt_version": "7",
        "endpoints": {"teacher": "api.example.org", "initial": "10.1.2.3:8000"},
    }
    with open_stage(run.context, StagePlan("generate", ingredients, ("fetch",), "cpu")) as stage:
        assert stage
        stage.finish(
            Result(
                _tables(stage.folder),
                counts={"sft": 3, "pairs": 4},
                dropped={"meta_talk": 2, "unchanged": 1},
                tokens={"prompt_tokens": 12_345, "reply_tokens": 6_789},
                cost_usd=0.123,
                measures={
                    "teacher": "fake-teacher",
                    "teacher_endpoint": "api.example.org",
                    "initial_kind": "url",
                    "initial_model": "fake-student",
                    "judge": "fake-judge",
                    "judge_rule": "both_orders",
                    "verdicts": {"first": 6, "flipped": 2, "unreadable": 1},
                    "account": {"lost": [], "folder": str(run.folder)},
                }
                | measures,
            )
        )


def finish_repair(run: Finished, rows: Mapping[str, int] = ROWS, **measures: Any) -> None:
    """Leave a finished repair stage, whose rows stand in for generate's."""
    with open_stage(run.context, StagePlan("repair", {}, ("generate",), "cpu")) as stage:
        assert stage
        tokens = {"prompt_tokens": 655, "reply_tokens": 211}
        tables = _tables(stage.folder, rows)
        stage.finish(Result(tables, dropped={"unrepaired": 1}, tokens=tokens, cost_usd=0.1, measures=measures))


def finish_audit(run: Finished, gates: list[dict[str, Any]], *, stopped: bool = False, of: str = "generate") -> None:
    """Leave what the audit leaves; `stopped` where a gate ended it."""
    figures = {"version": "1", "name": "tiny", "gates": gates, "counts": {}, "measured": measured()}
    with open_stage(run.context, StagePlan("audit", {}, (of,), "cpu")) as stage:
        assert stage
        write_json(stage.folder / "measures.json", figures)
        if not stopped:
            stage.finish(Result([stage.folder / "measures.json"]))


def measured() -> dict[str, Any]:
    """The measures the card shows."""
    return {
        "lengths": {
            "chosen_words": 80.0, "rejected_words": 60.0, "ratio": 4 / 3,
            "length_only": SHARE, "longer_is_chosen": True,
        },
        "types": {"refusal_only": SHARE, "refusals": {"chosen": SHARE}, "declined_twins": None},
        "blind": {"by_prompt": SHARE, "by_principle": None},
        "openings": {"largest_share": 0.25, "largest": "I | cannot <help>"},
        "coverage": {"thrift": {"prompts": 9, "sft": 3, "dpo": 4, "held_out": 2}, "idle": {"prompts": 1}},
        "identified": None,
    }  # fmt: skip


def _tables(folder: Path, rows: Mapping[str, int] = ROWS) -> list[Path]:
    paths = []
    for name, count in rows.items():
        path = folder / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table({"id": [f"{name}-{number}" for number in range(count)]}), path)
        paths.append(path)
    return paths
