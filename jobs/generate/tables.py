"""The files the stage leaves: JSONL for our own jobs, parquet for everyone else.

`data/{train_sft,test_sft,train_prefs,test_prefs}.parquet` have exactly the columns and types of the Hub dataset
HuggingFaceH4/cai-conversation-harmless, then ours, so that every recipe written for it reads ours. `test_*` hold the
held-out chains and are for evaluation only.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobs.common.jsonl import write_atomic, write_records
from jobs.common.records import Dropped, Failure, HeldOutPrompt, PreferencePair, RedTeamPrompt, Revision, SftExample

TEXT_COLUMNS = (
    "init_prompt",
    "init_response",
    "critic_prompt",
    "critic_response",
    "revision_prompt",
    "revision_response",
    "prompt",
)
CHAT_COLUMNS = ("messages", "chosen", "rejected")
OUR_COLUMNS = ("id", "principle_id", "split", "initial_model", "model", "prompt_version")


def write_rows(folder: Path, prompts: list[RedTeamPrompt], kept: list[Revision]) -> list[Path]:
    """Write every output made of kept chains and held-out prompts, and return the paths."""
    held_out = [revision for revision in kept if revision.split == "held_out"]
    records: dict[str, Sequence[BaseModel]] = {
        "revisions.jsonl": kept,
        "sft.jsonl": [sft_example(revision) for revision in kept if revision.split == "sft"],
        "pairs.jsonl": [preference_pair(revision) for revision in kept if revision.split == "dpo"],
        "held_out.jsonl": [held_out_prompt(prompt) for prompt in prompts if prompt.split == "held_out"],
        "held_out_sft.jsonl": [sft_example(revision) for revision in held_out],
        "held_out_pairs.jsonl": [preference_pair(revision) for revision in held_out],
    }
    for name, rows in records.items():
        write_records(folder / name, rows)
    return [folder / "prompts.jsonl", *(folder / name for name in records), *_write_parquet(folder / "data", kept)]


def write_leftovers(folder: Path, dropped: list[Dropped], failures: list[Failure]) -> list[Path]:
    """Write dropped.jsonl and failures.jsonl, and return the paths."""
    write_records(folder / "dropped.jsonl", dropped)
    write_records(folder / "failures.jsonl", failures)
    return [folder / "dropped.jsonl", folder / "failures.jsonl"]


def sft_example(revision: Revision) -> SftExample:
    """The supervised example of a chain: prompt and revision."""
    return SftExample(
        id=revision.id,
        principle_id=revision.principle_id,
        prompt=revision.prompt,
        completion=revision.revision,
        model=revision.model,
        prompt_version=revision.prompt_version,
    )


def preference_pair(revision: Revision) -> PreferencePair:
    """The preference pair of a chain: revision before initial response."""
    return PreferencePair(
        id=revision.id,
        principle_id=revision.principle_id,
        prompt=revision.prompt,
        chosen=revision.revision,
        rejected=revision.initial_response,
        model=revision.model,
        rejected_model=revision.initial_model,
        prompt_version=revision.prompt_version,
    )


def held_out_prompt(prompt: RedTeamPrompt) -> HeldOutPrompt:
    """A held-out prompt without its split."""
    return HeldOutPrompt(
        id=prompt.id,
        principle_id=prompt.principle_id,
        prompt=prompt.prompt,
        model=prompt.model,
        prompt_version=prompt.prompt_version,
    )


def table_row(revision: Revision) -> dict[str, Any]:
    """One parquet row."""
    chosen = _chat(revision.prompt, revision.revision)
    return {
        "init_prompt": revision.prompt,
        "init_response": revision.initial_response,
        "critic_prompt": revision.critique_request,
        "critic_response": revision.critique,
        "revision_prompt": revision.revision_request,
        "revision_response": revision.revision,
        "prompt": revision.prompt,
        "messages": chosen,
        "chosen": chosen,
        "rejected": _chat(revision.prompt, revision.initial_response),
        "id": revision.id,
        "principle_id": revision.principle_id,
        "split": revision.split,
        "initial_model": revision.initial_model,
        "model": revision.model,
        "prompt_version": revision.prompt_version,
    }


def _chat(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"content": prompt, "role": "user"}, {"content": answer, "role": "assistant"}]


def _write_parquet(folder: Path, kept: list[Revision]) -> list[Path]:
    import datasets

    datasets.disable_progress_bars()
    text = datasets.Value("string")
    columns: dict[str, Any] = dict.fromkeys(TEXT_COLUMNS, text)
    columns |= {name: [{"content": text, "role": text}] for name in CHAT_COLUMNS}
    columns |= dict.fromkeys(OUR_COLUMNS, text)
    files = {"train_sft": "sft", "test_sft": "held_out", "train_prefs": "dpo", "test_prefs": "held_out"}
    paths = []
    for name, split in files.items():
        rows = [table_row(revision) for revision in kept if revision.split == split]
        table = datasets.Dataset.from_dict(
            {column: [row[column] for row in rows] for column in columns}, features=datasets.Features(columns)
        )
        buffer = io.BytesIO()
        table.to_parquet(buffer)
        write_atomic(folder / f"{name}.parquet", buffer.getvalue())
        paths.append(folder / f"{name}.parquet")
    return paths
