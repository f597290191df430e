"""What a constitution's own texts tell without a teacher: principles that are alike, and negative framing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jobs.common.constitution import Constitution, Principle

Finding = Literal["duplicate", "contradiction", "untestable", "negative framing", "not paraphrased", "not checked"]

ALIKE = 0.5
"""TF-IDF cosine from which two principles' texts are remarked; in the shipped files no two reach 0.3."""
NEGATIVE_SHARE = 2 / 3
"""Share of negative sentences above which a text is remarked: limits after a positive sentence are good practice."""
FIRST_WORDS = 6
"""Words of a sentence that decide what it is: "it is fair and does not insult" says first what an answer does."""

NEGATIONS = {
    "en": r"\b(not|never|no|none|nobody|nothing|neither|nor|without|cannot|avoids?|refrains?|refuses?|prevents?|"
    r"forbids?|prohibits?|rejects?|abstains?)\b|n['\u2019]t\b",
    "ro": r"\b(nu|niciodată|nimeni|nimic|nici|fără|evită|refuză|interzice|respinge)\b|\bn-",
    "af": r"\b(nie|nooit|niemand|niks|geen|sonder|vermy|weier|verbied)\b",
}
"""Words that make a sentence negative, by language; a constitution in another language is not looked at."""


@dataclass(frozen=True)
class Remark:
    """Something about a principle that its author should look at; never a fault."""

    principle_id: str
    finding: Finding
    evidence: str
    """What was seen, in the very words where there are any."""
    advice: str


@dataclass(frozen=True)
class Related:
    """Two principles, by position, and the TF-IDF cosine of title and text."""

    first: int
    second: int
    similarity: float


def related_pairs(constitution: Constitution, most: int) -> list[Related]:
    """The most related pairs of principles, most related first.

    Args:
        constitution: at least two principles, or nothing is related.
        most: pairs wanted; each principle's nearest neighbour is always among them, so there can be a few more.
    """
    count = len(constitution.principles)
    if count < 2:
        return []
    similarity = _similarity([f"{one.title}. {one.text}" for one in constitution.principles])
    pairs = [Related(i, j, similarity[i][j]) for i in range(count) for j in range(i + 1, count)]
    pairs.sort(key=lambda pair: -pair.similarity)
    taken = {(pair.first, pair.second) for pair in pairs[:most]}
    for index in range(count):
        nearest = next(pair for pair in pairs if index in (pair.first, pair.second))
        taken.add((nearest.first, nearest.second))
    return [pair for pair in pairs if (pair.first, pair.second) in taken]


def nearest_principles(constitution: Constitution, index: int, count: int) -> list[int]:
    """Positions of the principles whose texts are nearest to one, nearest first."""
    similarity = _similarity([f"{one.title}. {one.text}" for one in constitution.principles])[index]
    others = [other for other in range(len(constitution.principles)) if other != index]
    return sorted(others, key=lambda other: -similarity[other])[:count]


def text_remarks(constitution: Constitution) -> list[Remark]:
    """Everything that can be remarked without a teacher: duplicates by text, then negative framing."""
    return [*_duplicates(constitution), *negative_framing(constitution)]


def negative_framing(constitution: Constitution) -> Iterator[Remark]:
    """Principles that say what an answer avoids and hardly what it does."""
    for principle in constitution.principles:
        sentences = [part for part in re.split(r"(?<=[.;!?])\s+", principle.text) if part]
        negative = [sentence for sentence in sentences if is_negative(sentence, constitution.language)]
        if negative and (negative[0] == sentences[0] or len(negative) > NEGATIVE_SHARE * len(sentences)):
            yield Remark(
                principle.id,
                "negative framing",
                f"{len(negative)} of {len(sentences)} sentences say what to avoid: {excerpt(negative[0])}",
                "Open with what the answer does; keep one limit as the last sentence.",
            )


def is_negative(sentence: str, language: str) -> bool:
    """Does the sentence's main part say what an answer avoids? False in a language without a list."""
    words = NEGATIONS.get(language.lower().split("-")[0])
    if words is None:
        return False
    return re.search(words, " ".join(sentence.split()[:FIRST_WORDS]), re.IGNORECASE) is not None


def excerpt(text: str, most: int = 100) -> str:
    """A text in quotes, cut to so many characters."""
    return f'"{text if len(text) <= most else text[: most - 3] + "..."}"'


def _duplicates(constitution: Constitution) -> Iterator[Remark]:
    for pair in related_pairs(constitution, len(constitution.principles)):
        if pair.similarity >= ALIKE:
            one, two = constitution.principles[pair.first], constitution.principles[pair.second]
            yield duplicate_remark(two, one, f"TF-IDF cosine of the texts {pair.similarity:.2f}")


def duplicate_remark(later: Principle, earlier: Principle, evidence: str) -> Remark:
    """The remark that two principles say the same; named at the later one."""
    advice = f"Merge it with {earlier.id}, or name a message that breaks one of them and not the other."
    return Remark(later.id, "duplicate", f"like {earlier.id}: {evidence}", advice)


def _similarity(texts: list[str]) -> list[list[float]]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b").fit_transform(texts)
    similar: list[list[float]] = (vectors @ vectors.T).toarray().tolist()
    return similar
