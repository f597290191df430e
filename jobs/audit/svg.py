"""SVG by hand: escaped elements, and the frame every chart has (title and description for screen readers)."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

WIDTH = 720
"""Width of every chart's coordinates; the page scales it."""
LABEL = 240
"""Space for labels at the left of a chart with rows."""
LETTERS = 34
"""Most letters of such a label, as many as fit."""


def element(tag: str, *children: Markup | str, **attributes: object) -> Markup:
    """One element; texts are escaped, `class_` is `class` and `_` in a name is `-`."""
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = "".join(str(escape(child)) for child in children)
    return Markup(f"<{tag}{shown}>{inside}</{tag}>")


def frame(height: float, title: str, description: str, children: Iterable[Markup]) -> Markup:
    """A whole chart."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *children,
        class_="chart",
        role="img",
        viewBox=f"0 0 {WIDTH} {height:.0f}",
        aria_label=f"{title}. {description}",
    )


def text(x: float, y: float, content: str, css: str = "", anchor: str | None = None) -> Markup:
    """A line of text."""
    return element("text", content, x=x, y=y, class_=css or None, text_anchor=anchor)


def label(y: float, content: str) -> Markup:
    """A row's label at the left, cut to fit, whole in its tooltip."""
    short = content if len(content) <= LETTERS else content[: LETTERS - 1] + "…"
    return element("text", short, element("title", content), x=LABEL - 10, y=y, text_anchor="end")


def rect(box: tuple[float, float, float, float], css: str, tooltip: str = "") -> Markup:
    """A filled rectangle (left, top, width, height), with a tooltip where there is one."""
    x, y, width, height = box
    inside = [element("title", tooltip)] if tooltip else []
    return element("rect", *inside, x=x, y=y, width=max(width, 0.0), height=height, class_=css)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=css)


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
