"""Charts of distributions and of confusion: violins and a matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from jobs.audit.svg import LABEL, WIDTH, element, frame, label, line, rect, text

BINS = 48
HEAD, SLANT = 136, 80
"""Space above a matrix for the names of its columns, and at its right, where the last ones end."""
TALL = 84
"""Height of one violin's row."""


def violins(title: str, description: str, groups: Mapping[str, Sequence[int]], tones: Mapping[str, str]) -> Markup:
    """Distributions of word counts under one another, on a logarithmic axis, with median and quartiles."""
    longest = max((max(values, default=1) for values in groups.values()), default=1)
    top, plot = math.log1p(max(longest * 1.5, 10)), WIDTH - LABEL - 20

    def x(words: float) -> float:
        return LABEL + plot * math.log1p(words) / top

    parts: list[Markup] = []
    shown = {name: values for name, values in groups.items() if values}
    bottom = TALL * len(shown)
    for tick in (1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000):
        if tick <= longest:
            parts += [
                line(x(tick), 4, x(tick), bottom, "grid"),
                text(x(tick), bottom + 18, f"{tick:,}", "small", "middle"),
            ]
    parts += [text(LABEL - 10, bottom + 18, "words", "small", "end")]
    for number, (name, values) in enumerate(shown.items()):
        middle = TALL * number + TALL / 2
        low, median, high = (_quantile(values, share) for share in (0.25, 0.5, 0.75))
        spoken = f"{name}: median {median:.0f} words, half of them between {low:.0f} and {high:.0f}"
        parts += [
            label(middle + 5, name),
            _body(_density(values, top), (LABEL, plot, middle), tones.get(name, "series-1"), spoken),
        ]
        parts += [line(x(low), middle, x(high), middle, "quartiles")]
        parts += [element("circle", element("title", spoken), cx=x(median), cy=middle, r=5, class_="median")]
        parts += [text(x(median), middle - 11, f"{median:.0f}", "on-shape", "middle")]
    return frame(bottom + 28, title, description, parts)


def _density(values: Sequence[int], top: float) -> list[float]:
    counts = [0.0] * BINS
    for value in values:
        counts[min(int(math.log1p(value) / top * BINS), BINS - 1)] += 1.0
    kernel = [math.exp(-0.5 * (step / 1.6) ** 2) for step in range(-5, 6)]
    smooth = [
        sum(
            weight * counts[place + step]
            for step, weight in zip(range(-5, 6), kernel, strict=True)
            if 0 <= place + step < BINS
        )
        for place in range(BINS)
    ]
    highest = max(smooth) or 1.0
    return [value / highest for value in smooth]


def _body(density: list[float], place: tuple[float, float, float], css: str, spoken: str) -> Markup:
    left, plot, middle = place
    xs = [left + plot * (number + 0.5) / BINS for number in range(BINS)]
    upper = [f"{x:.1f},{middle - 34 * share:.1f}" for x, share in zip(xs, density, strict=True)]
    lower = [f"{x:.1f},{middle + 34 * share:.1f}" for x, share in zip(xs, density, strict=True)]
    return element(
        "polygon", element("title", spoken), points=" ".join([*upper, *reversed(lower)]), class_=f"violin {css}"
    )


def _quantile(values: Sequence[int], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _slanted(x: float, content: str) -> Markup:
    """A column's name, written upwards, whole in its tooltip."""
    short = content if len(content) <= 22 else content[:21] + "…"
    turned = f"rotate(-60 {x:.1f} {HEAD - 6})"
    return element("text", short, element("title", content), x=x, y=HEAD - 6, class_="small", transform=turned)


def matrix(title: str, description: str, names: Sequence[str], confusion: Mapping[str, Mapping[str, int]]) -> Markup:
    """Rows are what a prompt was written for, columns what it looks like; the diagonal is right.

    Args:
        names: at most 40 ids, in their order.
        confusion: id → nearest id → prompts.
    """
    side = min(22.0, (WIDTH - LABEL - SLANT) / max(len(names), 1))
    parts: list[Markup] = []
    for down, truth in enumerate(names):
        total = sum(confusion.get(truth, {}).values()) or 1
        y = HEAD + down * side
        parts += [label(y + side * 0.72, truth), _slanted(LABEL + (down + 0.6) * side, truth)]
        for across, nearest in enumerate(names):
            count = confusion.get(truth, {}).get(nearest, 0)
            css = ("right" if truth == nearest else "wrong") if count else "track"
            step = math.ceil(4 * count / total) if count else 0
            spoken = f"{truth} looks like {nearest}: {count} of {total}"
            parts += [
                rect(
                    (LABEL + across * side + 0.5, y + 0.5, side - 1, side - 1),
                    f"{css} step-{step}",
                    spoken if count else "",
                )
            ]
            if count and side >= 16:
                parts += [
                    text(LABEL + (across + 0.5) * side, y + side * 0.7, str(count), f"tiny cell-{step}", "middle")
                ]
    return frame(HEAD + side * len(names) + 8, title, description, parts)
