"""Charts made of bars: values with intervals and limits, parts of a whole, and a histogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from jobs.audit.svg import LABEL, WIDTH, element, frame, label, line, rect, text

ROW = 30
VALUE = 110
"""Space for values at the right."""
PLOT = WIDTH - LABEL - VALUE


@dataclass(frozen=True)
class Bar:
    """One bar."""

    label: str
    value: float
    shown: str
    """The value as people read it."""
    tone: str = "series-1"
    low: float | None = None
    """Ends of its interval."""
    high: float | None = None


@dataclass(frozen=True)
class Scale:
    """What a bar chart is measured against."""

    top: float = 1.0
    """Value at the right end."""
    limit: float | None = None
    """The gate's limit."""
    chance: float | None = None
    """What chance would give."""
    limits: tuple[float | None, ...] = ()
    """Limits that differ by bar, in their order."""


def bars(title: str, description: str, rows: Sequence[Bar], scale: Scale) -> Markup:
    """Horizontal bars, one below the other, with limit and chance as lines."""
    top = scale.top or 1.0

    def x(value: float) -> float:
        return LABEL + PLOT * min(max(value / top, 0.0), 1.0)

    parts: list[Markup] = []
    height = ROW * len(rows) + 34
    if scale.chance is not None:
        parts += [line(x(scale.chance), 8, x(scale.chance), height - 26, "chance")]
        parts += [text(x(scale.chance), height - 8, "chance", "small", "middle")]
    if scale.limit is not None:
        parts += [line(x(scale.limit), 8, x(scale.limit), height - 26, "limit")]
        parts += [text(x(scale.limit), height - 8, "limit", "small", "middle")]
    for number, row in enumerate(rows):
        y = 10 + ROW * number
        parts += [label(y + 15, row.label)]
        parts += [
            rect((LABEL, y + 2, PLOT, 18), "track"),
            rect((LABEL, y + 2, x(row.value) - LABEL, 18), row.tone, row.shown),
        ]
        if row.low is not None and row.high is not None:
            parts += [line(x(row.low), y + 11, x(row.high), y + 11, "whisker")]
        if number < len(scale.limits) and (own := scale.limits[number]) is not None:
            parts += [line(x(own), y - 2, x(own), y + 24, "limit")]
        parts += [text(LABEL + PLOT + 10, y + 16, row.shown, "value")]
    return frame(height, title, description, parts)


def stacked(title: str, description: str, rows: Mapping[str, Mapping[str, int]], order: Sequence[str]) -> Markup:
    """Parts of a whole, one bar for each row, with a legend; `order` gives each part its colour and place."""
    parts: list[Markup] = []
    left = float(LABEL)
    for place, name in enumerate(order):
        parts += [rect((left, 4, 12, 12), f"part-{place}"), text(left + 17, 15, name, "small")]
        left += 30 + 7.2 * len(name)
    for number, (name, counts) in enumerate(rows.items()):
        y, start, total = 28 + ROW * number, float(LABEL), sum(counts.values())
        parts += [label(y + 15, name)]
        for place, part in enumerate(order):
            share = counts.get(part, 0) / total if total else 0.0
            width = (PLOT + VALUE - 10) * share
            shown = f"{part}: {100 * share:.1f} % ({counts.get(part, 0):,} of {total:,})"
            parts += [rect((start, y, max(width - 1.5, 0.0), 20), f"part-{place}", shown)] if width else []
            if share >= 0.08:
                parts += [
                    text(start + width / 2, y + 14, f"{100 * share:.0f} %", f"inside part-text-{place}", "middle")
                ]
            start += width
    return frame(28 + ROW * len(rows) + 4, title, description, parts)


def histogram(title: str, description: str, values: Sequence[float], names: tuple[str, str]) -> Markup:
    """How often each difference occurs; left of 0 in the second colour, right of it in the first.

    Args:
        values: differences; the outer 1 % is gathered in the last bins.
        names: what a negative and a positive difference mean.
    """
    ordered = sorted(values)
    edge = max(abs(ordered[len(ordered) // 100]), abs(ordered[-1 - len(ordered) // 100]), 1.0)
    half = 15
    counts = [0] * (2 * half)
    for value in values:
        counts[min(max(int((value / edge + 1) * half), 0), 2 * half - 1)] += 1
    highest, height, left = max(counts), 190, 40
    width = (WIDTH - 2 * left) / len(counts)
    parts: list[Markup] = []
    for place, count in enumerate(counts):
        low, tall = (place / half - 1) * edge, 140 * count / highest
        spread = f"{low:+.0f} to {low + edge / half:+.0f}"
        ends = {0: f"{low + edge / half:+.0f} or less", 2 * half - 1: f"{low:+.0f} or more"}
        shown = f"{ends.get(place, spread)} words: {count:,}"
        css = "rejected" if place < half else "chosen"
        parts += [rect((left + place * width + 1, 150 - tall, width - 2, tall), css, shown)]
    middle = left + half * width
    parts += [line(left, 150, WIDTH - left, 150, "axis"), line(middle, 6, middle, 156, "zero")]
    parts += [text(middle, 170, "0", "small", "middle"), text(left, 170, f"≤ {edge / half - edge:.0f}", "small")]
    parts += [text(WIDTH - left, 170, f"≥ +{edge - edge / half:.0f} words", "small", "end")]
    parts += [text(left, 186, f"← {names[0]}", "small"), text(WIDTH - left, 186, f"{names[1]} →", "small", "end")]
    return frame(height, title, description, [element("g", *parts)])
