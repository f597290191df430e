"""A training stage from its lock to its curves: what sft and dpo share around their own training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.common.fetched import load_fetched
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan
from jobs.train.checkpoints import keep_for_verify
from jobs.train.curves import draw_curves
from jobs.train.device import libraries
from jobs.train.loop import watching
from jobs.train.stopping import StopFlag, sigterm_sets
from jobs.train.together import is_first, open_together


def run_training(context: RunContext, plan: StagePlan, train: Callable[[OpenStage, Any], Result]) -> None:
    """Open the stage, train, keep what `verify` needs, draw the curves and finish; nothing where it finished before.

    Nothing is written after the manifest: a stage that is killed before it does all of this again.

    Args:
        context: the run.
        plan: the stage's.
        train: given the open stage and who watches, leaves the adapter and says what came out.
    """
    with open_together(context, plan) as stage:
        if stage is None:
            return
        flag = StopFlag()
        with libraries(plan.name, context.typed, stage.folder), sigterm_sets(flag):
            with watching(stage, getattr(context.recipe, plan.name), flag) as watch:
                result = train(stage, watch)
            if is_first():
                keep_for_verify(stage.folder)
                title = f"{context.run} · {plan.name} · {load_fetched(context).student.name}"
                draw_curves(stage.folder, title, length_only=result.measures.get("length_baseline", {}).get("held_out"))
            stage.finish(result)
