"""Training rows: from our records and from mix-ins to the conversational rows TRL takes, each with its id.

This is the only place that shapes data for TRL: `prompt` plus `completion` for SFT, `prompt` plus `chosen` and
`rejected` for DPO, all lists of chat messages with an explicit prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jobs.common.records import Dropped, PreferencePair, SftExample

Messages = list[dict[str, str]]

ROLES = ("system", "user", "assistant")
"""Who speaks in a template."""


@dataclass(frozen=True)
class Row:
    """One training row."""

    id: str
    principle_id: str
    prompt: Messages
    """Everything before the first answer that is trained."""
    answers: dict[str, Messages]
    """`completion`, or `chosen` and `rejected`: one message of the assistant each. A completion may go on, with what
    others say and further answers, an answer last: each of its answers is trained."""
    record: dict[str, Any]
    """The row as it was read, for dropped.jsonl."""

    @property
    def mixed_in(self) -> bool:
        """True for a row of somebody else's data."""
        return self.principle_id == "mix_in"

    def asked(self, name: str) -> list[Messages]:
        """The conversation before every assistant message of an answer."""
        turns = self.prompt + self.answers[name]
        answered = range(len(self.prompt), len(turns))
        return [turns[:at] for at in answered if turns[at]["role"] == "assistant"]

    def for_trl(self) -> dict[str, Any]:
        """What goes into the dataset."""
        return {"id": self.id, "prompt": self.prompt, **self.answers}

    def drop(self, reason: str, detail: str) -> Dropped:
        """This row as a dropped record."""
        return Dropped(
            id=self.id, principle_id=self.principle_id, drop_reason=reason, detail=detail, record=self.record
        )


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


def user_texts(prompt: Messages) -> set[str]:
    """What the user says in a prompt, for comparing prompts."""
    return {message["content"].strip() for message in prompt if message["role"] == "user"}


def odd_turn(turns: Messages) -> str | None:
    """What a template would leave out or give to another: a role it does not know, an answer that nobody asked for.

    Only the first turn of all may be an answer without the user's before it.
    """
    roles = [turn["role"] for turn in turns]
    for role in roles:
        if role not in ROLES:
            return f"a turn of {role[:20]!r}"
    for before, role in pairwise(roles):
        if role == "assistant" and before != "user":
            return f"an answer that follows a turn of the {before}"
    return None


def encode(tokenizer: Any, messages: Messages, ask: bool = False) -> list[int]:
    """Token ids of a conversation in our template; `ask` opens the assistant's turn."""
    ids = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=ask, return_dict=True)
    return list(ids["input_ids"])


def _dump(record: SftExample | PreferencePair) -> dict[str, Any]:
    return record.model_dump(mode="json")
