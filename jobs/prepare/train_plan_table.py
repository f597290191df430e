"""The training plan's table: what each stage trains on, and one line per GPU type. At most 110 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.common.fitting import device_bytes
from jobs.common.gpus import Gpu
from jobs.common.memory import GIB, peak_bytes
from jobs.prepare.train_plan_cost import Forecast, Stage, forecast, smallest

NAME_WIDTH, MEMORY_WIDTH, MONEY_WIDTH = 17, 6, 9
WIDTHS = (13, 7, 6, 6, 6)
"""Columns of one stage: tokens in a forward pass, forward passes, checkpointing, GiB, minutes."""


@dataclass(frozen=True)
class Offer:
    """Every stage on one GPU type; a stage that does not fit is None."""

    gpu: Gpu
    forecasts: tuple[Forecast | None, ...]

    @property
    def seconds(self) -> float | None:
        """All stages one after the other; None where one does not fit or its speed is not known."""
        found = [forecast.seconds if forecast else None for forecast in self.forecasts]
        return None if self.gpu.refusal or None in found else sum(it for it in found if it is not None)

    @property
    def usd(self) -> float | None:
        """What they cost, by the second."""
        return None if self.seconds is None else self.seconds / 3600 * self.gpu.usd_per_hour


def offers_of(stages: Sequence[Stage], gpus: Sequence[Gpu]) -> list[Offer]:
    """Every GPU type with the forecasts of all stages."""
    return [Offer(gpu, tuple(forecast(stage, gpu) for stage in stages)) for gpu in gpus]


def stage_line(stage: Stage) -> str:
    """What a stage trains on."""
    rows, settings = stage.rows, stage.settings
    what = "rows" if stage.section == "sft" else "pairs"
    mixed = f" ({rows.mixed:,} mixed in)" if rows.mixed else ""
    weights = "nf4" if settings.quantization == "nf4" else stage.load(1).precision
    return (
        f"{stage.section}: {len(rows.lengths):,} {what}{mixed} of {rows.mean:.0f} tokens "
        f"({f'from {rows.measured}' if rows.measured else 'assumed'}), {stage.positions:,.0f} tokens in "
        f"{stage.steps:,} steps of {settings.batch_size}, {weights} weights"
    )


def table(stages: Sequence[Stage], offers: Sequence[Offer]) -> list[str]:
    """The lines of the table."""
    start = NAME_WIDTH + MEMORY_WIDTH
    titles = " " * start + "".join(f"{stage.section:>{sum(WIDTHS)}}" for stage in stages)
    heads = f"{'GPU':<{NAME_WIDTH}}{'GiB':>{MEMORY_WIDTH}}"
    heads += _columns("tokens/pass", "passes", "ckpt", "GiB", "min") * len(stages) + f"{'dollars':>{MONEY_WIDTH}}"
    return [titles, heads, "-" * len(heads), *(_line(stages, offer).rstrip() for offer in offers)]


def minutes(seconds: float | None) -> str:
    """Minutes in few characters; a question mark where they are not known."""
    if seconds is None:
        return "?"
    return f"{seconds / 60:.1f}" if seconds < 600 else f"{seconds / 60:,.0f}"


def dollars(usd: float) -> str:
    """Dollars and cents; what is not zero does not look like it."""
    return "<0.01" if 0 < usd < 0.005 else f"{usd:.2f}"


def _line(stages: Sequence[Stage], offer: Offer) -> str:
    line = f"{offer.gpu.name:<{NAME_WIDTH}}{offer.gpu.memory_bytes / GIB:>{MEMORY_WIDTH}.1f}"
    if offer.gpu.refusal:
        return f"{line}   refused: {offer.gpu.refusal}"
    for stage, found in zip(stages, offer.forecasts, strict=True):
        line += _fits(found) if found else f"{f'needs {_needed(stage):.1f} GiB':>{sum(WIDTHS)}}"
    return line + (f"{dollars(offer.usd):>{MONEY_WIDTH}}" if offer.usd is not None else "")


def _fits(found: Forecast) -> str:
    again = "yes" if found.checkpointing else "no"
    return _columns(
        f"{found.tokens:,}", f"{found.passes}", again, f"{found.peak.total / GIB:.1f}", minutes(found.seconds)
    )


def _needed(stage: Stage) -> float:
    """GiB of the smallest GPU that would do."""
    load = smallest(stage)
    return device_bytes(peak_bytes(load).total, load.device) / GIB


def _columns(*texts: str) -> str:
    return "".join(f"{text:>{width}}" for text, width in zip(texts, WIDTHS, strict=True))
