"""20 kills at random moments per trainer, and the adapter of the run that nothing disturbed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.forked import Attempts
from benchmarks.kills import survive, table
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


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_sigterm_at_any_moment_ends_in_75_within_seconds_without_a_traceback_and_loses_no_step(
    attempts: Callable[[str], Attempts], stage: str
) -> None:
    found = survive(attempts(stage), kills=8, seed=1, by="terminate")

    assert found.equal, table([found])
    assert found.kills == 8
    assert found.within_saves == 0, "a save that has begun is ended"
    assert found.replayed == 0
    assert found.slowest_s < 10
