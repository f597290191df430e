"""Section 13: where the data comes from, as its source says it."""

from __future__ import annotations

import json
from typing import Any

from jobs.audit.blocks import Block, Facts, Note, Section, View, clip

LONGEST = 600
"""Most characters of one value."""


def datasheet(view: View) -> Section:
    """Models, licences, hashes, tokens and cost, as they are."""
    facts = [
        ("name", view.data.name),
        ("language of the constitution", view.data.language),
        ("prompts", f"{len(view.data.prompts):,}"),
        ("supervised rows", f"{len(view.data.examples):,}"),
        ("pairs", f"{len(view.data.pairs):,}"),
        *((name, clip(value, LONGEST)) for name, value in _flat("", dict(view.data.datasheet))),
    ]
    blocks: list[Block] = [Facts(facts)]
    blocks += [Note(note) for note in view.measured.notes]
    known = {name.split(" · ")[0] for name, _ in facts}
    missing = [word for word in ("licence", "constitution_sha256") if word not in known]
    verdict = "Everything the source says about itself."
    if missing:
        names = {"licence": "a licence", "constitution_sha256": "a constitution"}
        verdict = f"The source does not name {' or '.join(names[word] for word in missing)}."
    return Section("datasheet", "Datasheet", verdict, "grey", blocks)


def _flat(prefix: str, values: dict[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        path = f"{prefix} · {name}" if prefix else str(name)
        if isinstance(value, dict) and value and len(value) <= 24:
            found += _flat(path, value)
        elif value not in (None, "", [], {}):
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            found.append((path, shown))
    return found
