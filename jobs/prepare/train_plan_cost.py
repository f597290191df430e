"""How one stage of training would go on one device: what fits its memory, how long it takes, what that costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

from jobs.common.fitting import fit_to
from jobs.common.flops import Work
from jobs.common.gpus import Gpu
from jobs.common.memory import Breakdown, Load, peak_bytes
from jobs.common.model_shape import ModelShape
from jobs.common.settings import DpoSettings, SftSettings
from jobs.common.speed import beside_passes_s, compile_pays, gpu_flops, share_of_peak, tokens_per_s
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
        return self.rows.amount.epochs(self.settings) * len(self.rows.lengths) * self.rows.mean

    @property
    def work(self) -> Work:
        """Arithmetic of one position."""
        return Work(self.shape, self.rank, self.rows.context, self.rows.scored_share)

    @property
    def least_tokens(self) -> int:
        """Positions that a forward pass must have room for."""
        fixed = self.settings.micro_batch_tokens
        return self.rows.most if fixed == "auto" else max(fixed, self.rows.most)

    @property
    def checkpointing(self) -> tuple[bool, ...]:
        """What may be chosen for gradient checkpointing, the better first."""
        wanted = self.settings.gradient_checkpointing
        return (False, True) if wanted == "auto" else (wanted,)

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
    compiled: bool
    """Whether the decoder layers are compiled."""

    @cached_property
    def load(self) -> Load:
        """The largest forward pass there will be: a step's rows may fill less than one."""
        largest = min(self.tokens, self.stage.rows.largest_step(self.stage.settings.batch_size))
        scored = self.stage.rows.scored_share
        load = replace(self.stage.load(largest), scored_share=scored, compiled=self.compiled)
        return replace(load, gradient_checkpointing=self.checkpointing)

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
        flops = gpu_flops(self.gpu, self.load)
        return None if flops is None else seconds(self.stage, self.load, flops)


def seconds(stage: Stage, load: Load, peak_flops: float) -> float:
    """From start to end, with the evaluations and DPO's reference pass, on a device of this peak (FLOP/s)."""
    held_out = sum(it.positions for it in stage.rows.held_out)
    looked_at: float = (stage.settings.evaluations + 2) * held_out
    if stage.section == "dpo":  # the reference reads every pair once
        looked_at += held_out + len(stage.rows.lengths) * stage.rows.mean
    looking = looked_at * stage.work.forward / (peak_flops * share_of_peak(stage.section, load))
    passes = stage.positions / tokens_per_s(stage.section, stage.work, load, peak_flops)
    return START_S + looking + passes + beside_passes_s(load, stage.steps)


def forecast(stage: Stage, gpu: Gpu) -> Forecast | None:
    """How the trainer would run a stage on a GPU; None where it does not fit."""
    load = stage.load(stage.least_tokens)
    pays = compile_pays(stage.section, stage.settings, load, stage.rows.amount, gpu_flops(gpu, load))
    found = fit_to(replace(load, compiled=pays), gpu.memory_bytes, stage.checkpointing)
    if found is None:
        return None
    fixed = stage.settings.micro_batch_tokens
    return Forecast(stage, gpu, found[0] if fixed == "auto" else fixed, found[1], pays)


def smallest(stage: Stage) -> Load:
    """The pass that takes the least memory: the longest row alone, activations computed again where they may be."""
    return replace(stage.load(stage.least_tokens), gradient_checkpointing=stage.checkpointing[-1])
