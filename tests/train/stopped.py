"""Stopping a training stage at a chosen moment, and comparing what came of it."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from jobs.common.jsonl import sha256_file
from jobs.common.stage import RunContext
from jobs.train import watch


def adapter_sha256(context: RunContext, stage: str) -> str:
    return sha256_file(context.folder / stage / "adapter" / "adapter_model.safetensors")


def stop_after(monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    """Send SIGTERM after so many forward and backward passes of training."""
    seen = 0

    def counted(name: str) -> None:
        original = getattr(watch.Watch, name)

        def call(self: watch.Watch, *args: object, **given: object) -> None:
            nonlocal seen
            seen += 1
            if seen == passes:
                os.kill(os.getpid(), signal.SIGTERM)
            original(self, *args, **given)

        monkeypatch.setattr(watch.Watch, name, call)

    counted("on_substep_end")
    counted("on_step_end")


def copy_run(context: RunContext, run: str) -> RunContext:
    """The same finished parents under another run's name."""
    for stage in ("fetch", "generate", "sft"):
        if (context.folder / stage / "manifest.json").exists():
            shutil.copytree(context.folder / stage, context.runs / run / stage)
    return RunContext(recipe=context.recipe, run=run, runs=context.runs)
