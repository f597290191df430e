"""How fast training should go and how much memory it should take, beside what a finished stage measured.

figures = predicted_beside_real(Ran("sft", load, context, positions, train_s, device_name, peak))
say(figures.line)
measures["predicted"] = figures.for_manifest
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jobs.common.flops import Work, mfu
from jobs.common.gpus import find_gpu
from jobs.common.memory import GIB, Load, peak_bytes
from jobs.common.processor import cores

Stage = Literal["sft", "dpo"]


@dataclass(frozen=True)
class ShareOfPeak:
    """What share of a device's peak training reaches, recomputation counted, for models from some width on."""

    least_hidden: int
    none: float
    """With frozen weights in bf16 or fp32."""
    nf4: float
    """With frozen weights in 4 bits, which are made dense for every product."""


SHARES: dict[Stage, tuple[ShareOfPeak, ...]] = {
    "sft": (ShareOfPeak(3072, 0.40, 0.32), ShareOfPeak(1536, 0.36, 0.29), ShareOfPeak(0, 0.20, 0.16)),
    "dpo": (ShareOfPeak(3072, 0.37, 0.30), ShareOfPeak(1536, 0.33, 0.27), ShareOfPeak(0, 0.18, 0.14)),
}
"""With compiled layers. On an H100 forward and backward pass alone reached 0.43 at width 2048 and 0.49 at 4096, a whole
SFT run with short steps on a busy CPU 0.28 at 2048; dpo, nf4 and narrow models are assumed until measured."""

EAGER = 0.65
"""Speed of layers that are not compiled, as a share of compiled ones: 37,400 of 51,300 and more tokens/s on an H100."""

CPU_SHARE = 0.35
"""The same for a CPU, whatever the model's width: its products are slow enough to hide the rest."""

CPU_CORE_FLOPS = {"bf16": 205e9, "fp32": 60e9}
"""Matrix products of one CPU core with AVX512, FLOP/s; bf16 where it has AVX512-BF16."""


@dataclass(frozen=True)
class Ran:
    """What a training stage measured."""

    stage: Stage
    load: Load
    """Its `micro_batch_tokens` are the positions of the largest forward pass that ran."""
    context: float
    """Positions that a position attended to, on average (jobs/common/flops.py)."""
    positions: int
    """Positions trained in `train_s`; a shared prompt counts once."""
    train_s: float
    device_name: str
    """As the driver says it; any name for a CPU."""
    peak_bytes: float | None
    """torch.cuda.max_memory_allocated(); None on a CPU."""


@dataclass(frozen=True)
class Comparison:
    """Predicted beside real."""

    line: str
    """For the terminal."""
    for_manifest: dict[str, dict[str, float | None]]
    """`memory_gib`, `tokens_per_s` and `minutes`, each {predicted, real}, and mfu {real}; None where unknown."""


def peak_flops(device_name: str, load: Load) -> float | None:
    """What the device does at best in the dtype of the products, FLOP/s; None where the table does not say.

    Args:
        device_name: as the driver says it.
        load: its `device` and `precision` count.
    """
    if load.device == "cpu":
        return cores() * CPU_CORE_FLOPS[load.precision]
    gpu = find_gpu(device_name)
    return gpu.bf16_flops if gpu and load.precision == "bf16" else None


def tokens_per_s(stage: Stage, work: Work, load: Load, peak: float) -> float:
    """Positions that training should get through in a second on a device of this peak (FLOP/s)."""
    spent = work.training + (work.recomputed if load.gradient_checkpointing else 0)
    return peak * share_of_peak(stage, load) / spent


def share_of_peak(stage: Stage, load: Load) -> float:
    """The share of the peak that is assumed for a stage."""
    if load.device == "cpu":
        return CPU_SHARE
    wide = next(it for it in SHARES[stage] if load.shape.hidden >= it.least_hidden)
    return (wide.nf4 if load.quantization == "nf4" else wide.none) * (1.0 if load.compiled else EAGER)


def predicted_beside_real(ran: Ran) -> Comparison:
    """Set what the plan would have said of exactly this run beside what was measured."""
    work = Work(ran.load.shape, ran.load.lora_rank, ran.context, ran.load.scored_share)
    peak = peak_flops(ran.device_name, ran.load)
    speed = ran.positions / ran.train_s if ran.train_s else None
    expected = tokens_per_s(ran.stage, work, ran.load, peak) if peak else None
    found = {
        "memory_gib": _pair(
            peak_bytes(ran.load).total / GIB if ran.load.device == "cuda" else None,
            ran.peak_bytes / GIB if ran.peak_bytes is not None else None,
        ),
        "tokens_per_s": _pair(expected, speed),
        "minutes": _pair(ran.positions / expected / 60 if expected else None, ran.train_s / 60),
        "mfu": {"real": round(mfu(speed, work, peak), 4) if speed and peak else None},
    }
    shown = [
        f"{_shown(found['memory_gib'], '.2f')} GiB" if ran.load.device == "cuda" else "",
        f"{_shown(found['tokens_per_s'], ',.0f')} tokens/s",
        f"{_shown(found['minutes'], '.1f')} minutes",
        f"MFU {found['mfu']['real']:.0%}" if found["mfu"]["real"] is not None else "",
    ]
    return Comparison(f"{ran.stage}: predicted / real: {', '.join(filter(None, shown))}", found)


def _pair(predicted: float | None, real: float | None) -> dict[str, float | None]:
    return {name: None if it is None else round(it, 3) for name, it in (("predicted", predicted), ("real", real))}


def _shown(pair: dict[str, Any], form: str) -> str:
    return " / ".join("?" if pair[name] is None else f"{pair[name]:{form}}" for name in ("predicted", "real"))
