"""20 kills at random moments per trainer, and the adapter of the run that nothing disturbed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import pytest

from benchmarks.forked import Attempts, Moments
from benchmarks.kills import Survived, _killed, survive, table
from jobs.common.recipe import load_recipe
from jobs.common.stage import RunContext

STEPS = {"max_steps": 6, "batch_size": 4, "save_minutes": 1e-9}


@pytest.fixture
def attempts(tiny_run: Callable[..., RunContext]) -> Callable[[str], Attempts]:
    """A run whose stages before the given one have finished."""

    def make(stage: str) -> Attempts:
        context = tiny_run(sft=STEPS | {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}, dpo=STEPS)
        if stage == "dpo":
            sft = Attempts(context, "sft", threads=1).start(context.run)
            sft.join()
            assert sft.exitcode == 0
        return Attempts(context, stage, threads=1)

    return make


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_after_20_random_kills_the_adapter_is_the_undisturbed_runs(
    attempts: Callable[[str], Attempts], stage: str
) -> None:
    found = survive(attempts(stage), kills=20, seed=0)

    assert found.equal, table([found])
    assert found.kills == 20
    assert found.replayed > 0, "no kill came between a step and its checkpoint"


class DiesLate:
    """Attempts of a command that SIGTERM meets after its handler has gone."""

    stage = "sft"

    def __init__(self, context: RunContext, finishes: bool) -> None:
        self.context, self.finishes = context, finishes

    def start(self, run: str) -> BaseProcess:
        process = multiprocessing.get_context("fork").Process(target=self._die)
        process.start()
        return process

    def said(self, run: str) -> str:
        return ""

    def _die(self) -> None:
        if self.finishes:
            (self.context.folder / "sft" / "manifest.json").touch()
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("finishes", "faults"), [(True, []), (False, ["r: exit -15: "])], ids=["done", "not done"])
def test_a_signal_on_the_way_out_is_a_fault_only_where_the_stage_had_not_finished(
    tmp_path: Path, finishes: bool, faults: list[str]
) -> None:
    context = RunContext(load_recipe("demo"), "r", tmp_path)
    (context.folder / "sft").mkdir(parents=True)
    found = Survived("sft", "")
    attempts = cast(Attempts, DiesLate(context, finishes))

    assert not _killed(attempts, "r", found, Moments(random.Random(0), 0.0, "terminate"))

    assert (found.faults, found.kills) == (faults, 0)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_sigterm_at_any_moment_ends_in_75_without_a_traceback_and_loses_no_step(
    attempts: Callable[[str], Attempts], stage: str
) -> None:
    found = survive(attempts(stage), kills=8, seed=1, by="terminate")

    assert found.equal, table([found])
    assert found.kills == 8
    assert found.within_saves == 0, "a save that has begun is ended"
    assert found.replayed == 0
