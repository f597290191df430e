"""Mix-in datasets: rows of other people's data, sampled with the seed, never a test split or a held-out prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence
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
from jobs.common.table_files import NotJson, records, row_numbers
from jobs.train.examples import Messages, Row, said, user_texts


@dataclass(frozen=True)
class Mixed:
    """Rows of the mix-ins of one stage."""

    rows: list[Row]
    refused: list[Dropped]
    """Rows that were drawn and must not be trained; others were drawn in their place."""


ANSWERS = {"sft": ("completion",), "dpo": ("chosen", "rejected")}


def mixed_rows(context: RunContext, fetched: Fetched, section: str, own: Sequence[Row], ledger: Ledger) -> Mixed:
    """Rows of every mix-in of a section: `weight` times as many as our own, drawn with the seed.

    A row with a held-out prompt (or nearly so), an empty answer, or the same answer on both sides is drawn again.

    Raises:
        ConfigError: a test split, or a mix-in that fetch did not bring.
        DataError: a file is damaged, or a row has none of the known shapes.
    """
    rows: list[Row] = []
    refused: list[Dropped] = []
    for settings in getattr(context.recipe, section).mix_in:
        path, wanted = _file(context, fetched, settings), round(settings.weight * len(own))
        left = _shuffled(path, settings, context.recipe.seed)
        taken: list[Row] = []
        while left and len(taken) < wanted:
            drawn, left = left[: wanted - len(taken)], left[wanted - len(taken) :]
            found = read_rows(path, section, settings, drawn)
            faults = [_fault(row, ledger) for row in found]
            refused += [fault for fault in faults if fault]
            taken += [row for row, fault in zip(found, faults, strict=True) if fault is None]
        if len(taken) < wanted:
            say(f"mix_in {settings.dataset}: {wanted} rows wanted (weight {settings.weight}), all {len(taken)} taken")
        rows += taken
    return Mixed(rows, refused)


def read_rows(path: Path, section: str, settings: MixInSettings, numbers: Sequence[int]) -> list[Row]:
    """The rows of one file with these numbers (from 1), in that order, in the shape a section trains on."""
    found = {
        number: _row(record, f"mix_in:{settings.dataset}:{number}", section, f"{path}:{number}")
        for number, record in records(path, set(numbers))
    }
    return [found[number] for number in numbers]


def _shuffled(path: Path, settings: MixInSettings, seed: int) -> list[int]:
    numbers = row_numbers(path)
    return random.Random(f"{seed}:{settings.dataset}:{settings.split}").sample(numbers, len(numbers))


def _fault(row: Row, ledger: Ledger) -> Dropped | None:
    answers = [answer[-1]["content"].strip() for answer in row.answers.values()]
    if not all(answers):
        return row.drop("empty_answer", "an answer without text")
    if len(answers) == 2 and answers[0] == answers[1]:
        return row.drop("same_answer", "chosen and rejected are the same text")
    hit = ledger.held_out_hit(user_texts(row.prompt))
    return row.drop("held_out_prompt", f"its prompt {hit}") if hit else None


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


def _row(record: Any, row_id: str, section: str, where: str) -> Row:
    if isinstance(record, NotJson):
        raise DataError(f"{where}: not JSON ({record.why}).")
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object, found {type(record).__name__}.")
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
