"""data/README.md: the dataset card the Hub shows, with who wrote what and what was dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.common.constitution import Constitution

SPLITS = {"sft": ("train_sft", "test_sft"), "prefs": ("train_prefs", "test_prefs")}
"""Configuration of the dataset → its two files."""


def card(
    constitution: Constitution, counts: Mapping[str, int], dropped: Mapping[str, int], by: Mapping[str, Any]
) -> str:
    """The card's text.

    Args:
        constitution: what the data teaches.
        counts: the manifest's row counts.
        dropped: rows dropped, by reason.
        by: the manifest's measures; names teacher, endpoint and who wrote the initial responses.
    """
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "none"
    return f"""---
language: [{constitution.language}]
tags: [constitutional-ai, preference, synthetic]
configs:
{_configs()}
---

# {constitution.title}: critiques, revisions and preference pairs

Made by Constitutional AI (arXiv 2212.08073) from the constitution `{constitution.name}` with \
{len(constitution.principles)} principles. Columns are those of `HuggingFaceH4/cai-conversation-harmless`, then ours.

| | |
|---|---|
| red-team prompts, critiques, revisions by | `{by["teacher"]}` at `{by["teacher_endpoint"]}` |
| initial responses by | {_initial(by)} |
| rows | {counts["sft"]} for SFT, {counts["pairs"]} preference pairs, {counts["held_out_pairs"]} held out |
| dropped | {reasons} |
| failed | {counts["failures"]} |

`chosen` is the revision and `rejected` the initial response; no judge has compared them. `test_*` hold prompts that \
no training stage has seen: they are for evaluation only.
"""


def _configs() -> str:
    lines = []
    for name, (train, test) in SPLITS.items():
        lines += [
            f"  - config_name: {name}",
            "    data_files:",
            f"      - {{split: train, path: {train}.parquet}}",
            f"      - {{split: test, path: {test}.parquet}}",
        ]
    return "\n".join(lines)


def _initial(by: Mapping[str, Any]) -> str:
    if by["initial_kind"] == "teacher":
        return f"**invented by the teacher** (`{by['teacher']}` plays a careless assistant; no student spoke)"
    return f"`{by['initial_model']}` ({by['initial_kind']})"
