"""How one stage of training would go on one device: what fits its memory, how long it takes, what that costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

from jobs.common.flops import Work
from jobs.common.gpus import Gpu
from jobs.common.memory import Breakdown, Load, ModelShape, fit_to, peak_bytes
from jobs.common.predicted import share_of_peak, tokens_per_s
from jobs.common.settings import DpoSettings, SftSettings
from jobs.prepare.train_plan_rows import Rows, Section

START_S = 60.0
"""Seconds before the first step: imports, weights, kernels."""


@dataclass(frozen=True)
class Stage:
    """One training stage of a recipe."""

    section: Section
    settings: SftSettings | DpoSettings
    rows: Rows
    shape: ModelShape
    rank: int

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        each = ceil(len(self.rows.lengths) / self.settings.batch_size)
        return self.settings.max_steps or ceil(each * self.settings.epochs)

    @property
    def positions(self) -> float:
        """Positions trained, over all epochs."""
        if self.settings.max_steps:
            return self.steps * min(self.settings.batch_size, len(self.rows.lengths)) * self.rows.mean
        return self.settings.epochs * len(self.rows.lengths) * self.rows.mean

    @property
    def work(self) -> Work:
        """Arithmetic of one position."""
        return Work(self.shape, self.rank, self.rows.context, self.rows.scored_share)

    def load(self, tokens: int) -> Load:
        """A forward pass of so many positions on a GPU, all of them scored: what the trainer makes room for."""
        return Load(
            self.shape,
            lora_rank=self.rank,
            micro_batch_tokens=tokens,
            quantization=self.settings.quantization,
            precision="fp32" if self.settings.precision == "fp32" else "bf16",
        )


@dataclass(frozen=True)
class Forecast:
    """One stage on one GPU that holds it."""

    stage: Stage
    gpu: Gpu
    tokens: int
    """Positions in one forward pass, at most."""
    checkpointing: bool

    @cached_property
    def load(self) -> Load:
        """The largest forward pass there will be: a step's rows may fill less than one."""
        largest = min(self.tokens, self.stage.rows.largest_step(self.stage.settings.batch_size))
        scored = self.stage.rows.scored_share
        return replace(self.stage.load(largest), gradient_checkpointing=self.checkpointing, scored_share=scored)

    @cached_property
    def peak(self) -> Breakdown:
        """Memory at its peak."""
        return peak_bytes(self.load)

    @property
    def passes(self) -> int:
        """Forward passes behind one optimizer step, on average."""
        return ceil(self.stage.settings.batch_size / max(1, self.tokens // self.stage.rows.mean))

    @property
    def seconds(self) -> float | None:
        """From start to end; None where the speed is not known."""
        flops = self.gpu.bf16_flops if self.load.precision == "bf16" else None
        return None if flops is None else seconds(self.stage, self.load, flops)


def seconds(stage: Stage, load: Load, peak_flops: float) -> float:
    """From start to end, with the evaluations and DPO's reference pass, on a device of this peak (FLOP/s)."""
    held_out = sum(it.positions for it in stage.rows.held_out)
    looked_at: float = (stage.settings.evaluations + 2) * held_out
    if stage.section == "dpo":  # the reference reads every pair once
        looked_at += held_out + len(stage.rows.lengths) * stage.rows.mean
    looking = looked_at * stage.work.forward / (peak_flops * share_of_peak(stage.section, load))
    return START_S + looking + stage.positions / tokens_per_s(stage.section, stage.work, load, peak_flops)


def forecast(stage: Stage, gpu: Gpu) -> Forecast | None:
    """How the trainer would run a stage on a GPU; None where it does not fit."""
    settings = stage.settings
    choices = (False, True) if settings.gradient_checkpointing == "auto" else (settings.gradient_checkpointing,)
    if settings.micro_batch_tokens == "auto":
        found = fit_to(stage.load(stage.rows.most), gpu.memory_bytes, choices)
        return Forecast(stage, gpu, *found) if found else None
    fixed = stage.load(max(settings.micro_batch_tokens, stage.rows.most))
    found = fit_to(fixed, gpu.memory_bytes, choices)
    return Forecast(stage, gpu, settings.micro_batch_tokens, found[1]) if found else None


def smallest(stage: Stage) -> Load:
    """The pass that takes the least memory: the longest row alone, activations computed again."""
    return replace(stage.load(stage.rows.most), gradient_checkpointing=True)
