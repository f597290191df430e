"""Several processes as one stage: the first opens it, writes and speaks; the others compute beside it.

A launcher starts the same command once per GPU (`accelerate launch`, torchrun, or jobs/train/launch.py) and says in the
environment who is who. Only the first process holds the run's lock and folder. Every other one works in a folder of its
own that begins as a copy of the stage's files, shares the checkpoints, and is thrown away.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from jobs.common.console import console
from jobs.common.errors import JobError, StoppedError
from jobs.common.stage import OpenStage, RunContext, StagePlan, open_stage
from jobs.train.before import require_trainable
from jobs.train.checkpoints import CHECKPOINTS
from jobs.train.device import go_offline
from jobs.train.divided import processes

T = TypeVar("T")


def is_first() -> bool:
    """Whether this process writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def open_together(context: RunContext, plan: StagePlan) -> Iterator[OpenStage | None]:
    """`open_stage`, in every process of the stage.

    Raises:
        JobError: what `open_stage` raises; the others end with its exit code.
    """
    if processes() == 1:
        require_trainable(context, plan.name)
        with open_stage(context, plan) as stage:
            yield stage
        return
    _join()
    try:
        with _told_to_all(context, plan) if is_first() else _beside() as stage:
            yield stage
        _wait_for_all()
    finally:
        _leave()


def of_first(value: T) -> T:
    """The first process's value, in every process."""
    return value if processes() == 1 else _tell(value)


def on_one_gpu(arguments: Any) -> Any:
    """A trainer's arguments, for the one GPU of this process: alone, it would spread its model over all that it sees.

    Args:
        arguments: a TrainingArguments of transformers; changed.
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


@contextmanager
def _told_to_all(context: RunContext, plan: StagePlan) -> Iterator[OpenStage | None]:
    told = False
    try:
        require_trainable(context, plan.name)
        with open_stage(context, plan) as stage:
            _tell(stage)
            told = True
            yield stage
    except JobError as error:
        if not told:
            _tell(error)
            _wait_for_all()
        raise


@contextmanager
def _beside() -> Iterator[OpenStage | None]:
    """The first process's stage with a folder that nobody reads; nothing is printed but an error."""
    found: Any = _tell(None)
    if isinstance(found, JobError):
        _wait_for_all()
        raise SystemExit(found.exit_code)  # the first process says it
    if found is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix=f"cai-{found.plan.name}-"))
    console.quiet = True
    try:
        for path in found.folder.iterdir():
            if path.is_file() and not path.name.startswith("."):  # the first may be writing: those come and go
                shutil.copy2(path, folder)
        (found.folder / CHECKPOINTS).mkdir(exist_ok=True)
        (folder / CHECKPOINTS).symlink_to((found.folder / CHECKPOINTS).absolute(), target_is_directory=True)
        yield replace(found, folder=folder)
    except StoppedError:
        raise SystemExit(StoppedError.exit_code) from None  # the first process says it
    finally:
        console.quiet = False
        shutil.rmtree(folder, ignore_errors=True)


def _join() -> None:
    """Meet the other processes; where there are GPUs, take the own one."""
    go_offline()
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())


def _wait_for_all() -> None:
    import torch.distributed

    torch.distributed.barrier()


def _leave() -> None:
    """Close what connects the processes: without it the first to end can make the others abort."""
    import torch.distributed

    torch.distributed.destroy_process_group()


def _tell(value: T) -> T:
    import torch.distributed

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]
