"""Families of prompts: a red-team prompt and its benign twins, which are alike on purpose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from jobs.measure.data import Prompt
from jobs.measure.texts import bare_words


def families(prompts: Sequence[Prompt]) -> list[str]:
    """One name for a prompt and its twins, by prompt; a twin whose sibling is not there stands for itself.

    Ids may repeat where several files are read together: of several prompts of one id, the one that shares most words
    with the twin is its sibling, since a twin is nearly its sibling word for word.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        if not prompt.twin_of:
            rows_of[prompt.id].append(row)
    return [str(_sibling(prompts, row, rows_of.get(prompts[row].twin_of, []))) for row in range(len(prompts))]


def _sibling(prompts: Sequence[Prompt], row: int, candidates: Sequence[int]) -> int:
    """Position of a prompt's sibling, or its own where it has none."""
    if len(candidates) < 2:
        return candidates[0] if candidates else row
    own = set(bare_words(prompts[row].text))
    return max(candidates, key=lambda at: len(own & set(bare_words(prompts[at].text))))
