"""Import data the original authors published, as a finished generate stage: `cai import`.

Their three JSON shapes (red-team prompts; critiques and revisions; preference pairs) share keys: `"3"` is the fourth
principle of their list, `"3_4"` its fifth prompt. Rows that cannot be trusted
are named in `dropped.jsonl`, never mended.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.console import say
from jobs.common.constitution import Constitution
from jobs.common.errors import DataError
from jobs.common.jsonl import sha256_file, write_records
from jobs.common.original import Row, read_red_team, read_rows
from jobs.common.records import (
    Dropped,
    HeldOutPrompt,
    PreferencePair,
    RedTeamPrompt,
    Revision,
    SftExample,
    Split,
    record_id,
)
from jobs.common.split import SplitShares, assign_splits
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan, open_stage

VERSION = "imported"
PREFERENCE_FIELDS = {"prompt": "prompt", "chosen": "chosen_response", "rejected": "rejected_response"}
SFT_FIELDS = {
    "prompt": "initial_prompt",
    "initial_response": "initial_response",
    "critique_request": "critique_prompt",
    "critique": "critique_response",
    "revision_request": "revision_prompt",
    "revision": "revision_response",
}


@dataclass(frozen=True)
class Sources:
    """The three files."""

    red_team: Path
    sft: Path
    preferences: Path


@dataclass(frozen=True)
class _Kept:
    prompts: dict[str, RedTeamPrompt]
    """By the original's key, such as `3_4`."""
    revisions: list[Revision]
    pairs: list[PreferencePair]
    dropped: list[Dropped]


def import_data(context: RunContext, sources: Sources) -> None:
    """Write the generate stage of a run from the three files.

    Raises:
        DataError: a file has another shape, a key points past the constitution, or every row was dropped.
    """
    constitution = context.constitution()
    recipe = context.recipe
    if missing := [str(path) for path in vars(sources).values() if not path.is_file()]:
        raise DataError(f"{', '.join(missing)}: no such file.")
    ingredients = {
        "import": {name: sha256_file(path) for name, path in vars(sources).items()},
        "constitution": constitution.sha256,
        "shares": [recipe.generate.held_out_fraction, recipe.generate.sft_fraction, recipe.seed],
    }
    plan = StagePlan("generate", ingredients, parents=("fetch",), lock="cpu")
    with open_stage(context, plan) as stage:
        if stage is None:
            return
        kept = _read(context, constitution, sources)
        if not kept.revisions or not kept.pairs:
            reasons = dict(Counter(dropped.drop_reason for dropped in kept.dropped))
            raise DataError(f"{sources.sft} and {sources.preferences}: nothing left to train on; dropped: {reasons}.")
        _write(stage, kept)


def _read(context: RunContext, constitution: Constitution, sources: Sources) -> _Kept:
    texts = read_red_team(sources.red_team)
    generate = context.recipe.generate
    principles = {key: _principle_id(constitution, key, sources.red_team) for key in texts}
    ids = {key: record_id(principles[key], text) for key, text in texts.items()}
    shares = SplitShares(generate.held_out_fraction, generate.sft_fraction, context.recipe.seed)
    splits = assign_splits(((principles[key], ids[key]) for key in texts), shares)
    # One text under two principles has two ids but one split: what is held out must not be trained under another id.
    by_text: dict[str, Split] = {}
    for key, text in texts.items():
        splits[ids[key]] = by_text.setdefault(text, splits[ids[key]])
    prompts = {
        key: RedTeamPrompt(
            id=ids[key], principle_id=principles[key], prompt=text, split=splits[ids[key]],
            model=VERSION, prompt_version=VERSION, sample_index=0,
        )
        for key, text in texts.items()
    }  # fmt: skip
    kept = _Kept(prompts, [], [], [])
    for row in read_rows(sources.sft, SFT_FIELDS):
        if prompt := _usable(row, kept):
            kept.revisions.append(_revision(prompt, row.texts))
    for row in read_rows(sources.preferences, PREFERENCE_FIELDS):
        if prompt := _usable(row, kept):
            kept.pairs.append(_pair(prompt, row.texts))
    return kept


def _shared(prompt: RedTeamPrompt) -> dict[str, str]:
    return {"id": prompt.id, "principle_id": prompt.principle_id, "model": VERSION, "prompt_version": VERSION}


def _pair(prompt: RedTeamPrompt, texts: dict[str, str]) -> PreferencePair:
    made = {"rejected_model": VERSION, "chosen_by": "imported", "rejected_by": "imported"}
    return PreferencePair.model_validate(_shared(prompt) | made | texts)


def _revision(prompt: RedTeamPrompt, texts: dict[str, str]) -> Revision:
    return Revision.model_validate(_shared(prompt) | {"split": prompt.split, "initial_model": VERSION} | texts)


def _principle_id(constitution: Constitution, key: str, path: Path) -> str:
    position = int(key.split("_")[0])
    if position >= len(constitution.principles):
        count = len(constitution.principles)
        raise DataError(
            f"{path}: key {position} is principle number {position + 1}, but {constitution.name} has {count}. "
            "Choose the constitution the data was made for: --set constitution=..."
        )
    return constitution.principles[position].id


def _usable(row: Row, kept: _Kept) -> RedTeamPrompt | None:
    """The red-team prompt a row belongs to, or None after noting why the row was dropped."""
    prompt = kept.prompts.get(row.key)
    reason, detail = _fault(row, prompt)
    if prompt is not None and reason is None:
        return prompt
    principle_id = prompt.principle_id if prompt else "unknown"
    kept.dropped.append(
        Dropped(
            id=prompt.id if prompt else row.key,
            principle_id=principle_id,
            drop_reason=reason or "unknown_key",
            detail=f"{row.path.name} {row.key}: {detail}",
            record=dict(row.texts),
        )
    )
    return None


def _fault(row: Row, prompt: RedTeamPrompt | None) -> tuple[str | None, str]:
    if prompt is None:
        return "unknown_key", "no red-team prompt has this key"
    if empty := [field for field, text in row.texts.items() if not text.strip()]:
        return "empty", f"empty {', '.join(empty)}"
    if row.texts["prompt"] == prompt.prompt:
        return None, ""
    detail = f"prompt {row.texts['prompt'][:80]!r} is not the red-team prompt {prompt.prompt[:80]!r}"
    same_words = re.findall(r"\w+", row.texts["prompt"].lower()) == re.findall(r"\w+", prompt.prompt.lower())
    return ("prompt_punctuation_differs" if same_words else "prompt_differs"), detail


def _write(stage: OpenStage, kept: _Kept) -> None:
    splits = {prompt.id: prompt.split for prompt in kept.prompts.values()}
    examples = [
        SftExample(
            id=row.id, principle_id=row.principle_id, prompt=row.prompt, completion=row.revision,
            model=VERSION, prompt_version=VERSION,
        )
        for row in kept.revisions
    ]  # fmt: skip
    held_out = [
        HeldOutPrompt(
            id=row.id, principle_id=row.principle_id, prompt=row.prompt, model=VERSION, prompt_version=VERSION
        )
        for row in kept.prompts.values()
        if row.split == "held_out"
    ]
    files: dict[str, list[Any]] = {
        "prompts.jsonl": list(kept.prompts.values()),
        "revisions.jsonl": kept.revisions,
        "sft.jsonl": [row for row in examples if splits[row.id] == "sft"],
        "pairs.jsonl": [row for row in kept.pairs if splits[row.id] == "dpo"],
        "held_out.jsonl": held_out,
        "held_out_sft.jsonl": [row for row in examples if splits[row.id] == "held_out"],
        "held_out_pairs.jsonl": [row for row in kept.pairs if splits[row.id] == "held_out"],
        "dropped.jsonl": kept.dropped,
        "failures.jsonl": [],
    }
    for name, rows in files.items():
        write_records(stage.folder / name, rows)
    dropped = dict(Counter(row.drop_reason for row in kept.dropped))
    for row in kept.dropped:
        say(f"import: dropped {row.drop_reason}: {row.detail}")
    counts = {name.removesuffix(".jsonl"): len(rows) for name, rows in files.items()}
    stage.finish(Result(outputs=[stage.folder / name for name in files], counts=counts, dropped=dropped))
    say(f"import: {counts}, dropped {dropped}")
