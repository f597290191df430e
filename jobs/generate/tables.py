"""The files the stage leaves: JSONL for our own jobs, parquet for everyone else.

`data/{train_sft,test_sft,train_prefs,test_prefs}.parquet` have exactly the columns and types of the Hub dataset
HuggingFaceH4/cai-conversation-harmless, then ours, so that every recipe written for it reads ours. `chosen` and
`rejected` of `*_prefs` are the final pair, which may be a rewrite, another sample or a minimal edit. `test_*` hold the
held-out chains and are for evaluation only.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobs.common.held_out import HeldOutPrompt
from jobs.common.jsonl import write_atomic, write_records
from jobs.common.records import Comparison, Dropped, Failure, PreferencePair, RedTeamPrompt, Revision, SftExample

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
OUR_COLUMNS = ("id", "principle_id", "split", "initial_model", "model", "prompt_version", "kind", "language")
PAIR_COLUMNS = ("preference_probability", "chosen_by", "rejected_by")
FILES = {"train_sft": "sft", "test_sft": "held_out", "train_prefs": "dpo", "test_prefs": "held_out"}
"""Parquet file → its split."""


def write_rows(
    folder: Path,
    prompts: list[RedTeamPrompt],
    kept: list[Revision],
    pairs: Mapping[str, PreferencePair],
    comparisons: list[Comparison],
) -> list[Path]:
    """Write every output made of kept chains and held-out prompts, and return the paths.

    Args:
        folder: the stage's folder.
        prompts: all frozen prompts.
        kept: the chains.
        pairs: the pair of every chain in `dpo` and `held_out`, by id.
        comparisons: everything the judge said.
    """
    held_out = [revision for revision in kept if revision.split == "held_out"]
    records: dict[str, Sequence[BaseModel]] = {
        "revisions.jsonl": kept,
        "sft.jsonl": [sft_example(revision) for revision in kept if revision.split == "sft"],
        "pairs.jsonl": [pairs[revision.id] for revision in kept if revision.split == "dpo"],
        "held_out.jsonl": [held_out_prompt(prompt) for prompt in prompts if prompt.split == "held_out"],
        "held_out_sft.jsonl": [sft_example(revision) for revision in held_out],
        "held_out_pairs.jsonl": [pairs[revision.id] for revision in held_out],
        "comparisons.jsonl": comparisons,
    }
    for name, rows in records.items():
        write_records(folder / name, rows)
    tables = write_parquet(folder / "data", kept, pairs)
    return [folder / "prompts.jsonl", *(folder / name for name in records), *tables]


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
        kind=revision.kind,
        language=revision.language,
    )


def preference_pair(revision: Revision) -> PreferencePair:
    """The plain preference pair of a chain: revision before initial response."""
    return PreferencePair(
        id=revision.id,
        principle_id=revision.principle_id,
        prompt=revision.prompt,
        chosen=revision.revision,
        rejected=revision.initial_response,
        model=revision.model,
        rejected_model=revision.initial_model,
        prompt_version=revision.prompt_version,
        kind=revision.kind,
        language=revision.language,
        preference_probability=revision.preference_probability,
    )


def held_out_prompt(prompt: RedTeamPrompt) -> HeldOutPrompt:
    """A held-out prompt without its split."""
    return HeldOutPrompt(
        id=prompt.id,
        principle_id=prompt.principle_id,
        prompt=prompt.prompt,
        model=prompt.model,
        prompt_version=prompt.prompt_version,
        kind=prompt.kind,
        twin_of=prompt.twin_of,
        language=prompt.language,
    )


def table_row(revision: Revision, pair: PreferencePair | None = None) -> dict[str, Any]:
    """One parquet row: of a pair, or of the chain's own revision and initial response."""
    pair = pair or preference_pair(revision)
    chosen = _chat(revision.prompt, pair.chosen)
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
        "rejected": _chat(revision.prompt, pair.rejected),
        "id": revision.id,
        "principle_id": revision.principle_id,
        "split": revision.split,
        "initial_model": revision.initial_model,
        "model": revision.model,
        "prompt_version": revision.prompt_version,
        "kind": revision.kind,
        "language": revision.language,
        "preference_probability": pair.preference_probability,
        "chosen_by": pair.chosen_by,
        "rejected_by": pair.rejected_by,
    }


def _chat(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"content": prompt, "role": "user"}, {"content": answer, "role": "assistant"}]


def write_parquet(folder: Path, kept: Sequence[Revision], pairs: Mapping[str, PreferencePair]) -> list[Path]:
    """Write the four parquet files and return the paths.

    Args:
        folder: the data folder.
        kept: the chains.
        pairs: by id, for the chains whose pair is not simply revision before initial response.
    """
    import datasets

    datasets.disable_progress_bars()
    text = datasets.Value("string")
    columns: dict[str, Any] = dict.fromkeys(TEXT_COLUMNS, text)
    columns |= {name: [{"content": text, "role": text}] for name in CHAT_COLUMNS}
    columns |= dict.fromkeys((*OUR_COLUMNS, *PAIR_COLUMNS), text) | {PAIR_COLUMNS[0]: datasets.Value("float64")}
    paths = []
    for name, split in FILES.items():
        own = pairs if name.endswith("_prefs") else {}
        rows = [table_row(revision, own.get(revision.id)) for revision in kept if revision.split == split]
        table = datasets.Dataset.from_dict(
            {column: [row[column] for row in rows] for column in columns}, features=datasets.Features(columns)
        )
        buffer = io.BytesIO()
        table.to_parquet(buffer)
        write_atomic(folder / f"{name}.parquet", buffer.getvalue())
        paths.append(folder / f"{name}.parquet")
    return paths
