"""The table of one case: every side's speed, and how many times the others' ours is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.training_drive import Seen
from benchmarks.training_models import Case

SIDES = {
    "ours": "this project",
    "original": "TRL, the original's settings",
    "packed": "TRL packed, its best",
    "grouped": "TRL padded in like lengths, its best",
    "best": "TRL, its best",
    "precomputed": "TRL, its best, reference before training",
}
"""Key → title."""
WINDOW = 3
"""Steps behind the moving loss."""


@dataclass(frozen=True)
class Figures:
    """One side's medians."""

    tokens_per_s: float
    rows_per_s: float
    """Pairs in dpo; what a reference before training costs is not in it."""
    with_reference: float
    """The same with it."""
    step_s: float
    """Median seconds of a step."""
    spread: tuple[float, float]
    """Lowest and highest tokens_per_s of the rounds."""


def figures(seen: Seen) -> Figures | None:
    """Medians over the rounds; None where there are none."""
    if not seen.rounds:
        return None
    sums = [[sum(column) for column in zip(*steps, strict=True)] for steps in seen.rounds]
    tokens = [each[1] / each[0] for each in sums]
    rows = median(each[2] / each[0] for each in sums)
    reference_s = seen.facts.get("reference_s_per_pair", 0.0)
    steps = [step[0] for steps in seen.rounds for step in steps]
    return Figures(median(tokens), rows, 1 / (1 / rows + reference_s), median(steps), (min(tokens), max(tokens)))


def case_table(case: Case, seen: dict[str, Seen], flops_per_token: float, peak: float) -> str:
    """Markdown.

    Args:
        case: what was trained.
        seen: by side.
        flops_per_token: of training one useful token with LoRA, without recomputation.
        peak: FLOP/s of the machine's matrix products.
    """
    dpo = case.stage == "dpo"
    target = None if dpo else common_loss(seen)
    unit = "pairs/s (with reference pass)" if dpo else "useful tokens/s (min-max)"
    last = "" if dpo else f" steps, s to loss {target:.3f} |" if target else " steps, s to a common loss |"
    what = f"{case.stage}, {case.model.name}" + (", nf4" if case.model.quantization == "nf4" else "")
    lines = [
        f"| {what} | {unit} | ours is | MFU | peak GiB | start-up s |{last}",
        "|---|---|---|---|---|---|" + ("---|" if last else ""),
    ]
    ours = figures(seen["ours"]) if "ours" in seen else None
    for name, it in seen.items():
        found = figures(it)
        title = f"{SIDES[name]}: {it.facts.get('settings', '-')}"
        if found is None:
            lines.append(f"| {title} | no figure: {it.error or 'not reached'} | | | | |" + (" |" if last else ""))
            continue
        cells = [title, _speed(found, dpo), _times(ours, found, dpo)]
        cells += [
            f"{found.tokens_per_s * flops_per_token / peak:.1%}",
            f"{it.facts.get('peak_bytes', math.nan) / 2**30:.1f}",
        ]
        cells.append(_plain(it.facts.get("start_s"), "{:.0f}"))
        if last:
            cells.append(_to_loss(it, found, target))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def common_loss(seen: dict[str, Seen]) -> float | None:
    """The lowest moving loss that every side reached."""
    lowest = [min(moving) for it in seen.values() if (moving := _moving(it.facts.get("losses", [])))]
    return max(lowest) if lowest else None


def _to_loss(seen: Seen, found: Figures, target: float | None) -> str:
    moving = _moving(seen.facts.get("losses", []))
    if target is None or not moving:
        return "-"
    steps = next(number for number, loss in enumerate(moving, start=WINDOW) if loss <= target)
    return f"{steps}, {steps * found.step_s:.1f}"


def _moving(losses: list[float]) -> list[float]:
    return [sum(losses[at : at + WINDOW]) / WINDOW for at in range(len(losses) - WINDOW + 1)]


def _speed(found: Figures, dpo: bool) -> str:
    if dpo:
        return f"{found.rows_per_s:.2f} ({found.with_reference:.2f})"
    return f"{found.tokens_per_s:.0f} ({found.spread[0]:.0f}-{found.spread[1]:.0f})"


def _times(ours: Figures | None, found: Figures, dpo: bool) -> str:
    if ours is None or ours == found:
        return "-"
    if dpo:
        return f"{ours.rows_per_s / found.rows_per_s:.2f}x ({ours.with_reference / found.with_reference:.2f}x)"
    return f"{ours.tokens_per_s / found.tokens_per_s:.2f}x"


def _plain(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)
