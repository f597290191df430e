"""Whether torch.compile can work on this machine, and whether a stage is long enough to win back what it takes."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.common.flops import Work
from jobs.common.memory import Load
from jobs.common.predicted import EAGER, Stage, peak_flops, tokens_per_s
from jobs.common.settings import DpoSettings, SftSettings

COMPILE_S = 90.0
"""Compiling the layers, in seconds: 23 to 83 on an H100 machine, most where nothing had been compiled before."""


def can_compile() -> bool:
    """Whether torch.compile can work here: it calls Triton, a C compiler and Python's headers."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return bool(find_spec("triton") and compiler and headers and sys.platform == "linux")


def compile_pays(stage: Stage, settings: SftSettings | DpoSettings, load: Load, device_name: str, rows: Any) -> bool:
    """Whether compiled layers save more than compiling them takes.

    Args:
        stage: sft or dpo.
        settings: how often it goes over the rows.
        load: the model and how it runs, not compiled.
        device_name: as the driver says it; one whose peak is not known never pays.
        rows: the stage's rows, measured (`Fitted`).
    """
    peak = peak_flops(device_name, load)
    if peak is None:
        return False
    passes = settings.epochs
    if settings.max_steps is not None:
        passes = settings.max_steps * settings.batch_size / len(rows.rows)
    speed = tokens_per_s(stage, Work(load.shape, load.lora_rank, rows.tokens / len(rows.rows) / 2), load, peak)
    return bool(passes * rows.tokens / speed * (1 - EAGER) > COMPILE_S)
