"""How fast training should go and how much memory it should take, beside what a finished stage measured.

figures = predicted_beside_real(Ran("sft", load, context, positions, steps, train_s, device_name, peak))
say(figures.line)
measures["predicted"] = figures.for_manifest
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.common.flops import Work, mfu
from jobs.common.memory import GIB, Load, peak_bytes
from jobs.common.speed import Stage, beside_passes_s, peak_flops, tokens_per_s


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
    steps: int
    """Optimizer steps in `train_s`."""
    train_s: float
    """Seconds of those steps, compiling included."""
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


def predicted_beside_real(ran: Ran) -> Comparison:
    """Set what the plan would have said of exactly this run beside what was measured."""
    work = Work(ran.load.shape, ran.load.lora_rank, ran.context, ran.load.scored_share)
    peak = peak_flops(ran.device_name, ran.load)
    speed = ran.positions / ran.train_s if ran.train_s else None
    passes_s = ran.positions / tokens_per_s(ran.stage, work, ran.load, peak) if peak else None
    expected_s = None if passes_s is None else passes_s + beside_passes_s(ran.load, ran.steps)
    found = {
        "memory_gib": _pair(
            peak_bytes(ran.load).total / GIB if ran.load.device == "cuda" else None,
            ran.peak_bytes / GIB if ran.peak_bytes is not None else None,
        ),
        "tokens_per_s": _pair(ran.positions / expected_s if expected_s else None, speed),
        "minutes": _pair(None if expected_s is None else expected_s / 60, ran.train_s / 60),
        "mfu": {"real": round(mfu(speed, work, peak), 4) if speed and peak else None},
    }
    shown = [
        f"{_shown(found['memory_gib'], '.2f')} GiB" if ran.load.device == "cuda" else "",
        f"{_shown(found['tokens_per_s'], ',.0f')} tokens/s{' (a shared prompt once)' * (ran.stage == 'dpo')}",
        f"{_shown(found['minutes'], '.1f')} minutes",
        f"MFU {found['mfu']['real']:.0%}" if found["mfu"]["real"] is not None else "",
    ]
    return Comparison(f"{ran.stage}: predicted / real: {', '.join(filter(None, shown))}", found)


def _pair(predicted: float | None, real: float | None) -> dict[str, float | None]:
    return {name: None if it is None else round(it, 3) for name, it in (("predicted", predicted), ("real", real))}


def _shown(pair: dict[str, Any], form: str) -> str:
    return " / ".join("?" if pair[name] is None else f"{pair[name]:{form}}" for name in ("predicted", "real"))
