"""data/README.md: the dataset card the Hub shows, with who wrote what and what was dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jobs.common.constitution import Constitution

SPLITS = {
    "default": {name: name for name in ("train_sft", "test_sft", "train_prefs", "test_prefs")},
    "sft": {"train": "train_sft", "test": "test_sft"},
    "prefs": {"train": "train_prefs", "test": "test_prefs"},
}
"""Configuration of the dataset → its splits and their files: the Hub dataset's own, and what trainers take as it is."""
COLUMNS = {
    "sft": "[messages, id, principle_id, kind, language]",
    "prefs": "[chosen, rejected, id, principle_id, kind, language, preference_probability, chosen_by, rejected_by]",
}
"""Configuration → its columns, where not all. TRL 1.16 takes a `prompt` that is text beside chats for a mistake."""


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
language: [{", ".join(map(json.dumps, by.get("languages") or [constitution.language]))}]
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
| benign twins | {counts["benign_twins"]} of the rows: legitimate requests whose chosen answer helps |
| chosen sides rewritten | {counts["rewrites"]}, so that both sides are of one length |
| rejected sides edited from the chosen one | {counts["minimal_edits"]} |

{_judged(by)} `test_*` hold prompts that no training stage has seen: they are for evaluation only.
"""


def _judged(by: Mapping[str, Any]) -> str:
    sides = "`chosen` is the revision and `rejected` the initial response"
    if by["judge"] is None:
        return f"{sides}; no judge has compared them."
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in by["verdicts"].items())
    rule = {
        "both_orders": "the one it preferred in both orders was kept",
        "mean": "the one it preferred on the mean of both orders was kept",
    }[by["judge_rule"]]
    mean = by["mean_preference_probability"]
    sure = "" if mean is None else f" It gives the kept revisions a mean probability of {mean:.2f}."
    return (
        f"{sides}, unless `chosen_by` and `rejected_by` say otherwise. `{by['judge']}` compared them blind and in both "
        f"orders: of {by['comparisons']} comparisons ({verdicts}), {rule}; `preference_probability` is its own.{sure}"
    )


def _configs() -> str:
    lines = []
    for name, files in SPLITS.items():
        lines.append(f"  - config_name: {name}")
        lines += [f"    columns: {COLUMNS[name]}"] if name in COLUMNS else []
        lines.append("    data_files:")
        lines += [f"      - {{split: {split}, path: {file}.parquet}}" for split, file in files.items()]
    return "\n".join(lines)


def _initial(by: Mapping[str, Any]) -> str:
    if by["initial_kind"] == "teacher":
        return f"**invented by the teacher** (`{by['teacher']}` plays a careless assistant; no student spoke)"
    return f"`{by['initial_model']}` ({by['initial_kind']})"
