"""Pairs come out with sides of one length: by whole sentences, by rewrites, by minimal edits, or not at all."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.generate.fitting import LEAST_LEFT, beginnings, fit_both, fit_one
from jobs.generate.rewrite import LEAST_WORDS, NEAR, is_longer, target_words, word_bounds
from tests.generate.scripted import Scripted, fair, text_of
from tests.generate.world import World

BALANCE = ("judge.rule=both_orders", "generate.balance=true", "generate.prompts_per_principle=12")
TEXT = st.lists(st.integers(1, 25), min_size=1, max_size=12).map(
    lambda lengths: " ".join(" ".join(["word"] * length) + "." for length in lengths)
)


def pairs(world: World) -> list[dict[str, Any]]:
    return world.rows("pairs.jsonl") + world.rows("held_out_pairs.jsonl")


def words(text: str) -> int:
    return len(text.split())


def test_a_teacher_that_writes_long_is_brought_to_the_length_of_the_rejected_side(world: World) -> None:
    world.server.respond = Scripted(student_words=63, revision_words=124)
    assert world.sets(*BALANCE) == 0
    found = pairs(world)
    assert len(found) == sum(row["split"] != "sft" for row in world.rows("prompts.jsonl")), "no pair is lost"
    assert all(abs(words(row["chosen"]) - words(row["rejected"])) <= NEAR * words(row["rejected"]) for row in found)
    longer = sum(words(row["chosen"]) > words(row["rejected"]) for row in found)
    shorter = sum(words(row["chosen"]) < words(row["rejected"]) for row in found)
    assert min(longer, shorter) >= 0.25 * len(found), (longer, shorter)
    assert {row["chosen_by"] for row in found} == {"rewrite"}
    assert {row["rejected_by"] for row in found} == {"student"}
    assert all(row["preference_probability"] == pytest.approx(0.8) for row in found), "judged again"
    assert all(words(row["completion"]) == 124 for row in world.rows("sft.jsonl")), "no rejected side, no rewrite"
    assert world.manifest()["counts"]["rewrites"] == len(found)


def test_whole_sentences_are_left_out_before_anybody_is_asked(world: World) -> None:
    scripted = world.server.respond = Scripted(student_words=60, revision_words=80)
    assert world.sets(*BALANCE) == 0
    assert "rewrite" not in scripted.asked
    assert "edit" not in scripted.asked
    chains = {row["id"]: row for row in world.rows("revisions.jsonl")}
    for row in pairs(world):
        assert chains[row["id"]]["revision"].startswith(row["chosen"])
        assert chains[row["id"]]["initial_response"].startswith(row["rejected"])
        least, most = word_bounds(row["id"], row["rejected"])
        assert least <= words(row["chosen"]) <= most


def test_where_a_rewrite_misses_the_length_the_rejected_side_is_a_minimal_edit(world: World) -> None:
    world.server.respond = Scripted(student_words=33, revision_words=128, obeys=False)
    assert world.sets(*BALANCE) == 0
    found = pairs(world)
    assert {row["rejected_by"] for row in found} == {"minimal_edit"}
    assert {row["rejected_model"] for row in found} == {"fake-teacher"}
    assert {row["chosen_by"] for row in found} == {"revision"}
    assert all(abs(words(row["chosen"]) - words(row["rejected"])) <= NEAR * words(row["rejected"]) for row in found)
    longer = sum(words(row["chosen"]) > words(row["rejected"]) for row in found)
    assert 0.25 * len(found) <= longer <= 0.75 * len(found)
    assert world.manifest()["counts"]["minimal_edits"] == len(found)


def test_a_teacher_that_neither_rewrites_nor_edits_loses_its_pairs_with_the_reason(world: World) -> None:
    world.server.respond = Scripted(student_words=33, revision_words=128, obeys=False, edits=False)
    assert world.sets(*BALANCE, "generate.tries=2") == 0
    assert pairs(world) == []
    dropped = world.rows("dropped.jsonl")
    assert Counter(row["drop_reason"] for row in dropped) == {"unbalanced": 36 - len(world.rows("sft.jsonl"))}
    assert "chosen has 128 words, rejected 33" in dropped[0]["detail"]


def test_a_pair_that_cannot_be_balanced_but_nearly_is_stays_as_it_is(world: World) -> None:
    # Long sentences: nothing can be left out; no rewrite, no edit; 40 against 45 words.
    def one_sentence(body: dict[str, Any]) -> str:
        return text_of(str(body), 40).replace(".", "") + "."

    world.server.respond = Scripted(student=one_sentence, revision_words=45, obeys=False, edits=False)
    assert world.sets(*BALANCE, "generate.tries=2") == 0
    assert len(pairs(world)) == 36 - len(world.rows("sft.jsonl"))


def test_a_rewrite_that_no_longer_wins_is_not_used(world: World) -> None:
    def dislikes_rewrites(first: str, second: str) -> float:
        return fair(first, second) if 124 in {words(first), words(second)} else 0.5

    world.server.respond = Scripted(student_words=33, revision_words=124, taste=dislikes_rewrites)
    assert world.sets(*BALANCE) == 0
    assert {(row["chosen_by"], row["rejected_by"]) for row in pairs(world)} == {("revision", "minimal_edit")}
    assert "tie" in {row["verdict"] for row in world.rows("comparisons.jsonl")}


def test_without_a_judge_balance_asks_for_no_verdict(world: World) -> None:
    scripted = world.server.respond = Scripted(student_words=33, revision_words=124)
    assert world.sets("generate.balance=true") == 0
    assert "judge" not in scripted.asked
    assert {row["chosen_by"] for row in pairs(world)} == {"rewrite"}
    assert world.rows("comparisons.jsonl") == []


def test_rows_of_every_step_do_not_depend_on_the_order_of_arrival(world: World) -> None:
    from tests.fakes.openai_server import Answer

    changes = (*BALANCE, "initial.samples=2", "generate.max_revisions=2")
    scripted = world.server.respond = Scripted(student_words=33, revision_words=124, good_from_round=2)
    assert world.sets(*changes) == 0
    before = world.manifest()["outputs"]
    (world.runs / "journal" / "replies.jsonl").unlink()

    def late(body: dict[str, Any]) -> Answer:
        found = scripted(body)
        delay_s = len(str(body)) * 7919 % 30 / 1000
        if isinstance(found, Answer):
            return Answer(content=found.content, chances=found.chances, delay_s=delay_s)
        return Answer(content=found, delay_s=delay_s)

    world.server.respond = late
    assert world.generate("--redo", *(part for change in changes for part in ("--set", change))) == 0
    assert world.manifest()["outputs"] == before


@given(TEXT, TEXT, st.text(max_size=8))
def test_fitted_sides_are_balanced_beginnings(chosen: str, rejected: str, row_id: str) -> None:
    found = fit_both(row_id, chosen, rejected)
    if found is None:
        every = [(a, b) for a, _ in beginnings(chosen) for _, b in beginnings(rejected)]
        assert not any(word_bounds(row_id, b)[0] <= a <= word_bounds(row_id, b)[1] for a, b in every)
        return
    one, other = found
    assert chosen.startswith(one)
    assert rejected.startswith(other)
    assert words(one) >= LEAST_LEFT * words(chosen)
    assert words(other) >= LEAST_LEFT * words(rejected)
    least, most = word_bounds(row_id, other)
    assert least <= words(one) <= most


@given(TEXT, st.integers(1, 200), st.integers(0, 50))
def test_one_text_is_fitted_between_its_bounds_or_not_at_all(text: str, least: int, room: int) -> None:
    found = fit_one(text, least, least + room)
    assert found is None or (least <= words(found) <= least + room and text.startswith(found))


@given(TEXT, st.text(max_size=8))
def test_the_target_lies_within_the_bounds_on_the_rows_own_side(rejected: str, row_id: str) -> None:
    least, most = word_bounds(row_id, rejected)
    assert least <= target_words(row_id, rejected) <= most
    assert max(most - words(rejected), words(rejected) - least) <= max(LEAST_WORDS, NEAR * words(rejected))


def test_half_of_all_rows_are_to_be_longer() -> None:
    longer = sum(is_longer(f"ubuntu-{number:010x}") for number in range(2000))
    assert 900 < longer < 1100
