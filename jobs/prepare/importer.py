"""Import data that others made, as a finished generate stage: `cai import`.

Takes the original authors' three JSON files (import_original.py), and any number of JSONL, JSON and parquet files or
folders of them (import_files.py, import_rows.py). Prompts are clustered and split here (import_split.py), so that every
later stage has its ledger; a row that cannot be trusted is named in dropped.jsonl, never mended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jobs.common.console import say
from jobs.common.errors import ConfigError, DataError
from jobs.common.held_out import HeldOutPrompt
from jobs.common.jsonl import sha256_file, write_records
from jobs.common.records import PreferencePair, RedTeamPrompt, Revision, SftExample, Split
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan, open_stage
from jobs.prepare.import_files import SourceFile, source_files
from jobs.prepare.import_found import VERSION, Found
from jobs.prepare.import_original import read_original
from jobs.prepare.import_rows import read_file
from jobs.prepare.import_split import split_prompts

RULES = 3
"""Raised when the same sources give other rows."""

Trained = TypeVar("Trained", SftExample, PreferencePair)


@dataclass(frozen=True)
class Sources:
    """What is imported: the original's three files together, other files and folders, or both."""

    red_team: Path | None = None
    sft: Path | None = None
    preferences: Path | None = None
    others: tuple[Path, ...] = ()
    """Files (.jsonl, .json, .parquet), or folders of them such as the snapshot of a Hub dataset."""

    @property
    def original(self) -> tuple[Path, ...]:
        """The original's three files, or none.

        Raises:
            ConfigError: only some of them were given.
            DataError: one is not there.
        """
        given = {"--red-team": self.red_team, "--sft": self.sft, "--preferences": self.preferences}
        if missing := [name for name, path in given.items() if path is None]:
            if len(missing) == len(given):
                return ()
            raise ConfigError(f"cai import: {', '.join(missing)} missing; the original's three files belong together.")
        if absent := [str(path) for path in given.values() if path and not path.is_file()]:
            raise DataError(f"{', '.join(absent)}: no such file.")
        return tuple(path for path in given.values() if path)


def import_data(context: RunContext, sources: Sources) -> None:
    """Write the generate stage of a run from its sources.

    Raises:
        ConfigError: no source was given, or one or two of the original's three files.
        DataError: a file has another shape, a key points past the constitution, or every row was dropped.
    """
    original, files = sources.original, source_files(sources.others)
    if not original and not files:
        raise ConfigError(
            "cai import: nothing to import. Give files or folders, or --red-team, --sft and --preferences."
        )
    recipe = context.recipe
    hashes = _hashes(original, files)
    ingredients = {
        "import": hashes,
        "rules": RULES,
        "constitution": context.constitution().sha256,
        "shares": [recipe.generate.held_out_fraction, recipe.generate.sft_fraction, recipe.seed],
        "held_out_principles": sorted(recipe.generate.held_out_principles),
    }
    with open_stage(context, StagePlan("generate", ingredients, parents=(), lock="cpu")) as stage:
        if stage is None:
            return
        found = _read(context, original, files)
        enough = found.examples and found.pairs if original else found.examples or found.pairs
        if not enough:
            reasons = _reasons(Counter(row.drop_reason for row in found.dropped))
            first = f" First: {found.dropped[0].detail}." if found.dropped else ""
            raise DataError(f"{', '.join(hashes)}: nothing left to train on; dropped: {reasons or 'nothing'}.{first}")
        _write(stage, found, split_prompts(found, recipe))


def _hashes(original: tuple[Path, ...], files: Sequence[SourceFile]) -> dict[str, str]:
    named = dict(zip(("red_team", "sft", "preferences"), original, strict=False))
    hashes = {name: sha256_file(path) for name, path in named.items()}
    for file in files:
        name, number = file.name, 2
        while name in hashes:  # two folders may hold files of one name
            name, number = f"{file.name} ({number})", number + 1
        hashes[name] = sha256_file(file.path)
    return hashes


def _read(context: RunContext, original: tuple[Path, ...], files: Sequence[SourceFile]) -> Found:
    found, constitution = Found(), context.constitution()
    if original:
        read_original(found, constitution, *original)
    principles = {principle.id for principle in constitution.principles}
    for file in files:
        read_file(found, file, principles)
    return found


def _write(stage: OpenStage, found: Found, prompts: list[RedTeamPrompt]) -> None:
    splits: dict[str, Split] = {prompt.id: prompt.split for prompt in prompts}

    def of(rows: Sequence[Trained], split: Split) -> list[Trained]:
        return [row for row in rows if splits[row.id] == split]

    files: dict[str, Sequence[Any]] = {
        "prompts.jsonl": prompts,
        "revisions.jsonl": [Revision.model_validate(it | {"split": splits[it["id"]]}) for it in found.chains],
        "sft.jsonl": of(found.examples, "sft"),
        "pairs.jsonl": of(found.pairs, "dpo"),
        "held_out.jsonl": [_held_out(prompt) for prompt in prompts if prompt.split == "held_out"],
        "held_out_sft.jsonl": of(found.examples, "held_out"),
        "held_out_pairs.jsonl": of(found.pairs, "held_out"),
        "comparisons.jsonl": [],
        "dropped.jsonl": found.dropped,
        "failures.jsonl": [],
    }
    for name, rows in files.items():
        write_records(stage.folder / name, rows)
    found.say_dropped()
    counts = {name.removesuffix(".jsonl"): len(rows) for name, rows in files.items()} | {
        "sft_rows_of_dpo_prompts": len(of(found.examples, "dpo")),
        "pairs_of_sft_prompts": len(of(found.pairs, "sft")),
        "clusters": len({prompt.cluster for prompt in prompts}),
    }
    dropped = dict(Counter(row.drop_reason for row in found.dropped))
    stage.finish(Result(outputs=[stage.folder / name for name in files], counts=counts, dropped=dropped))
    for line in _told(counts, dropped):
        say(f"import: {line}")
    for name, stage_name in (("sft", "sft"), ("pairs", "dpo")):
        if not counts[name]:
            say(f"import: {name}.jsonl has no rows, so cai {stage_name} has nothing to train on")


def _told(counts: dict[str, int], dropped: dict[str, int]) -> list[str]:
    """What was imported, in sentences."""
    lines = [
        f"{counts['prompts']:,} prompts in {counts['clusters']:,} clusters, {counts['held_out']:,} of them held out",
        f"{counts['sft']:,} rows for SFT, {counts['pairs']:,} pairs for DPO, {counts['revisions']:,} whole chains",
    ]
    if kept_back := counts["sft_rows_of_dpo_prompts"] + counts["pairs_of_sft_prompts"]:
        lines.append(f"{kept_back:,} left out, because the other stage trains on their prompts")
    return [*lines, f"{sum(dropped.values()):,} dropped: {_reasons(dropped)}" if dropped else "no row was dropped"]


def _reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in dropped.items())


def _held_out(prompt: RedTeamPrompt) -> HeldOutPrompt:
    return HeldOutPrompt(
        id=prompt.id, principle_id=prompt.principle_id, prompt=prompt.prompt, model=VERSION, prompt_version=VERSION
    )
