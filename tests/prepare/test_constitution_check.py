"""Remarks on a constitution's own texts, and the shipped lists of real places and institutions."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.__main__ import main
from jobs.common.constitution import Constitution, Principle, load_constitution
from jobs.common.recipe import PROJECT
from jobs.measure.constitution import is_negative, nearest_principles, negative_framing, related_pairs, text_remarks
from jobs.prepare.constitution_check import find_constitution

WORD = st.sampled_from(["river", "bread", "chair", "winter", "garden", "letter", "bridge", "market", "doctor", "song"])


def made(*texts: str, language: str = "en") -> Constitution:
    principles = [
        Principle(id=f"p{number}", title="Title", text=text, category="test", source="test")
        for number, text in enumerate(texts)
    ]
    return Constitution(
        name="made", title="Made", language=language, version=1, description="Test.", principles=principles
    )


@pytest.mark.parametrize("name", ["south_africa", "romania"])
def test_every_principle_of_a_country_names_real_things_in_a_few_words(name: str) -> None:
    for principle in load_constitution(name).principles:
        assert 3 <= len(principle.context) <= 6, principle.id
        assert len(set(principle.context)) == len(principle.context), principle.id
        assert all(len(entry.split()) <= 10 and not entry.endswith(".") for entry in principle.context), principle.id


def test_a_constitution_of_no_country_has_no_context() -> None:
    assert not any(principle.context for principle in load_constitution("anthropic").principles)


@pytest.mark.parametrize("name", ["south_africa", "romania", "anthropic"])
def test_the_shipped_texts_give_no_remark(name: str) -> None:
    assert text_remarks(load_constitution(name)) == []


@pytest.mark.parametrize(
    ("text", "remarked"),
    [
        ("The answer does not mock anyone. It is kind to all who ask.", True),
        ("The answer avoids gossip.", True),
        ("The answer is kind. It never mocks. It does not lie.", False),
        ("The answer is kind. It never mocks. It does not lie. Nobody is left out.", True),
        ("The answer is fair and does not insult anyone.", False),
        ("The answer ties a knot and names the knotted rope.", False),
        ("The answer doesn't flatter.", True),
    ],
)
def test_a_text_that_opens_or_goes_on_with_prohibitions_is_remarked(text: str, remarked: bool) -> None:
    assert bool(list(negative_framing(made(text)))) is remarked


@pytest.mark.parametrize(
    ("sentence", "language", "negative"),
    [("Răspunsul nu minte.", "ro", True), ("Die antwoord lieg nie.", "af-ZA", True), ("Nu minte.", "zu", False)],
)
def test_framing_is_read_in_the_languages_with_a_list(sentence: str, language: str, negative: bool) -> None:
    assert is_negative(sentence, language) is negative


def test_two_texts_that_are_alike_are_remarked_at_the_later_one() -> None:
    alike = made(
        "The answer keeps rivers clean for people downstream.",
        "The answer gives grandparents time and a chair.",
        "The answer keeps the rivers clean for those downstream.",
    )
    remarks = text_remarks(alike)
    assert [(remark.principle_id, remark.finding) for remark in remarks] == [("p2", "duplicate")]
    assert remarks[0].evidence.startswith("like p0: TF-IDF cosine")


@given(st.lists(st.lists(WORD, min_size=3, max_size=8).map(" ".join), min_size=2, max_size=7), st.integers(0, 30))
def test_every_principle_is_in_a_related_pair_and_the_most_alike_come_first(texts: list[str], most: int) -> None:
    constitution = made(*texts)
    pairs = related_pairs(constitution, most)
    assert {index for pair in pairs for index in (pair.first, pair.second)} == set(range(len(texts)))
    assert len({(pair.first, pair.second) for pair in pairs}) == len(pairs)
    assert all(pair.first < pair.second for pair in pairs)
    assert [pair.similarity for pair in pairs] == sorted((pair.similarity for pair in pairs), reverse=True)
    assert len(pairs) >= min(most, len(list(combinations(texts, 2))))


@given(st.lists(st.lists(WORD, min_size=3, max_size=8).map(" ".join), min_size=1, max_size=6), st.integers(1, 3))
def test_the_nearest_principles_are_others(texts: list[str], count: int) -> None:
    found = nearest_principles(made(*texts), 0, count)
    assert len(found) == min(count, len(texts) - 1)
    assert 0 not in found


def test_one_principle_alone_has_no_pair() -> None:
    assert related_pairs(made("The answer is kind."), 5) == []


def test_a_shipped_constitution_is_checked_by_its_name_and_a_file_by_its_path(tmp_path: Path) -> None:
    shipped = PROJECT / "constitutions" / "south_africa.yaml"
    assert main(["constitution", "check", "south_africa"]) == 0
    assert find_constitution(Path("south_africa")) == shipped
    assert find_constitution(shipped) == shipped
    assert find_constitution(tmp_path / "mine.yaml") == tmp_path / "mine.yaml"
    assert main(["constitution", "check", "no_such"]) == 78
