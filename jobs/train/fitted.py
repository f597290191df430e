"""Which rows are trained: every row measured in the student's tokens, then kept, cut, or dropped by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.common.records import Dropped
from jobs.train.examples import Row, encode

NOT_A_PREFIX = "prompt_not_a_prefix"
"""Drop reason of a row whose answer begins with what the tokenizer joins to the prompt, such as a line break."""


@dataclass(frozen=True)
class Measured:
    """A row that can be trained."""

    row: Row
    tokens: int
    """Tokens that are trained on, prompt included; a pair counts both sides."""
    cut: Dropped | None
    """Said of a row that loses its end."""


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

    def and_then(self, other: Fitted) -> Fitted:
        """These rows, followed by others."""
        return Fitted(
            [*self.rows, *other.rows],
            [*self.dropped, *other.dropped],
            [*self.cut, *other.cut],
            self.tokens + other.tokens,
            max(self.longest, other.longest),
        )

    def lost(self) -> str:
        """What was dropped and cut, by reason and for people; empty where nothing was."""
        named = (("dropped", self.dropped), ("cut", self.cut))
        parts = [f"{how} {by_reason(lost)}" for how, lost in named if lost]
        return f" ({'; '.join(parts)})" if parts else ""


def by_reason(lost: Iterable[Dropped]) -> str:
    """How many rows were lost for which reason, such as `3 prompt_too_long, 1 special_token`."""
    counts = Counter(it.drop_reason for it in lost)
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))


def fit(rows: Sequence[Row], tokenizer: Any, max_length: int) -> Fitted:
    """Measure every row; drop what cannot be trained, and note what will be cut."""
    return gathered(measured(row, tokenizer, max_length) for row in rows)


def gathered(found: Iterable[Measured | Dropped]) -> Fitted:
    """What was found of each row, in one."""
    each = list(found)
    kept = [it for it in each if isinstance(it, Measured)]
    dropped = [it for it in each if isinstance(it, Dropped)]
    cut = [it.cut for it in kept if it.cut]
    sizes = [it.tokens for it in kept]
    return Fitted([it.row for it in kept], dropped, cut, sum(sizes), max(sizes, default=0))


def measured(given: Row, tokenizer: Any, max_length: int) -> Measured | Dropped:
    """One row: whether it has room for an answer, ends turns nowhere else, and begins answers where the model would."""
    row = ended_earlier(given, tokenizer, max_length) if given.mixed_in else given
    if marker := _special_token(row, tokenizer):
        return row.drop("special_token", f"the text holds {marker}, which ends or opens a turn")
    prompt = encode(tokenizer, row.prompt, ask=True)
    if len(prompt) >= max_length:
        return row.drop("prompt_too_long", f"prompt of {len(prompt)} tokens, max_length {max_length}")
    whole = {name: encode(tokenizer, row.prompt + answer) for name, answer in row.answers.items()}
    longest = max(len(ids) for ids in whole.values())
    if longest > max_length and row.mixed_in:
        return row.drop("mix_in_too_long", f"{longest} tokens, max_length {max_length}")
    for name, ids in whole.items():
        if start := _joined(row, name, ids, prompt, tokenizer):
            return row.drop(NOT_A_PREFIX, f"the tokenizer joins {start} to what comes before that answer")
    tokens = sum(min(len(ids), max_length) for ids in whole.values())
    cut = f"{longest} tokens, cut to {max_length}; the rest is trained"
    return Measured(row, tokens, row.drop("truncated", cut) if longest > max_length else None)


def ended_earlier(row: Row, tokenizer: Any, max_length: int) -> Row:
    """A conversation that is too long, ended at its last answer that fits; a row without such an answer as it is."""
    if "completion" not in row.answers:
        return row
    turns = row.answers["completion"]
    ends = [at for at, turn in enumerate(turns[:-1]) if turn["role"] == "assistant"]
    while ends and len(encode(tokenizer, row.prompt + turns)) > max_length:
        turns = turns[: ends.pop() + 1]
    return replace(row, answers={"completion": turns})


def _joined(row: Row, name: str, whole: list[int], prompt: list[int], tokenizer: Any) -> str | None:
    """How an answer begins whose tokens do not follow those that the model is asked with: no mask can begin there."""
    for turns in row.asked(name):
        asked = encode(tokenizer, turns, ask=True) if len(turns) > len(row.prompt) else prompt
        if whole[: len(asked)] != asked:
            return repr(row.answers[name][len(turns) - len(row.prompt)]["content"][:20])
    return None


def _special_token(row: Row, tokenizer: Any) -> str | None:
    texts = [message["content"] for part in (row.prompt, *row.answers.values()) for message in part]
    written = [token for token in tokenizer.get_added_vocab() if token in tokenizer.chat_template]  # such as [/INST]
    spelled = re.findall(r"<\|\w+\|>", tokenizer.chat_template)  # Zephyr's turns are plain text to the vocabulary
    known = (*tokenizer.all_special_tokens, *written, *spelled)
    return next((token for token in known if any(token in text for text in texts)), None)
