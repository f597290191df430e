"""Loss curves of a stage as pictures in the run's folder: `<stage>-curves.svg` and `.png`, from its log.jsonl.

SFT: loss of training steps and of held-out rows. DPO: besides the loss, reward margin, accuracy per principle beside
what length alone gets right, and the log-probability of both sides, whose fall is likelihood displacement.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any

from jobs.common.jsonl import write_atomic
from jobs.train.logged import HELD_OUT, Line, read_log

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
"""Colours that colour-blind readers tell apart (Okabe and Ito)."""
STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "cai",  # equal curves are equal bytes
}
WIDTH_IN, DPI = 9.0, 150
PARTS = 40
"""The thick line reaches a 40th of the steps to both sides."""


@dataclass(frozen=True)
class Story:
    """What there is to draw."""

    lines: list[Line]
    length_only: float | None = None
    """Share of the held-out pairs that their length alone gets right."""

    def points(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a figure; no accuracy of step 0, where the policy is the reference and ranks nothing."""
        found = [line for line in self.lines if name in line and (line["step"] or "accurac" not in name)]
        return [line["step"] for line in found], [line[name] for line in found]

    @property
    def reach(self) -> int:
        """How many steps before and after one the thick line is a mean of."""
        return len(self.points("loss")[0]) // PARTS

    def principles(self) -> list[str]:
        """Principles that held-out pairs have, the one with the lowest accuracy at the end first."""
        start = f"{HELD_OUT}accuracy/"
        latest = {name: line[name] for line in self.lines for name in line if name.startswith(start)}
        return [name.removeprefix(start) for name in sorted(latest, key=lambda name: (latest[name], name))]


def draw_curves(folder: Path, title: str, length_only: float | None = None) -> list[Path]:
    """Draw a stage's curves beside its folder.

    Args:
        folder: the stage's folder, `sft` or `dpo`, with log.jsonl in it.
        title: whose curves, such as `demo · dpo · SmolLM2-135M-Instruct`.
        length_only: share of the held-out pairs that their length alone gets right.

    Returns:
        The two files; none where nothing was logged.

    Raises:
        DataError: log.jsonl is damaged.
    """
    story = Story(read_log(folder / "log.jsonl"), length_only)
    if not story.lines:
        return []
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its font cache
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = _sft(story) if folder.name == "sft" else _dpo(story)
        figure.suptitle(title, fontsize=12, fontweight="bold")
        if story.reach:
            figure.supxlabel(f"thick lines: mean of {2 * story.reach + 1} steps", fontsize=8.5, color=GREY)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once for both
        return [_save(figure, folder.parent / f"{folder.name}-curves.{kind}") for kind in ("svg", "png")]


def _save(figure: Any, path: Path) -> Path:
    picture, kind = BytesIO(), path.suffix[1:]
    figure.savefig(picture, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else {})
    write_atomic(path, picture.getvalue())
    return path


def _sft(story: Story) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 4.4), layout="constrained")
    _over_steps(figure.subplots(), story, "Loss", "nats per scored token", {"loss": BLUE})
    return figure


def _dpo(story: Story) -> Any:
    from matplotlib.figure import Figure

    principles = story.principles()
    heights = [3.0, 3.0, *([0.9 + 0.2 * len(principles)] if principles else [])]
    figure = Figure(figsize=(WIDTH_IN, sum(heights) + 0.4), layout="constrained")
    axes = figure.subplots(len(heights), 2, height_ratios=heights)
    _over_steps(axes[0][0], story, "Loss", "loss per pair", {"loss": BLUE})
    _over_steps(axes[0][1], story, "Reward margin", "chosen minus rejected (β·nats)", {"rewards/margins": BLUE})
    _over_steps(axes[1][0], story, "Accuracy", "share of pairs ranked right", {"rewards/accuracies": BLUE})
    if story.length_only is not None:
        axes[1][0].axhline(story.length_only, color=GREY, linestyle="--", linewidth=1.2, label="length alone, held out")
        axes[1][0].legend()
    sides = {"logps/chosen": GREEN, "logps/rejected": ORANGE}
    _over_steps(axes[1][1], story, "Log-probability of the answers", "nats per answer", sides)
    if principles:
        _by_principle(axes[2], story, principles)
    return figure


def _over_steps(axes: Any, story: Story, title: str, unit: str, figures: Mapping[str, str]) -> None:
    """Figures of training steps and of held-out rows; `figures` maps their names to colours."""
    axes.set(title=title, ylabel=unit, xlabel="optimizer step")
    axes.margins(x=0.02)
    axes.xaxis.get_major_locator().set_params(integer=True)
    for name, colour in figures.items():
        one = len(figures) == 1
        what = "" if one else f"{name.split('/')[1]}, "
        steps, values = story.points(name)
        if steps:
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
            axes.plot(steps, smoothed(values, story.reach), color=colour, linewidth=1.8, label=f"{what}training")
        steps, values = story.points(HELD_OUT + name)
        if steps:
            other = ORANGE if one else colour
            axes.plot(
                steps, values, "o--", color=other, linewidth=1.2, markeredgecolor="white", label=f"{what}held out"
            )
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


def _by_principle(row: Any, story: Story, principles: list[str]) -> None:
    """A line of dots per principle, one for every evaluation."""
    for axes, name, unit in ((row[0], "accuracy", "share ranked right"), (row[1], "margin", "β·nats per answer")):
        evaluations = list(zip(*(story.points(f"{HELD_OUT}{name}/{it}")[1] for it in principles), strict=True))
        for number, values in enumerate(evaluations, start=1):
            weight = number / len(evaluations)
            axes.plot(
                values, range(len(principles)), "o", color=BLUE, alpha=0.15 + 0.85 * weight**2,
                markersize=7 if weight == 1 else 5,
            )  # fmt: skip
        axes.set_yticks(range(len(principles)), [_short(it) for it in principles])
        axes.set_ylim(-0.7, len(principles) - 0.3)
        axes.set(title=f"{name.capitalize()} by principle, held out", xlabel=f"{unit} (later evaluations darker)")
    row[1].set_yticklabels([])
    if story.length_only is not None:
        row[0].axvline(story.length_only, color=GREY, linestyle="--", linewidth=1.2)


def smoothed(values: list[float], reach: int) -> list[float]:
    """Each value's mean with up to `reach` neighbours on both sides."""
    return [fmean(values[max(0, at - reach) : at + reach + 1]) for at in range(len(values))]


def _short(name: str, letters: int = 30) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"
