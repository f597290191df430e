"""A data stage's folder as the measures see it: `runs/<run>/generate` or `runs/<run>/repair`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from jobs.common.constitution import Constitution
from jobs.common.jsonl import read_json, read_records
from jobs.common.records import Dropped, PreferencePair, RedTeamPrompt, Revision, SftExample
from jobs.measure.data import Data, Example, Pair, PrincipleText, Prompt

_EXAMPLES = {"sft.jsonl": "sft", "held_out_sft.jsonl": "held_out"}
_PAIRS = {"pairs.jsonl": "dpo", "held_out_pairs.jsonl": "held_out"}
_SHOWN = (
    "stage",
    "run",
    "finished",
    "wall_s",
    "counts",
    "tokens",
    "cost_usd",
    "funnel",
    "seed",
    "git_commit",
)


def read_run(folder: Path, constitution: Constitution | None) -> Data:
    """Read the files of a data stage, finished or not.

    Args:
        folder: the stage's folder.
        constitution: whose principles the rows belong to, where it is known.

    Raises:
        DataError: a file is missing or damaged; names file and line.
    """
    ledger = {row.id: row for row in read_records(folder / "prompts.jsonl", RedTeamPrompt)}
    chains = {row.id: row for row in _optional(folder / "revisions.jsonl", Revision)}
    dropped: Counter[str] = Counter(row.drop_reason for row in _optional(folder / "dropped.jsonl", Dropped))
    examples = [
        _example(row, split, ledger, chains)
        for name, split in _EXAMPLES.items()
        for row in _records(folder / name, SftExample, is_needed=split == "sft")
    ]
    pairs = [
        _pair(row, split)
        for name, split in _PAIRS.items()
        for row in _records(folder / name, PreferencePair, is_needed=split == "dpo")
    ]
    run = folder.resolve().parent.name
    return Data(
        name=f"{run}/{folder.name}",
        prompts=[_prompt(row) for row in ledger.values()],
        examples=examples,
        pairs=pairs,
        principles=[PrincipleText(one.id, one.title, one.text) for one in constitution.principles]
        if constitution
        else [],
        demonstrations=_demonstrations(constitution),
        dropped=dict(dropped),
        datasheet={"run": run, **_sheet(folder, constitution)},
        language=constitution.language if constitution else "en",
        constitution=constitution.name if constitution else "",
    )


def _prompt(row: RedTeamPrompt) -> Prompt:
    return Prompt(
        id=row.id, principle_id=row.principle_id, text=row.prompt, split=row.split, kind=row.kind,
        twin_of=row.twin_of, language=row.language, cluster=row.cluster,
    )  # fmt: skip


def _example(row: SftExample, split: str, ledger: dict[str, RedTeamPrompt], chains: dict[str, Revision]) -> Example:
    chain, source = chains.get(row.id), ledger.get(row.id)
    return Example(
        id=row.id, principle_id=row.principle_id, prompt=row.prompt, completion=row.completion, split=split,
        kind=row.kind, language=row.language, source_prompt=source.prompt if source else "",
        initial=chain.initial_response if chain else "", critique=chain.critique if chain else "",
    )  # fmt: skip


def _pair(row: PreferencePair, split: str) -> Pair:
    return Pair(
        id=row.id, principle_id=row.principle_id, prompt=row.prompt, chosen=row.chosen, rejected=row.rejected,
        split=split, kind=row.kind, language=row.language, probability=row.preference_probability,
    )  # fmt: skip


def _records(path: Path, model: Any, *, is_needed: bool) -> list[Any]:
    return read_records(path, model) if is_needed or path.exists() else []


def _optional(path: Path, model: Any) -> list[Any]:
    return _records(path, model, is_needed=False)


def _demonstrations(constitution: Constitution | None) -> list[str]:
    shown = constitution.few_shot if constitution else []
    return [text for one in shown for text in (one.prompt, one.initial_response, one.critique, one.revision)]


def _sheet(folder: Path, constitution: Constitution | None) -> dict[str, Any]:
    """What the stage's manifest says of models, tokens and cost; empty while it is not finished."""
    path = folder / "manifest.json"
    manifest = read_json(path) if path.exists() else {}
    sheet = {name: manifest[name] for name in _SHOWN if name in manifest}
    recipe = manifest.get("recipe") or {}
    models = {part: recipe[part].get("model") for part in ("teacher", "initial", "judge") if recipe.get(part)}
    if constitution:
        sheet |= {"constitution": constitution.name, "constitution_sha256": constitution.sha256}
    return sheet | ({"models": models} if models else {})
