"""What a real stage leaves to look at: log, TensorBoard files, pictures; the same after a stop as without one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from jobs.common.errors import ConfigError, StoppedError
from jobs.common.stage import RunContext
from jobs.train import dpo, sft, watch
from tests.train.test_tracking import curves

Runs = Callable[..., RunContext]

SPEEDS = ("tokens_per_s", "mfu", "gpu_memory_bytes")
"""Figures that no two runs share."""


def logged(context: RunContext, stage: str) -> list[dict[str, Any]]:
    text = (context.folder / stage / "log.jsonl").read_text()
    return [
        {name: value for name, value in line.items() if name not in SPEEDS}
        for line in map(json.loads, text.splitlines())
    ]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ask for a stop as SIGTERM does once so many steps are logged."""
    original = watch.Watch.on_log

    def on_log(self: watch.Watch, args: Any, state: Any, control: Any, **given: Any) -> None:
        original(self, args, state, control, **given)
        self.flag.asked |= state.global_step == step

    monkeypatch.setattr(watch.Watch, "on_log", on_log)


def test_a_stopped_stage_leaves_the_log_and_the_curves_of_an_undisturbed_one(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tiny_run(sft={"max_steps": 6})
    undisturbed = RunContext(context.recipe, "undisturbed", context.runs)
    for stage in ("fetch", "generate"):
        (undisturbed.folder / stage).parent.mkdir(exist_ok=True)
        (undisturbed.folder / stage).symlink_to(context.folder / stage)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(StoppedError):
            sft.run(context)

    sft.run(context)
    sft.run(undisturbed)

    assert logged(context, "sft") == logged(undisturbed, "sft")
    steps = [line["step"] for line in logged(context, "sft") if "loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]
    shown, expected = curves(context.folder / "sft"), curves(undisturbed.folder / "sft")
    assert [step for step, _ in shown["loss"]] == steps
    assert shown["loss"] == expected["loss"]
    assert shown["held_out/loss"] == expected["held_out/loss"]
    assert shown["held_out/loss"][0][0] == 0
    pictures = [
        folder / name
        for folder in (context.folder, undisturbed.folder)
        for name in ("sft-curves.svg", "sft-curves.png")
    ]
    assert all(picture.stat().st_size > 5000 for picture in pictures)


def test_dpo_logs_what_its_pictures_show(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_steps": 1}, dpo={"max_steps": 3})
    sft.run(context)

    dpo.run(context)

    names = {name for line in logged(context, "dpo") for name in line}
    drawn = {"loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected"}
    assert drawn <= names
    assert {f"held_out/{name}" for name in drawn} <= names
    principles = {name.split("/", 2)[2] for name in names if name.startswith("held_out/accuracy/")}
    assert principles
    svg = (context.folder / "dpo-curves.svg").read_text()
    for text in ("length alone, held out", "Log-probability of the answers", *principles):
        assert text in svg
    assert set(drawn) <= set(curves(context.folder / "dpo"))


def test_a_tracker_that_is_missing_stops_a_stage_before_its_student_is_loaded(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tiny_run(tracker="wandb")
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")
    monkeypatch.setattr(sft, "load_model", lambda *_: pytest.fail("the student was loaded"))

    with pytest.raises(ConfigError, match="pip install wandb"):
        sft.run(context)
