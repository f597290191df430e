"""How fast training goes on a device, and whether a stage is long enough to compile its layers. Needs no torch.

    load = replace(load, compiled=compile_pays("sft", settings, load, Amount(rows, tokens), gpu.bf16_flops))
    seconds = positions / tokens_per_s("sft", work, load, gpu.bf16_flops) + beside_passes_s(load, steps)

`cai plan`, the trainers' choice and what they predict beside real all ask here, so they agree on what is compiled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jobs.common.flops import Work
from jobs.common.gpus import Gpu, find_gpu
from jobs.common.memory import Load
from jobs.common.processor import cores
from jobs.common.settings import DpoSettings, SftSettings

Stage = Literal["sft", "dpo"]


@dataclass(frozen=True)
class Shares:
    """What share of a GPU's bf16 peak forward and backward passes reach, for models from some width on.

    Useful LoRA arithmetic (jobs/common/flops.py) and what is recomputed count, optimizer and start-up do not.
    """

    least_hidden: int
    compiled: float
    eager: float
    """With layers that are not compiled."""
    nf4_compiled: float
    """With frozen weights in 4 bits, which are made dense for every product."""
    nf4_eager: float

    def of(self, load: Load) -> float:
        """The share of a load on a GPU."""
        if load.quantization == "nf4":
            return self.nf4_compiled if load.compiled else self.nf4_eager
        return self.compiled if load.compiled else self.eager


# Measured on one H100 (989 TFLOP/s), passes alone: 0.42 with SmolLM2-1.7B at 16k tokens a pass (61,300 tokens/s), and,
# before layers shared products, 0.26 with the same, eager (37,400), 0.47 with Mistral-7B at 8k (16,100) and 0.26 with
# Mistral-7B in nf4 at 4k, eager (8,900). The others are assumed: a wide layer loses less by being eager, and 4 bits
# cost the same everywhere.
SHARES = (
    Shares(3072, compiled=0.47, eager=0.34, nf4_compiled=0.32, nf4_eager=0.26),
    Shares(1536, compiled=0.42, eager=0.26, nf4_compiled=0.30, nf4_eager=0.21),
    Shares(0, compiled=0.20, eager=0.13, nf4_compiled=0.16, nf4_eager=0.10),
)
DPO_SHARE = 0.92
"""A dpo pass's share of the peak, in sft passes' shares: shared prompts make more, shorter attention calls. Assumed."""

STEP_S = 0.09
"""Seconds of an optimizer step on a GPU beside its passes: sft of SmolLM2-1.7B at 10k tokens a step reached 39,900
tokens/s (0.28 of the peak) on that H100, whose CPU was busy."""

COMPILE_S = 85.0
"""Seconds that compiling the layers takes: 25 to 85 on that H100 where nothing had been compiled before."""

CPU_SHARE = 0.35
"""The share of its peak that a CPU reaches, whatever the model's width: its products are slow enough to hide the rest.
Layers are not compiled there."""

CPU_CORE_FLOPS = {"bf16": 205e9, "fp32": 60e9}
"""Matrix products of one CPU core with AVX512, FLOP/s; bf16 where it has AVX512-BF16."""


@dataclass(frozen=True)
class Amount:
    """What a training stage reads in one epoch."""

    rows: int
    """Rows or pairs, at least one."""
    tokens: int
    """Their tokens, prompts included; a pair counts both sides with their prompt."""

    def epochs(self, settings: SftSettings | DpoSettings) -> float:
        """How often the stage goes over its rows."""
        if settings.max_steps is None:
            return settings.epochs
        return settings.max_steps * min(settings.batch_size, self.rows) / self.rows


def peak_flops(device_name: str, load: Load) -> float | None:
    """What the device does at best in the dtype of the products, FLOP/s; None where the table does not say.

    Args:
        device_name: as the driver says it.
        load: its `device` and `precision` count.
    """
    if load.device == "cpu":
        return cores() * CPU_CORE_FLOPS[load.precision]
    gpu = find_gpu(device_name)
    return gpu_flops(gpu, load) if gpu else None


def gpu_flops(gpu: Gpu, load: Load) -> float | None:
    """What a GPU does at best in the dtype of the products, FLOP/s; None where the table does not say."""
    return gpu.bf16_flops if load.precision == "bf16" else None


def share_of_peak(stage: Stage, load: Load) -> float:
    """The share of the peak that a stage's passes are taken to reach."""
    if load.device == "cpu":
        return CPU_SHARE
    wide = next(it for it in SHARES if load.shape.hidden >= it.least_hidden)
    return wide.of(load) * (DPO_SHARE if stage == "dpo" else 1.0)


def tokens_per_s(stage: Stage, work: Work, load: Load, peak: float) -> float:
    """Positions that the passes should get through in a second on a device of this peak (FLOP/s)."""
    spent = work.training + (work.recomputed if load.gradient_checkpointing else 0)
    return peak * share_of_peak(stage, load) / spent


def beside_passes_s(load: Load, steps: int) -> float:
    """Seconds of training that are not in its passes: what every optimizer step takes, and compiling."""
    return (steps * STEP_S if load.device == "cuda" else 0.0) + (COMPILE_S if load.compiled else 0.0)


def compile_pays(
    stage: Stage, settings: SftSettings | DpoSettings, load: Load, amount: Amount, peak: float | None
) -> bool:
    """Whether compiled layers save more than compiling them takes.

    Args:
        stage: sft or dpo.
        settings: how often it goes over the rows.
        load: the model and how it runs; `compiled` and `gradient_checkpointing` are not read.
        amount: the stage's rows.
        peak: of all devices together, FLOP/s; None where it is not known, and then it never pays.
    """
    if peak is None or load.device == "cpu":
        return False
    work = Work(load.shape, load.lora_rank, amount.tokens / amount.rows / 2)
    eager, compiled = (
        1 / tokens_per_s(stage, work, replace(load, compiled=it, gradient_checkpointing=False), peak)
        for it in (False, True)
    )
    return amount.epochs(settings) * amount.tokens * (eager - compiled) > COMPILE_S
