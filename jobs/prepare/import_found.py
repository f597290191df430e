"""What the sources of an import hold, before it is split: prompts, chains, SFT rows, pairs, and what was dropped."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.common.console import say
from jobs.common.ledger import normalised
from jobs.common.records import Dropped, PreferencePair, SftExample, record_id

VERSION = "imported"
"""Model and prompt version of imported rows: nobody knows better."""
IMPORTED_PRINCIPLE = "imported"
"""Principle of rows whose source names none."""
BROKEN = "half a character (a lone surrogate) in its text"
"""What a text has that cannot be written as UTF-8."""
SHOWN = 20
"""Dropped rows that are printed; all are in dropped.jsonl."""

Use = Literal["sft", "dpo"]


@dataclass
class FoundPrompt:
    """One prompt of the sources."""

    id: str
    principle_id: str
    text: str
    uses: set[Use] = field(default_factory=set)
    """Stages that the source has rows for."""
    held_out: bool = False
    """It stands in a test split of the source."""


@dataclass
class Found:
    """Everything that was read, in its order."""

    prompts: dict[str, FoundPrompt] = field(default_factory=dict)
    """By id."""
    chains: list[dict[str, str]] = field(default_factory=list)
    """Revisions without their split."""
    examples: list[SftExample] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    _seen: set[tuple[str, ...]] = field(default_factory=set)

    def prompt(self, principle_id: str, text: str, uses: Collection[Use], held_out: bool = False) -> FoundPrompt:
        """Note a prompt, or another use of a known one; a prompt of a test split stays held out."""
        prompt_id = record_id(principle_id, text)
        found = self.prompts.setdefault(prompt_id, FoundPrompt(prompt_id, principle_id, text))
        found.uses |= set(uses)
        found.held_out |= held_out
        return found

    def is_new(self, *texts: str) -> bool:
        """Whether these texts, as one row, come for the first time."""
        new = texts not in self._seen
        self._seen.add(texts)
        return new

    def add_example(self, prompt: FoundPrompt, completion: str) -> None:
        """Keep an SFT row."""
        self.examples.append(
            SftExample.model_validate(shared(prompt) | {"prompt": prompt.text, "completion": completion})
        )

    def add_pair(self, prompt: FoundPrompt, chosen: str, rejected: str) -> None:
        """Keep a preference pair."""
        made = {"rejected_model": VERSION, "chosen_by": "imported", "rejected_by": "imported"}
        texts = {"prompt": prompt.text, "chosen": chosen, "rejected": rejected}
        self.pairs.append(PreferencePair.model_validate(shared(prompt) | made | texts))

    def add_chain(self, prompt: FoundPrompt, texts: dict[str, str]) -> None:
        """Keep a whole chain: initial response, critique and revision with their requests."""
        self.chains.append(shared(prompt) | {"initial_model": VERSION, "prompt": prompt.text} | texts)

    def drop(
        self, row_id: str, reason: str, detail: str, record: dict[str, Any], principle_id: str = "unknown"
    ) -> None:
        """Note a row that is not taken, and why."""
        whole = {"id": row_id, "principle_id": principle_id, "drop_reason": reason, "detail": detail, "record": record}
        # A broken character cannot be written: it becomes a question mark here, where the row is only shown.
        readable = json.dumps(whole, default=str, ensure_ascii=False).encode(errors="replace")
        self.dropped.append(Dropped.model_validate_json(readable))

    def say_dropped(self) -> None:
        """Print the first dropped rows."""
        for row in self.dropped[:SHOWN]:
            say(f"import: dropped {row.drop_reason}: {row.detail}")
        if len(self.dropped) > SHOWN:
            say(f"import: and {len(self.dropped) - SHOWN} more, named in dropped.jsonl")


def shared(prompt: FoundPrompt) -> dict[str, str]:
    """Fields that every record about a prompt has."""
    return {"id": prompt.id, "principle_id": prompt.principle_id, "model": VERSION, "prompt_version": VERSION}


def broken(texts: Iterable[str]) -> bool:
    """Whether a text holds what UTF-8 cannot: JSON may escape half of a character."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return True
    return False


def differs(one: str, other: str) -> str:
    """Why two texts that should be one prompt are not: `prompt_punctuation_differs` or `prompt_differs`."""
    return "prompt_punctuation_differs" if normalised(one) == normalised(other) else "prompt_differs"
