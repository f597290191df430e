"""Mix-in datasets: rows of other people's data, sampled with the seed, never a test split or a held-out prompt."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.console import say
from jobs.common.errors import ConfigError, DataError
from jobs.common.fetched import Fetched, mix_in_key, resolve
from jobs.common.jsonl import sha256_file
from jobs.common.ledger import Ledger
from jobs.common.records import Dropped
from jobs.common.settings import MixInSettings
from jobs.common.stage import RunContext
from jobs.common.table_files import NotJson, records
from jobs.train.examples import Messages, Row, said, user_texts


@dataclass(frozen=True)
class Mixed:
    """Rows of the mix-ins of one stage."""

    rows: list[Row]
    refused: list[Dropped]
    """Rows that hold a held-out prompt, or nearly so."""


ANSWERS = {"sft": ("completion",), "dpo": ("chosen", "rejected")}


def mixed_rows(context: RunContext, fetched: Fetched, section: str, own: Sequence[Row], ledger: Ledger) -> Mixed:
    """Rows of every mix-in of a section, and the rows refused because they hold a held-out prompt, or nearly so.

    Raises:
        ConfigError: a test split, or a mix-in that fetch did not bring.
        DataError: a file is damaged, or a row has none of the known shapes.
    """
    rows: list[Row] = []
    refused: list[Dropped] = []
    for settings in getattr(context.recipe, section).mix_in:
        clean: list[Row] = []
        for row in read_rows(_file(context, fetched, settings), section, settings):
            if hit := ledger.held_out_hit(user_texts(row.prompt)):
                refused.append(row.drop("held_out_prompt", f"its prompt {hit}"))
            else:
                clean.append(row)
        rows += _sample(clean, settings, len(own), context.recipe.seed)
    return Mixed(rows, refused)


def read_rows(path: Path, section: str, settings: MixInSettings) -> list[Row]:
    """Every row of one file, in the shape a section trains on."""
    return [
        _row(record, f"mix_in:{settings.dataset}:{number}", section, f"{path}:{number}")
        for number, record in _whole(path)
    ]


def _file(context: RunContext, fetched: Fetched, settings: MixInSettings) -> Path:
    if "test" in settings.split:
        raise ConfigError(
            f"mix_in {settings.dataset}: split {settings.split!r} is a test split; training on it is refused."
        )
    again = f"Run: {context.command('fetch', '--redo')}"
    found = fetched.mix_in.get(mix_in_key(settings.dataset, settings.revision, settings.split))
    if found is None:
        raise ConfigError(f"mix_in {settings.dataset} ({settings.split}) was not fetched. {again}")
    path = resolve(context.runs, found.path)
    if not path.exists() or sha256_file(path) != found.sha256:
        raise DataError(f"{path} (mix_in) {'changed since' if path.exists() else 'is missing after'} fetch. {again}")
    return path


def _sample(rows: list[Row], settings: MixInSettings, own: int, seed: int) -> list[Row]:
    wanted = round(settings.weight * own)
    if wanted > len(rows):
        say(f"mix_in {settings.dataset}: {wanted} rows wanted (weight {settings.weight}), all {len(rows)} taken")
        return rows
    return random.Random(f"{seed}:{settings.dataset}:{settings.split}").sample(rows, wanted)


def _whole(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, record in records(path):
        if isinstance(record, NotJson):
            raise DataError(f"{path}:{number}: not JSON ({record.why}).")
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: expected an object, found {type(record).__name__}.")
        yield number, record


def _row(record: dict[str, Any], row_id: str, section: str, where: str) -> Row:
    names = ANSWERS[section]
    if section == "sft" and record.get("messages"):
        conversation = _messages(record["messages"], "user", where)
        prompt, answers = conversation[:-1], {"completion": conversation[-1:]}
    elif all(record.get(name) for name in names):
        prompt = _messages(record.get("prompt") or [], "user", where)
        answers = {name: _messages(record[name], "assistant", where) for name in names}
        if not prompt or any(len(answer) > 1 for answer in answers.values()):
            # Whole conversations on both sides: what comes before the last turn is the prompt.
            prompt = answers[names[0]][:-1]
            answers = {name: answer[-1:] for name, answer in answers.items()}
    else:
        shapes = "messages, or prompt and completion" if section == "sft" else "prompt, chosen and rejected"
        raise DataError(f"{where}: a mix-in row for {section} needs {shapes}; found {', '.join(sorted(record))}.")
    if not prompt or any(answer[-1]["role"] != "assistant" for answer in answers.values()):
        raise DataError(f"{where}: the last message must be the assistant's, after at least one other.")
    return Row(row_id, "mix_in", prompt, answers, record)


def _messages(value: Any, role: str, where: str) -> Messages:
    if isinstance(value, str):
        return said(role, value)
    try:
        return [{"role": str(message["role"]), "content": str(message["content"])} for message in value]
    except (TypeError, KeyError) as error:
        raise DataError(f"{where}: expected text or a list of messages with role and content.") from error
