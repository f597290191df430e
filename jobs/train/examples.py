"""Training rows: from our records and from mix-ins to the conversational rows TRL takes, each with its id.

This is the only place that shapes data for TRL: `prompt` plus `completion` for SFT, `prompt` plus `chosen` and
`rejected` for DPO, all lists of chat messages with an explicit prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.common.data_stage import data_stage
from jobs.common.errors import DataError
from jobs.common.records import Dropped, PreferencePair, SftExample
from jobs.common.stage import RunContext, finished_manifest

Messages = list[dict[str, str]]

MAX_LOST = 0.05
"""Share of rows that may be dropped or cut before the stage stops."""


@dataclass(frozen=True)
class Row:
    """One training row."""

    id: str
    principle_id: str
    prompt: Messages
    """Everything before the answer; never trained."""
    answers: dict[str, Messages]
    """`completion`, or `chosen` and `rejected`; one assistant message each."""
    record: dict[str, Any]
    """The row as it was read, for dropped.jsonl."""

    @property
    def mixed_in(self) -> bool:
        """True for a row of somebody else's data."""
        return self.principle_id == "mix_in"

    def for_trl(self) -> dict[str, Any]:
        """What goes into the dataset."""
        return {"id": self.id, "prompt": self.prompt, **self.answers}

    def drop(self, reason: str, detail: str) -> Dropped:
        """This row as a dropped record."""
        return Dropped(
            id=self.id, principle_id=self.principle_id, drop_reason=reason, detail=detail, record=self.record
        )


@dataclass(frozen=True)
class Fitted:
    """Rows after measuring them in the student's tokens."""

    rows: list[Row]
    """Kept, in their first order."""
    dropped: list[Dropped]
    """Removed rows."""
    cut: list[Dropped]
    """Rows that stay but lose their end."""
    tokens: int
    """Tokens of the kept rows, prompts included; a pair counts both sides."""
    longest: int
    """Tokens of the longest kept row, a pair's sides together; 0 where there is none."""


def sft_rows(examples: Sequence[SftExample]) -> list[Row]:
    """Our SFT examples as rows."""
    return [
        Row(
            it.id, it.principle_id, said("user", it.prompt), {"completion": said("assistant", it.completion)}, _dump(it)
        )
        for it in examples
    ]


def pair_rows(pairs: Sequence[PreferencePair]) -> list[Row]:
    """Our preference pairs as rows."""
    return [
        Row(
            it.id,
            it.principle_id,
            said("user", it.prompt),
            {"chosen": said("assistant", it.chosen), "rejected": said("assistant", it.rejected)},
            _dump(it),
        )
        for it in pairs
    ]


def said(role: str, content: str) -> Messages:
    """One message as a list."""
    return [{"role": role, "content": content}]


def require_rows(context: RunContext, rows: Sequence[Row], name: str) -> None:
    """Stop where the data stage left nothing to train on.

    Raises:
        DataError: no rows; names what that stage dropped, by reason.
    """
    if rows:
        return
    stage = data_stage(context)
    dropped = finished_manifest(context, stage).get("dropped") or {}
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "nothing was dropped"
    raise DataError(
        f"{context.folder / stage / name}: 0 rows. {stage} dropped: {reasons} (see dropped.jsonl beside it). "
        f"Ask for more prompts: {context.command('generate', '--redo', '--set generate.prompts_per_principle=20')}"
    )


def user_texts(prompt: Messages) -> set[str]:
    """What the user says in a prompt, for comparing prompts."""
    return {message["content"].strip() for message in prompt if message["role"] == "user"}


def fit(rows: Sequence[Row], tokenizer: Any, max_length: int) -> Fitted:
    """Measure every row; drop what has no room for an answer or holds special tokens, and note what will be cut."""
    kept: list[Row] = []
    dropped: list[Dropped] = []
    cut: list[Dropped] = []
    sizes: list[int] = []
    for given in rows:
        row = ended_earlier(given, tokenizer, max_length) if given.mixed_in else given
        if marker := _special_token(row, tokenizer):
            dropped.append(row.drop("special_token", f"the text holds {marker}, which ends or opens a turn"))
            continue
        prompt = len(encode(tokenizer, row.prompt, ask=True))
        lengths = [len(encode(tokenizer, row.prompt + answer)) for answer in row.answers.values()]
        if prompt >= max_length:
            dropped.append(row.drop("prompt_too_long", f"prompt of {prompt} tokens, max_length {max_length}"))
            continue
        if max(lengths) > max_length and row.mixed_in:
            dropped.append(row.drop("mix_in_too_long", f"{max(lengths)} tokens, max_length {max_length}"))
            continue
        if max(lengths) > max_length:
            cut.append(row.drop("truncated", f"{max(lengths)} tokens, cut to {max_length}; the rest is trained"))
        kept.append(row)
        sizes.append(sum(min(length, max_length) for length in lengths))
    return Fitted(kept, dropped, cut, sum(sizes), max(sizes, default=0))


def ended_earlier(row: Row, tokenizer: Any, max_length: int) -> Row:
    """A conversation that is too long, ended at its last answer that fits; a row without such an answer as it is."""
    if "completion" not in row.answers:
        return row
    turns = row.prompt + row.answers["completion"]
    ends = [at for at, turn in enumerate(row.prompt) if at > 0 and turn["role"] == "assistant"]
    while ends and len(encode(tokenizer, turns)) > max_length:
        turns = turns[: ends.pop() + 1]
    return replace(row, prompt=turns[:-1], answers={"completion": turns[-1:]})


def require_few_lost(fitted: Fitted, context: RunContext, section: str) -> None:
    """Stop where too many of our own rows were dropped or cut.

    Raises:
        DataError: more than 5 % were; names counts, the limit and the next command.
    """
    dropped, cut = ([it for it in lost if it.principle_id != "mix_in"] for lost in (fitted.dropped, fitted.cut))
    rows_in = sum(not row.mixed_in for row in fitted.rows) + len(dropped)
    if not rows_in or (len(dropped) + len(cut)) / rows_in <= MAX_LOST:
        return
    now = getattr(context.recipe, section).max_length
    counts = f"{len(dropped)} dropped and {len(cut)} cut of {rows_in} rows"
    raise DataError(
        f"{section}: {counts}, over {MAX_LOST:.0%}, with {section}.max_length={now} "
        f"(named in {context.folder / section / 'dropped.jsonl'}). "
        f"Run: {context.command(section, '--redo', f'--set {section}.max_length={2 * now}')}"
    )


def encode(tokenizer: Any, messages: Messages, ask: bool = False) -> list[int]:
    """Token ids of a conversation in our template; `ask` opens the assistant's turn."""
    ids = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=ask, return_dict=True)
    return list(ids["input_ids"])


def _special_token(row: Row, tokenizer: Any) -> str | None:
    texts = [message["content"] for part in (row.prompt, *row.answers.values()) for message in part]
    written = [token for token in tokenizer.get_added_vocab() if token in tokenizer.chat_template]  # such as [/INST]
    spelled = re.findall(r"<\|\w+\|>", tokenizer.chat_template)  # Zephyr's turns are plain text to the vocabulary
    known = (*tokenizer.all_special_tokens, *written, *spelled)
    return next((token for token in known if any(token in text for text in texts)), None)


def _dump(record: SftExample | PreferencePair) -> dict[str, Any]:
    return record.model_dump(mode="json")
