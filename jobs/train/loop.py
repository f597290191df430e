"""One training loop that can be stopped and resumed to the bit, and the figures it leaves for the manifest."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.console import StageProgress, say
from jobs.common.errors import StoppedError
from jobs.common.jsonl import read_json, write_atomic, write_json
from jobs.common.settings import TrainSettings
from jobs.common.stage import OpenStage
from jobs.train import adapters, checkpoints
from jobs.train.data import Data
from jobs.train.device import Device
from jobs.train.history import History, first_and_last_loss, log_lines, tokens_seen

CHECKPOINTS = "checkpoints"


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
def watching(stage: OpenStage, settings: TrainSettings) -> Iterator[Any]:
    """Show progress and let SIGTERM ask for a checkpoint while a trainer is built and run."""
    from jobs.train.watch import StopFlag, Watch, sigterm_sets

    flag = StopFlag()
    with StageProgress(stage.plan.name, stage.folder) as progress, sigterm_sets(flag):
        yield Watch(flag, progress, stage.folder / "log.jsonl", settings.save_minutes * 60)


def run_loop(loop: Loop, before: Callable[[], dict[str, Any]], after: Callable[[], dict[str, Any]]) -> Trained:
    """Evaluate, train (from the newest whole checkpoint, if there is one) and evaluate again.

    Raises:
        StoppedError: SIGTERM came; a checkpoint is left, no adapter and no manifest.
    """
    from transformers import set_seed

    folder, trainer = loop.stage.folder / CHECKPOINTS, loop.trainer
    checkpoint = checkpoints.newest_checkpoint(folder)
    figures = folder / "before.json"
    if not figures.exists():
        write_json(figures, before())
    step = checkpoints.step_of(checkpoint) if checkpoint else None
    set_seed(loop.stage.context.recipe.seed)  # evaluation may have drawn numbers
    began = time.monotonic()
    if checkpoint:
        say(f"{loop.stage.plan.name}: going on from step {step} ({checkpoint})")
    if checkpoint and _is_last(checkpoint):
        adapters.load_values(trainer.model, checkpoint)
        history = read_json(checkpoint / "trainer_state.json")["log_history"]
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        history = list(trainer.state.log_history)
    train_s = time.monotonic() - began
    if loop.watch.stopped:
        raise StoppedError(_stopped_line(loop, int(trainer.state.global_step)))
    write_atomic(loop.stage.folder / "log.jsonl", log_lines(history))
    return Trained(read_json(figures), after(), history, step, train_s)


def measures(trained: Trained, model: Any, device: Device) -> dict[str, Any]:
    """Figures that both stages report."""
    seen = tokens_seen(trained.history)
    return {
        **first_and_last_loss(trained.history),
        "steps": max((int(entry.get("step", 0)) for entry in trained.history), default=0),
        "resumed_from_step": trained.resumed_from,
        "train_s": round(trained.train_s, 3),
        "tokens_per_s": round(seen / trained.train_s, 1) if trained.resumed_from is None else None,
        "trainable_parameters": adapters.trainable_parameters(model),
        "weights_dtype": device.dtype_name,
        "adapter_dtype": "float32",
    }


def token_counts(data: Data, trained: Trained) -> dict[str, int]:
    """Token counts of the manifest."""
    return {"rows": data.train.tokens, "seen": tokens_seen(trained.history)}


def remove_checkpoints(stage: OpenStage) -> None:
    """The finished adapter replaces them; called after the manifest is written."""
    shutil.rmtree(stage.folder / CHECKPOINTS, ignore_errors=True)


def _is_last(checkpoint: Path) -> bool:
    state = read_json(checkpoint / "trainer_state.json")
    return bool(state["global_step"] >= state["max_steps"])


def _stopped_line(loop: Loop, step: int) -> str:
    saved = f"a checkpoint of step {step} is saved" if step else "no step had ended, so nothing is saved"
    return f"{loop.stage.plan.name}: stopped by SIGTERM; {saved}. Run the same command to go on."
