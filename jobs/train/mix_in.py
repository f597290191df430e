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
from jobs.common.settings import DpoSettings, MixInSettings, SftSettings
from jobs.common.stage import RunContext
from jobs.common.table_files import NotJson, records, row_numbers
from jobs.train.examples import Messages, Row, odd_turn, user_texts
from jobs.train.fitted import Fitted, Measured, gathered, measured

MOST_DRAWN = 10_000
"""Most rows drawn at once in place of others; a pass over the file brings them all."""


@dataclass(frozen=True)
class MixIns:
    """What the mix-ins of one stage are drawn from."""

    context: RunContext
    fetched: Fetched
    section: str
    """`sft` or `dpo`."""
    ledger: Ledger
    """The run's own prompts: the held-out ones are not trained."""

    @property
    def settings(self) -> SftSettings | DpoSettings:
        """The section's settings."""
        found: SftSettings | DpoSettings = getattr(self.context.recipe, self.section)
        return found


def mixed_rows(mix_ins: MixIns, own: int, tokenizer: Any) -> Fitted:
    """Rows of every mix-in of a section: `weight` times as many as our own, drawn with the seed and measured.

    For a row that cannot be trained (it does not fit, has a held-out prompt or nearly so, no answer, the same answer on
    both sides, or turns that no template has) another is drawn.

    Args:
        mix_ins: where they come from.
        own: how many rows of our own are trained.
        tokenizer: the student's.

    Raises:
        ConfigError: a mix-in that fetch did not bring.
        DataError: a file is damaged, or a row has none of the known shapes.
    """
    found: list[Measured | Dropped] = []
    for settings in mix_ins.settings.mix_in:
        wanted = round(settings.weight * own)
        drawn = _drawn(mix_ins, settings, wanted, tokenizer)
        if (taken := _count(drawn)) < wanted:
            lacking = f"{wanted} rows wanted (weight {settings.weight:g}), {taken} of its {len(drawn)} can be trained"
            say(f"mix_in {settings.dataset} ({settings.split}): {lacking}")
        found += drawn
    return gathered(found)


def _drawn(mix_ins: MixIns, settings: MixInSettings, wanted: int, tokenizer: Any) -> list[Measured | Dropped]:
    """Rows one after another, until as many as wanted can be trained."""
    path = _file(mix_ins, settings)
    left = _shuffled(path, settings, mix_ins.context.recipe.seed)
    found: list[Measured | Dropped] = []
    while left and (missing := wanted - _count(found)) > 0:
        size = max(missing, min(len(found), MOST_DRAWN))  # growing, so that few passes over the file are enough
        drawn, left = left[:size], left[size:]
        for row in read_rows(path, mix_ins.section, settings, drawn):
            found.append(row if isinstance(row, Dropped) else _checked(row, mix_ins, tokenizer))
            missing -= isinstance(found[-1], Measured)
            if not missing:
                return found
    return found


def _count(found: Sequence[Measured | Dropped]) -> int:
    return sum(isinstance(it, Measured) for it in found)


def read_rows(path: Path, section: str, settings: MixInSettings, numbers: Sequence[int]) -> list[Row | Dropped]:
    """The rows of one file with these numbers (from 1), in that order, in the shape a section trains on.

    A conversation ends at its last answer; without any answer it is dropped.
    """
    found = {
        number: _row(record, f"mix_in:{settings.dataset}:{number}", section, f"{path}:{number}")
        for number, record in records(path, set(numbers))
    }
    return [found[number] for number in numbers]


def _shuffled(path: Path, settings: MixInSettings, seed: int) -> list[int]:
    numbers = row_numbers(path)
    return random.Random(f"{seed}:{settings.dataset}:{settings.split}").sample(numbers, len(numbers))


def _checked(row: Row, mix_ins: MixIns, tokenizer: Any) -> Measured | Dropped:
    if odd := next(filter(None, (odd_turn(row.prompt + answer) for answer in row.answers.values())), None):
        return row.drop("odd_turns", odd)
    given = [turn for answer in row.answers.values() for turn in answer]
    answers = [turn["content"] for turn in given if turn["role"] == "assistant"]
    if not all(answers):
        return row.drop("empty_answer", "an answer without text")
    if len(row.answers) == 2 and answers[0] == answers[1]:
        return row.drop("same_answer", "chosen and rejected are the same text")
    if hit := mix_ins.ledger.held_out_hit(user_texts(row.prompt + given)):
        return row.drop("held_out_prompt", f"its prompt {hit}")
    return measured(row, tokenizer, mix_ins.settings.max_length)


def _file(mix_ins: MixIns, settings: MixInSettings) -> Path:
    context = mix_ins.context
    again = f"Run: {context.command('fetch', '--redo')}"
    found = mix_ins.fetched.mix_in.get(mix_in_key(settings.dataset, settings.revision, settings.split))
    if found is None:
        raise ConfigError(f"mix_in {settings.dataset} ({settings.split}) was not fetched. {again}")
    path = resolve(context.runs, found.path)
    if not path.exists() or sha256_file(path) != found.sha256:
        raise DataError(f"{path} (mix_in) {'changed since' if path.exists() else 'is missing after'} fetch. {again}")
    return path


def _row(record: Any, row_id: str, section: str, where: str) -> Row | Dropped:
    if isinstance(record, NotJson):
        raise DataError(f"{where}: not JSON ({record.why}).")
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object, found {type(record).__name__}.")
    prompt, answers = _conversation(record, where) if section == "sft" else _sides(record, where)
    row = Row(row_id, "mix_in", prompt, answers, record)
    if not prompt or any([turn["role"] for turn in answer][-1:] != ["assistant"] for answer in answers.values()):
        return row.drop("no_answer", "no message of the assistant ends it, after at least one other")
    return row


def _conversation(record: dict[str, Any], where: str) -> tuple[Messages, dict[str, Messages]]:
    """A conversation up to its last answer: what comes before its first answer, and what comes after."""
    if not ("messages" in record or {"prompt", "completion"} <= record.keys()):
        raise _strange(record, "sft", "messages, or prompt and completion", where)
    turns = _messages(record.get("messages") or [], "user", where)
    if not turns:
        turns = _messages(record.get("completion") or [], "assistant", where)
        if not turns or turns[0]["role"] == "assistant":  # no whole conversation
            turns = _messages(record.get("prompt") or [], "user", where) + turns
    answered = [at for at, turn in enumerate(turns) if at > 0 and turn["role"] == "assistant"]
    first, end = (answered[0], answered[-1] + 1) if answered else (0, 0)
    return turns[:first], {"completion": turns[first:end]}


def _sides(record: dict[str, Any], where: str) -> tuple[Messages, dict[str, Messages]]:
    """Prompt and both answers of a pair; of whole conversations, what comes before the last turn is the prompt."""
    names = ("chosen", "rejected")
    if not set(names) <= record.keys():
        raise _strange(record, "dpo", "prompt, chosen and rejected", where)
    prompt = _messages(record.get("prompt") or [], "user", where)
    answers = {name: _messages(record[name] or [], "assistant", where) for name in names}
    if not prompt or any(len(answer) > 1 for answer in answers.values()):
        prompt = answers["chosen"][:-1]
        answers = {name: answer[-1:] for name, answer in answers.items()}
    return prompt, answers


def _strange(record: dict[str, Any], section: str, shapes: str, where: str) -> DataError:
    return DataError(f"{where}: a mix-in row for {section} needs {shapes}; found {', '.join(sorted(record))}.")


def _messages(value: Any, role: str, where: str) -> Messages:
    if isinstance(value, str):
        return [_message(role, value)]
    try:
        return [_message(str(it["role"]), str(it["content"])) for it in value]
    except (TypeError, KeyError) as error:
        raise DataError(f"{where}: expected text or a list of messages with role and content.") from error


def _message(role: str, content: str) -> dict[str, str]:
    # White space around an answer is no part of it, and a tokenizer may join it to the turn's own line break.
    return {"role": role, "content": content.strip() if role == "assistant" else content}
