from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from jobs.measure.cosine import alike
from jobs.measure.findings import Near
from jobs.measure.minhash import SAME_PIECES, proposed, shared_pieces, signature, signatures
from jobs.measure.near import Distinct, clusters, near_pairs
from jobs.measure.terms import count_terms, tfidf

WORDS = (
    "council",
    "water",
    "letter",
    "school",
    "ban",
    "the",
    "a",
    "for",
    "village",
    "tax",
    "poem",
    "please",
    "against",
)
TEXT = st.lists(st.sampled_from(WORDS), min_size=0, max_size=12).map(" ".join)
TEXTS = st.lists(TEXT, max_size=14)
PROMPT = "Draft a letter to the village council that argues against a new tax on water for the school."


def partition(numbers: list[int]) -> set[frozenset[int]]:
    return {frozenset(at for at, other in enumerate(numbers) if other == number) for number in numbers}


@settings(deadline=None, max_examples=30)
@given(TEXTS)
def test_the_order_of_prompts_does_not_change_who_is_near_whom(texts: list[str]) -> None:
    last = len(texts) - 1
    forward = clusters(len(texts), near_pairs(texts))
    backward = clusters(len(texts), near_pairs(texts[::-1]))
    assert partition(forward) == {frozenset(last - row for row in rows) for rows in partition(backward)}


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12).flatmap(lambda count: st.tuples(st.just(count), st.lists(st.tuples(
    st.integers(0, count - 1), st.integers(0, count - 1)), max_size=12))))  # fmt: skip
def test_clusters_are_the_equivalence_that_the_pairs_span(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, links = case
    numbers = clusters(count, [Near(one, other, "exact", 1.0) for one, other in links])
    reach = np.eye(count, dtype=bool)
    for one, other in links:
        reach[one, other] = reach[other, one] = True
    for _ in range(count):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    assert [[one == other for other in numbers] for one in numbers] == reach.tolist()


@settings(deadline=None, max_examples=30)
@given(TEXTS, st.data())
def test_a_family_is_never_linked_with_itself_and_always_in_one_cluster(texts: list[str], data: st.DataObject) -> None:
    families = [data.draw(st.sampled_from("abc")) for _ in texts]
    near = near_pairs(texts, families)
    assert all(families[link.first] != families[link.second] for link in near)
    numbers = clusters(len(texts), near, families)
    assert all(
        len({number for number, name in zip(numbers, families, strict=True) if name == one}) <= 1 for one in "abc"
    )


@settings(deadline=None, max_examples=40)
@given(TEXTS)
def test_every_link_is_true_and_there_are_fewer_links_than_prompts(texts: list[str]) -> None:
    near = near_pairs(texts)
    assert len(near) <= max(0, len(texts) - 1)
    for link in near:
        if link.method == "minhash":
            assert shared_pieces(texts[link.first], texts[link.second]) == link.score >= SAME_PIECES


@settings(deadline=None, max_examples=40)
@given(st.lists(TEXT, min_size=2, max_size=14))
def test_cosine_finds_exactly_the_pairs_that_scikit_learn_finds(texts: list[str]) -> None:
    if not any(len(word) > 1 for text in texts for word in text.split()):
        return
    matrix = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
    scores = np.asarray((matrix @ matrix.T).todense())
    sure = {(one, other) for other in range(len(texts)) for one in range(other) if scores[one, other] > 0.8001}
    perhaps = {(one, other) for other in range(len(texts)) for one in range(other) if scores[one, other] > 0.7999}
    assert sure <= {(one, other) for one, other, _ in alike(texts)} <= perhaps


@pytest.mark.parametrize("texts", [[PROMPT, "A poem about a tax, a tax on tea", "", "a"], [], ["", "a"]])
def test_tfidf_equals_scikit_learns(texts: list[str]) -> None:
    matrix = tfidf(texts)
    assert matrix.shape[0] == len(texts)
    if matrix.shape[1]:
        theirs = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
        assert np.allclose((matrix @ matrix.T).todense(), (theirs @ theirs.T).todense(), atol=1e-6)
        terms = count_terms(texts)
        names = {terms.name(column) for column in range(terms.matrix.shape[1])}
        assert names == set(TfidfVectorizer(ngram_range=(1, 2)).fit(texts).get_feature_names_out())


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
def test_many_signatures_at_once_equal_datasketchs_one_by_one(texts: list[str]) -> None:
    assert signatures(texts).tolist() == [signature(text).hashvalues.tolist() for text in texts]


def test_the_bands_propose_what_datasketchs_index_proposes() -> None:
    from jobs.measure.minhash import bands

    texts = [f"{PROMPT[:cut]} and then {cut} more words follow" for cut in range(20, 90, 3)]
    index, theirs = bands(), set()
    for row, text in enumerate(texts):
        sketch = signature(text)
        theirs |= {(other, row) for other in index.query(sketch)}
        index.insert(row, sketch)
    assert theirs
    assert set(proposed(texts)) == theirs


@pytest.mark.parametrize(
    "other",
    [
        PROMPT.upper(),
        PROMPT.replace("Draft", "Please draft"),
        PROMPT.replace("village", "rural"),
        "For the school, a letter that argues against a new tax on water: draft it to the village council.",
    ],
)
def test_a_prompt_said_again_is_recognised(other: str) -> None:
    distinct = Distinct()
    distinct.add("Write a poem about mountains in the rain and the people who live there.")
    distinct.add(PROMPT)
    assert distinct.same_as(other) == PROMPT
    assert distinct.same_as(other, besides={PROMPT}) is None


def test_another_prompt_on_the_same_subject_is_not_the_same() -> None:
    distinct = Distinct()
    distinct.add(PROMPT)
    assert distinct.same_as("How do I object to a water tax that my village council plans to raise next year?") is None


def test_a_thousand_equal_prompts_are_one_cluster_with_one_link_each() -> None:
    near = near_pairs([PROMPT] * 1000)
    assert len(near) == 999
    assert len(set(clusters(1000, near))) == 1


def test_a_copy_of_a_prompt_that_is_not_its_twin_is_found_beside_the_twin() -> None:
    near = near_pairs([PROMPT, PROMPT, PROMPT], ["a", "a", "b"])
    assert {link.second for link in near} == {2}
    assert near_pairs([PROMPT, PROMPT], ["a", "a"]) == []
