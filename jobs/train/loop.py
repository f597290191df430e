"""One training loop that can be stopped and resumed to the bit, and the figures it leaves for the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.console import StageProgress, say
from jobs.common.errors import DataError, StoppedError
from jobs.common.jsonl import read_json, write_json
from jobs.common.settings import DpoSettings, SftSettings
from jobs.common.stage import OpenStage
from jobs.train import adapters, checkpoints
from jobs.train.data import Data
from jobs.train.divided import held_share, processes
from jobs.train.execution import Execution
from jobs.train.history import History, first_and_last_loss, held_out_losses, tokens_seen
from jobs.train.logged import cut_log
from jobs.train.stopping import StopFlag
from jobs.train.together import is_first, of_first


@dataclass(frozen=True)
class Loop:
    """A trainer that is ready to run, and what watches it."""

    stage: OpenStage
    trainer: Any
    watch: Any


@dataclass(frozen=True)
class Trained:
    """What a finished loop leaves."""

    before: dict[str, Any]
    """Held-out metrics before the first step."""
    after: dict[str, Any]
    """Held-out metrics after the last step."""
    history: History
    resumed_from: int | None
    """Step of the checkpoint this process began from."""
    train_s: float
    """Seconds this process spent in optimizer steps."""


@contextmanager
def watching(stage: OpenStage, settings: SftSettings | DpoSettings, flag: StopFlag) -> Iterator[Any]:
    """Show progress and write figures down while rows are prepared and a trainer is built and run."""
    from jobs.train.tracking import open_tracker
    from jobs.train.watch import Watch

    section, context = stage.plan.name, stage.context
    shown = settings.model_dump(mode="json") | {"seed": context.recipe.seed}
    tracker = open_tracker(context.recipe.tracker, stage.folder, context.run, section, shown)
    try:
        with StageProgress(section, stage.folder) as progress:
            log, save_s = stage.folder / "log.jsonl", settings.save_minutes * 60
            yield Watch(flag, progress, log, tracker, save_s, settings.evaluations)
    finally:
        tracker.close()


def run_loop(loop: Loop, before: Callable[[], dict[str, Any]], after: Callable[[], dict[str, Any]]) -> Trained:
    """Evaluate, train (from the newest whole checkpoint, if there is one) and evaluate again.

    Raises:
        StoppedError: SIGTERM came; a checkpoint is left, no adapter and no manifest.
    """
    try:
        return _run(loop, before, after)
    except StoppedError as stopped:
        if not loop.watch.flag.asked:  # a full disk, not SIGTERM
            raise
        raise StoppedError(_stopped_line(loop.stage)) from stopped


def _run(loop: Loop, before: Callable[[], dict[str, Any]], after: Callable[[], dict[str, Any]]) -> Trained:
    from transformers import TrainerState, set_seed

    stage, trainer = loop.stage, loop.trainer
    newest = checkpoints.newest_checkpoint(stage.folder / checkpoints.CHECKPOINTS) if is_first() else None
    checkpoint = of_first(newest)
    step = checkpoints.step_of(checkpoint) if checkpoint else None
    cut_log(stage.folder / "log.jsonl", step or 0)
    measured = _measured(stage.folder / "before.json", before)
    set_seed(stage.context.recipe.seed)  # evaluation may have drawn numbers
    if checkpoint:
        say(f"{stage.plan.name}: going on from step {step} ({checkpoint})")
    if checkpoint and _is_last(checkpoint):
        adapters.load_values(trainer.model, checkpoint)
        trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    loop.watch.heed()
    trained = Trained(measured, after(), list(trainer.state.log_history), step, trainer.train_s)
    cut_log(stage.folder / "log.jsonl", int(trainer.state.global_step))
    return trained


def _measured(path: Path, before: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is measured before the first step, read back on resume; measured again where the file is damaged."""
    if path.exists():
        try:
            return read_json(path)
        except DataError as error:
            say(f"{error} It is measured again.")
    write_json(path, before())
    return read_json(path)


def measures(trained: Trained, model: Any, execution: Execution) -> dict[str, Any]:
    """Figures that both stages report.

    Args:
        trained: what the loop left.
        model: the trained model.
        execution: how the stage ran, in the end.
    """
    seen = tokens_seen(trained.history)
    return {
        **first_and_last_loss(trained.history),
        "held_out_losses": held_out_losses(trained.history),
        "steps": max((int(entry.get("step", 0)) for entry in trained.history), default=0),
        "resumed_from_step": trained.resumed_from,
        "train_s": round(trained.train_s, 3),
        "tokens_per_s": round(seen / trained.train_s, 1) if trained.resumed_from is None else None,
        "trainable_parameters": adapters.trainable_parameters(model),
        "weights_dtype": {"bf16": "bfloat16", "fp32": "float32"}[execution.precision],
        "adapter_dtype": "float32",
        "execution": execution.figures,
        "processes": processes(),
        "weights_share": round(held_share(model), 3),
    }


def token_counts(data: Data, trained: Trained) -> dict[str, int]:
    """Token counts of the manifest."""
    return {"rows": data.train.tokens, "seen": tokens_seen(trained.history)}


def _is_last(checkpoint: Path) -> bool:
    state = read_json(checkpoint / "trainer_state.json")
    return bool(state["global_step"] >= state["max_steps"])


def _stopped_line(stage: OpenStage) -> str:
    kept = checkpoints.kept_checkpoints(stage.folder)
    saved = "no step had ended, so nothing is saved"
    if kept:
        saved = f"a checkpoint of step {checkpoints.step_of(kept[0])} is saved"
    return f"{stage.plan.name}: stopped by SIGTERM; {saved}. Run the same command to go on."
