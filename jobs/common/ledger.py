"""The split ledger: prompts.jsonl of the stage whose rows are trained says which split every prompt is in.

ledger = read_ledger(context)
ledger.split_of("How do I ...?")            # "held_out", "sft", "dpo", or None where nobody froze it
ledger.conflict(row_id, texts, "sft")       # why such a row must not train SFT, or None

Prompts are compared by their words alone: case, punctuation, white space and zero-width characters do not count. A text
is near a held-out prompt where it holds at least half of that prompt's 8-word sequences (the n-gram overlap test of the
GPT-3 paper, arXiv 2005.14165, appendix C, with a share instead of a single match, since prompts of one kind share a
phrase); a prompt of fewer than 8 words is compared whole.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from jobs.common.context import RunContext
from jobs.common.data_stage import data_folder
from jobs.common.jsonl import read_records
from jobs.common.records import RedTeamPrompt, Split

WORDS_IN_A_ROW = 8
NEAR = 0.5
"""Share of a held-out prompt's 8-word sequences from which a text counts as near it."""

MOST_ROWS = 100
"""Texts that may share a sequence; one that more share says nothing about them."""

INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Hit:
    """The prompt of the ledger that a text or a row meets."""

    prompt: RedTeamPrompt
    how: Literal["id", "text", "near"]
    """`id`: the same id; `text`: the same words; `near`: half its 8-word sequences or more."""

    def __str__(self) -> str:
        """In words, for messages: `is held_out in prompts.jsonl (same words as ubuntu-1)`."""
        met = {"id": "same id as", "text": "same words as", "near": "near duplicate of"}[self.how]
        return f"is {self.prompt.split} in prompts.jsonl ({met} {self.prompt.id})"


class Ledger:
    """Every prompt of a run with its split, ready to be asked about other texts."""

    def __init__(self, prompts: Iterable[RedTeamPrompt]) -> None:
        self._by_id: dict[str, RedTeamPrompt] = {}
        self._by_text: dict[str, dict[Split, RedTeamPrompt]] = {}
        self._by_sequence: dict[tuple[str, ...], list[str]] = {}
        """Ids of the held-out prompts that hold a sequence."""
        self._sequences: dict[str, int] = {}
        """Sequences of each held-out prompt, counted."""
        for prompt in prompts:
            self._by_id[prompt.id] = prompt
            self._by_text.setdefault(normalised(prompt.prompt), {}).setdefault(prompt.split, prompt)
            if prompt.split == "held_out" and prompt.id not in self._sequences:
                found = _sequences(_words(prompt.prompt))
                self._sequences[prompt.id] = len(found)
                for sequence in found:
                    self._by_sequence.setdefault(sequence, []).append(prompt.id)

    def split_of(self, text: str) -> Split | None:
        """Split of the prompt with these words; `held_out` where damaged data has it in several; None if unknown."""
        found = self._by_text.get(normalised(text), {})
        return "held_out" if "held_out" in found else next(iter(found), None)

    def held_out_hit(self, texts: Collection[str]) -> Hit | None:
        """The held-out prompt that one of these texts is, or is near to; None where there is none."""
        near: Hit | None = None
        for text in texts:
            words = _words(text)
            if found := self._by_text.get(_key(words, text), {}).get("held_out"):
                return Hit(found, "text")
            near = near or self._near(words)
        return near

    def conflict(self, row_id: str, texts: Collection[str], split: Split) -> Hit | None:
        """The prompt of another split that a row of `split` meets, by id, words or nearness; None where it may train.

        Two prompts that were frozen as different and are a little alike are no conflict: nearness counts for a text
        that the ledger does not have.
        """
        known = self._by_id.get(row_id)
        if known is not None and known.split != split:
            return Hit(known, "id")
        for text in texts:
            words = _words(text)
            others = self._by_text.get(_key(words, text))
            if others is None:
                if near := self._near(words):
                    return near
            elif wrong := [prompt for found, prompt in others.items() if found != split]:
                return Hit(wrong[0], "text")
        return None

    def _near(self, words: Sequence[str]) -> Hit | None:
        shared = Counter(
            prompt_id
            for found in self._by_sequence.keys() & _sequences(words)
            for prompt_id in self._by_sequence[found]
        )
        shares = [(count / self._sequences[prompt_id], prompt_id) for prompt_id, count in shared.items()]
        share, nearest = max(shares, default=(0.0, ""))
        return Hit(self._by_id[nearest], "near") if share >= NEAR else None


def overlapping(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of texts, by position, of which one would count as near the other; of equal texts each with the first.

    What a split must keep together so that no row meets a held-out prompt. A sequence that over 100 texts share is a
    phrase of the source and links nothing.
    """
    pairs: list[tuple[int, int]] = []
    first: dict[str, int] = {}
    counts: dict[int, int] = {}
    rows_with: dict[int, list[int]] = {}
    telling = _told_by_few(texts)
    for row, text in enumerate(texts):
        words = _words(text)
        if (same := first.setdefault(_key(words, text), row)) != row:
            pairs.append((same, row))
            continue
        found = set(map(hash, _sequences(words)))
        counts[row] = len(found)
        shared = Counter(other for one in telling & found for other in rows_with.get(one, ()))
        pairs += [(other, row) for other, both in shared.items() if both >= NEAR * min(counts[other], len(found))]
        for one in telling & found:
            rows_with.setdefault(one, []).append(row)
    return pairs


def _told_by_few(texts: Sequence[str]) -> set[int]:
    """Hashes of the sequences in 2 to `MOST_ROWS` texts; sorted in an array, since 100,000 texts have millions."""
    found = array("q")
    for text in texts:
        found.extend(map(hash, _sequences(_words(text))))
    return {one for one, equal in groupby(sorted(found)) if 2 <= sum(1 for _ in equal) <= MOST_ROWS}


def read_ledger(context: RunContext) -> Ledger:
    """The ledger of the stage whose rows this run trains on.

    Raises:
        ConfigError: see `data_stage`.
        DataError: its prompts.jsonl is missing or damaged.
    """
    return Ledger(read_records(data_folder(context) / "prompts.jsonl", RedTeamPrompt))


def normalised(text: str) -> str:
    """The words of a text and nothing else; the text itself where it has no words."""
    return _key(_words(text), text)


def _key(words: Sequence[str], text: str) -> str:
    return " ".join(words) or text.strip()


def _words(text: str) -> list[str]:
    return WORD.findall(INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold())


def _sequences(words: Sequence[str]) -> set[tuple[str, ...]]:
    return set(zip(*(words[start:] for start in range(WORDS_IN_A_ROW)), strict=False))
