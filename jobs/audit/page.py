"""audit.html: one file that opens anywhere, asks no network and escapes every text of the data."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jobs.audit.blocks import SHAPES, View
from jobs.audit.browse import LABELS, PER_PRINCIPLE, browse, labels
from jobs.audit.cards import cards, shared_fixes
from jobs.audit.lights import verdict
from jobs.audit.section_copies import duplicates, leaks
from jobs.audit.section_flow import coverage, funnel
from jobs.audit.section_meaning import grounding, identified
from jobs.audit.section_openings import openings
from jobs.audit.section_rows import answers, malformed
from jobs.audit.section_sheet import datasheet
from jobs.audit.section_style import shortcuts
from jobs.common.jsonl import write_atomic

TEMPLATES = Path(__file__).parent / "templates"
SECTIONS = (
    funnel, coverage, shortcuts, openings, duplicates, leaks, malformed, answers, identified, grounding,
)  # fmt: skip
"""Sections 1 to 10, in order; 11 (label audit) and 12 (rows) live in the template, 13 (datasheet) comes last."""


def write_page(path: Path, view: View) -> None:
    """Write the page, whole or not at all."""
    # Half a surrogate pair cannot be written; it becomes a question mark.
    write_atomic(path, render(view).encode("utf-8", "replace"))


def render(view: View) -> str:
    """The page's HTML."""
    sections = [section(view) for section in SECTIONS]
    rows = browse(view, sections)
    style = _asset("base.css", "parts.css", "charts.css")
    script = _asset("page.js", "labels.js", "rows.js")
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            view=view,
            verdict=verdict(view.gates),
            cards=cards(view),
            fixes=shared_fixes(view),
            shapes=SHAPES,
            sections=[(number, section) for number, section in enumerate(sections, start=1)],
            sheet=datasheet(view),
            rows=rows,
            per_principle=PER_PRINCIPLE,
            labels=labels(view),
            label_count=min(LABELS, len(view.data.pairs)),
            style=style,
            script=script,
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )


def _asset(*names: str) -> Markup:
    # Our own files, never data: the policy in the page allows exactly this text by its hash.
    return Markup("\n".join((TEMPLATES / name).read_text(encoding="utf-8").strip() for name in names))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
