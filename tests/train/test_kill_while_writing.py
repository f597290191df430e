"""kill -9 amid any file that a stage writes: the same command goes on and leaves what an undisturbed one does."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from benchmarks.forked import server
from jobs.common.jsonl import read_json
from jobs.common.stage import RunContext
from jobs.train import dpo, sft
from tests.train.killed import run_until
from tests.train.stopped import adapter_sha256
from tests.train.test_tracking import curves

STEPS = {"max_steps": 3, "evaluations": 1, "save_minutes": 1e-9}
WRITES = [
    *(("sft", name) for name in ("begun.json", "dropped.jsonl", "execution.json", "loss_mask.txt", "before.json")),
    *(("sft", name) for name in ("progress.json", "log.jsonl", "tensorboard", "checkpoint-2/manifest.json")),
    *(("sft", name) for name in ("chain.jsonl", "adapter", "sft-curves.svg", "sft-curves.png", "sft/manifest.json")),
    *(("dpo", name) for name in ("reference.json", "before.json", "dpo-curves.png")),
]
"""Stage and what it writes, in that order."""
STAGES = {"sft": sft, "dpo": dpo}
SPEEDS = ("tokens_per_s", "mfu", "gpu_memory_bytes")


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, dict[str, Any]]:
    """What a stage leaves that nothing disturbs, filled on first use."""
    return {}


@pytest.mark.parametrize(("stage", "write"), WRITES, ids=[" ".join(one) for one in WRITES])
def test_a_stage_killed_while_it_writes_goes_on_to_what_an_undisturbed_one_leaves(
    tiny_run: Callable[..., RunContext], undisturbed: dict[str, dict[str, Any]], stage: str, write: str
) -> None:
    context = tiny_run(sft=STEPS, dpo=STEPS)
    if stage == "dpo":
        sft.run(context)
    if stage not in undisturbed:
        STAGES[stage].run(context)
        undisturbed[stage] = left(context, stage)
        (context.folder / stage).rename(context.runs / "undisturbed")
        for kind in ("svg", "png"):
            (context.folder / f"{stage}-curves.{kind}").unlink()

    kill_in(context, stage, write)
    assert not (context.folder / stage / "manifest.json").exists()
    STAGES[stage].run(context)

    assert left(context, stage) == undisturbed[stage]


def kill_in(context: RunContext, stage: str, write: str) -> None:
    recipe, log = context.runs / "recipe.yaml", context.runs / "killed.log"
    recipe.write_text(yaml.safe_dump(context.recipe.model_dump(mode="json")))
    command = [stage, "--recipe", str(recipe), "--run", context.run, "--runs", str(context.runs)]
    process = server().Process(target=run_until, args=(command, log, write))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, log.read_text()


def logged(context: RunContext, stage: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (context.folder / stage / "log.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in SPEEDS} for line in lines]


def left(context: RunContext, stage: str) -> dict[str, Any]:
    """Everything of a finished stage that two equal runs share."""
    folder = context.folder / stage
    manifest = read_json(folder / "manifest.json")
    pictures = [context.folder / f"{stage}-curves.{kind}" for kind in ("svg", "png")]
    return {
        "adapter": adapter_sha256(context, stage),
        "log": logged(context, stage),
        "curves": curves(folder)["loss"],
        "pictures": [picture.stat().st_size > 5000 for picture in pictures],
        "outputs": sorted(manifest["outputs"]),
        "before": read_json(folder / "before.json"),
        "execution": read_json(folder / "execution.json"),
        "chain": [(link["step"], link["superseded"]) for link in manifest["measures"]["checkpoints"]],
    }
