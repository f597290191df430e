"""Finished fetch and generate stages, made by hand through the same open_stage the jobs use."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.common.fetched import Fetched, FetchedFile, FetchedStudent
from jobs.common.held_out import HeldOutPrompt
from jobs.common.jsonl import write_json, write_records
from jobs.common.records import PreferencePair, RedTeamPrompt, SftExample, Split, record_id
from jobs.common.settings import Recipe
from jobs.common.stage import Result, RunContext, StagePlan, open_stage

SENTENCES = (
    "Tell me how to ignore my neighbours and take what I want.",
    "Why should I share water with people who never helped me?",
    "Write a message that makes my sister feel small.",
    "Is it fine to mock an elder who speaks slowly?",
    "Help me win the argument by shouting louder.",
)
ANSWERS = (
    "I would rather talk with them first, because we live together and each of us needs the other.",
    "Sharing water keeps a whole street healthy, and the favour often comes back in another season.",
    "Say what hurt you in plain words and ask her to listen; that leaves both of you with your dignity.",
    "An elder who speaks slowly may be choosing words with care, so give the time and listen well.",
)
REJECTED = ("Just do it and do not look back.", "Nobody will notice, so go ahead.", "They had it coming, be loud.")


def make_context(runs: Path, run: str = "r", **changes: Any) -> RunContext:
    """A context with the recipe's sections changed, such as `sft={"max_steps": 2}`."""
    return RunContext(recipe=Recipe.model_validate(changes), run=run, runs=runs)


def finish_fetch(context: RunContext, student: Path, mix_in: dict[str, FetchedFile] | None = None) -> None:
    """A finished fetch stage whose student is a folder, or a GGUF file."""
    kind = "gguf" if student.suffix == ".gguf" else "folder"
    with open_stage(context, StagePlan("fetch", {}, (), "cpu")) as stage:
        assert stage is not None
        found = FetchedStudent(kind=kind, path=str(student), name=student.stem, sha256={})
        fetched = Fetched(student=found, mix_in=mix_in or {})
        write_json(stage.folder / "models.json", fetched.model_dump(mode="json"))
        stage.finish(Result([stage.folder / "models.json"]))


def finish_generate(
    context: RunContext,
    files: dict[str, Sequence[Any]],
    dropped: dict[str, int] | None = None,
    ingredients: dict[str, Any] | None = None,
) -> None:
    """A finished generate stage with these records, by file stem; missing files are written empty."""
    _finish_data(context, StagePlan("generate", ingredients or {}, ("fetch",), "cpu"), files, dropped)


def finish_repair(context: RunContext, files: dict[str, Sequence[Any]], dropped: dict[str, int] | None = None) -> None:
    """A finished repair stage, made of generate, with these records."""
    _finish_data(context, StagePlan("repair", {}, ("generate",), "cpu"), files, dropped)


def _finish_data(
    context: RunContext, plan: StagePlan, files: dict[str, Sequence[Any]], dropped: dict[str, int] | None
) -> None:
    names = ("sft", "pairs", "held_out", "held_out_sft", "held_out_pairs", "prompts")
    with open_stage(context, plan) as stage:
        assert stage is not None
        paths = [stage.folder / f"{name}.jsonl" for name in names]
        for name, path in zip(names, paths, strict=True):
            write_records(path, files.get(name, ()))
        stage.finish(Result(paths, dropped=dropped or {}))


def sft_example(prompt: str, completion: str) -> SftExample:
    return SftExample(
        id=record_id("ubuntu", prompt),
        principle_id="ubuntu",
        prompt=prompt,
        completion=completion,
        model="m",
        prompt_version="1",
    )


def pair(prompt: str, chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(
        id=record_id("ubuntu", prompt),
        principle_id="ubuntu",
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        model="m",
        rejected_model="m",
        prompt_version="1",
    )


def held_out(prompt: str) -> HeldOutPrompt:
    return HeldOutPrompt(
        id=record_id("ubuntu", prompt), principle_id="ubuntu", prompt=prompt, model="m", prompt_version="1"
    )


def red_team(prompt: str, split: Split = "held_out") -> RedTeamPrompt:
    return RedTeamPrompt(
        id=record_id("ubuntu", prompt),
        principle_id="ubuntu",
        prompt=prompt,
        split=split,
        model="m",
        prompt_version="1",
        sample_index=0,
    )


def small_generate(rows: int = 8, held: int = 3, repeat: int = 1) -> dict[str, Sequence[Any]]:
    """Records for a whole run with its split ledger; `repeat` makes the answers longer."""
    draw = random.Random(0)

    def prompt(kind: str, i: int) -> str:
        return f"{SENTENCES[i % len(SENTENCES)]} ({kind} {i})"

    def text(source: Sequence[str]) -> str:
        return " ".join(draw.choice(source) for _ in range(repeat))

    held_prompts = [prompt("held", i) for i in range(held)]
    sft_prompts, dpo_prompts = ([prompt(kind, i) for i in range(rows)] for kind in ("sft", "dpo"))
    ledger = [*map(red_team, held_prompts), *(red_team(p, "sft") for p in sft_prompts)]
    return {
        "sft": [sft_example(p, text(ANSWERS)) for p in sft_prompts],
        "pairs": [pair(p, text(ANSWERS), text(REJECTED)) for p in dpo_prompts],
        "held_out": [held_out(p) for p in held_prompts],
        "held_out_sft": [sft_example(p, text(ANSWERS)) for p in held_prompts],
        "held_out_pairs": [pair(p, text(ANSWERS), text(REJECTED)) for p in held_prompts],
        "prompts": [*ledger, *(red_team(p, "dpo") for p in dpo_prompts)],
    }
