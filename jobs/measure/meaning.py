"""What prompts are about: their variety, the principle they betray, the country they name."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from jobs.measure.data import Data
from jobs.measure.markers import markers_of
from jobs.measure.measured import Diversity, Grounding, Identified
from jobs.measure.shares import share
from jobs.measure.terms import tfidf
from jobs.measure.texts import words

Item = TypeVar("Item")

SAMPLE = 1000
"""Most prompts whose variety is measured at once: the kernel grows with their square."""
_PRINCIPLE_SAMPLE = 250
IDENTIFIED_SAMPLE = 5000
"""Most prompts that are held against the principles."""
_ALIKE_SHOWN = 10


def diversity(data: Data, seed: int = 0) -> Diversity:
    """Variety of the prompts, of all and by principle."""
    by_principle: dict[str, list[str]] = defaultdict(list)
    for prompt in data.prompts:
        by_principle[prompt.principle_id].append(prompt.text)
    picked = random.Random(f"diversity:{seed}")
    return Diversity(
        vendi=vendi(_sample(picked, [prompt.text for prompt in data.prompts], SAMPLE)),
        vendi_by_principle={
            name: vendi(_sample(picked, texts, _PRINCIPLE_SAMPLE)) for name, texts in sorted(by_principle.items())
        },
        distinct_2={name: _distinct_bigrams(texts) for name, texts in sorted(by_principle.items())},
    )


def vendi(texts: Sequence[str]) -> float:
    """Effective number of different texts: exponential of the entropy of their kernel's eigenvalues.

    Friedman and Dieng 2022 (arXiv 2210.02410) with the cosine of TF-IDF vectors; 0 for no texts, at most their number.
    """
    if not texts:
        return 0.0
    matrix = tfidf(texts)
    kernel = np.asarray((matrix @ matrix.T).todense(), dtype=np.float64)
    np.fill_diagonal(kernel, 1.0)  # a text without a word is like itself, too
    values = np.linalg.eigvalsh(kernel / len(texts))
    values = values[values > 1e-12]
    return min(float(len(texts)), math.exp(-float(np.sum(values * np.log(values)))))


def identified(data: Data, seed: int = 0) -> Identified | None:
    """Nearest principle of each prompt by TF-IDF cosine; None without principles or without a prompt of one of them."""
    position = {principle.id: number for number, principle in enumerate(data.principles)}
    prompts = [prompt for prompt in data.prompts if prompt.principle_id in position]
    if len(position) < 2 or not prompts:
        return None
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    prompts = _sample(random.Random(f"identified:{seed}"), prompts, IDENTIFIED_SAMPLE)
    own = [f"{principle.title}. {principle.text}" for principle in data.principles]
    matrix = tfidf([*own, *(prompt.text for prompt in prompts)], ENGLISH_STOP_WORDS)
    principles = matrix[: len(own)]
    scores = np.asarray((matrix[len(own) :] @ principles.T).todense())
    true = np.array([position[prompt.principle_id] for prompt in prompts])
    # A prompt without a word of its principle is not found, however the others are ordered.
    reached = scores[np.arange(len(true)), true]
    rank = np.where(reached > 0, (scores > reached[:, None]).sum(axis=1), len(own))
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    for prompt, row in zip(prompts, scores, strict=True):
        confusion[prompt.principle_id][data.principles[int(row.argmax())].id if row.max() > 0 else "none"] += 1
    return Identified(
        top_1=share(int((rank < 1).sum()), len(prompts)),
        top_3=share(int((rank < 3).sum()), len(prompts)),
        confusion={name: dict(counts) for name, counts in confusion.items()},
        alike=_alike(data, np.asarray((principles @ principles.T).todense())),
    )


def grounding(data: Data) -> Grounding | None:
    """Texts that name something of the country; None where there is no list of its words."""
    pattern = markers_of(data.constitution)
    if pattern is None:
        return None
    named = [pattern.search(prompt.text) is not None for prompt in data.prompts]
    chosen: dict[str, list[bool]] = defaultdict(list)
    for pair in data.pairs:
        chosen[pair.principle_id].append(pattern.search(pair.chosen) is not None)
    by_principle = {name: share(sum(found), len(found)) for name, found in sorted(chosen.items())}
    return Grounding(
        prompts=share(sum(named), len(named)),
        chosen=share(sum(map(sum, chosen.values())), len(data.pairs)),
        by_principle=by_principle,
        principles_without=[name for name, found in by_principle.items() if not found.count],
    )


def coverage(data: Data) -> Mapping[str, Mapping[str, int]]:
    """Rows of each principle: its prompts, and those of `sft`, `dpo` and `held_out`."""
    empty = {"prompts": 0, "sft": 0, "dpo": 0, "held_out": 0}
    rows = {principle.id: dict(empty) for principle in data.principles}
    for prompt in data.prompts:
        found = rows.setdefault(prompt.principle_id, dict(empty))
        found["prompts"] += 1
        found["held_out"] += prompt.split == "held_out"
    for example in data.examples:
        rows.setdefault(example.principle_id, dict(empty))["sft"] += example.split == "sft"
    for pair in data.pairs:
        rows.setdefault(pair.principle_id, dict(empty))["dpo"] += pair.split == "dpo"
    return rows


def _alike(data: Data, scores: np.ndarray) -> list[tuple[str, str, float]]:
    names = [principle.id for principle in data.principles]
    pairs = [
        (names[one], names[other], float(scores[one, other])) for other in range(len(names)) for one in range(other)
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:_ALIKE_SHOWN]


def _sample(picked: random.Random, values: list[Item], most: int) -> list[Item]:
    return values if len(values) <= most else picked.sample(values, most)


def _distinct_bigrams(texts: Sequence[str]) -> float:
    """Different pairs of words over all pairs of words (distinct-2, Li et al. 2016)."""
    found = [pair for text in texts for pair in pairwise(words(text.lower()))]
    return len(set(found)) / max(1, len(found))
