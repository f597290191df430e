"""Figures of held-out pairs: per principle, beside length alone, and the alarm for displaced likelihood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from jobs.train.margins import DISPLACED, GAINED, Judged, alarm, by_principle, displaced, length_baseline

LENGTHS = some.lists(some.tuples(some.integers(1, 9), some.integers(1, 9)), min_size=1, max_size=20)


def test_every_principle_has_its_own_margin_and_accuracy() -> None:
    pairs = [Judged("ubuntu", 2.0, 1.0), Judged("ubuntu", 0.0, 2.0), Judged("peace", 1.0, 0.5), Judged("tie", 1.0, 1.0)]

    assert by_principle(pairs) == {
        "margin/ubuntu": -0.5, "accuracy/ubuntu": 0.5,
        "margin/peace": 0.5, "accuracy/peace": 1.0,
        "margin/tie": 0.0, "accuracy/tie": 0.0,
    }  # fmt: skip


def test_length_alone_is_learned_on_training_pairs_and_applied_to_held_out_ones() -> None:
    found = length_baseline([(1, 2), (1, 2), (3, 1)], [(1, 2), (5, 2), (7, 3), (2, 2)])

    assert found.rule == "shorter"
    assert found.train == pytest.approx(2 / 3)
    assert found.held_out == (1 + 0 + 0 + 0.5) / 4
    assert length_baseline([(2, 1)], []).held_out is None


@given(LENGTHS, LENGTHS)
def test_the_learned_rule_is_never_worse_than_chance_where_it_was_learned(
    train: list[tuple[int, int]], held_out: list[tuple[int, int]]
) -> None:
    found = length_baseline(train, held_out)
    swapped = length_baseline([(b, a) for a, b in train], [(b, a) for a, b in held_out])

    assert found.train >= 0.5
    assert swapped.train == pytest.approx(found.train)
    if found.train > 0.5 + 1e-9:
        assert swapped.held_out == pytest.approx(found.held_out)
        assert swapped.rule != found.rule


@pytest.mark.parametrize(
    ("gained", "margin", "rings"),
    [(-DISPLACED - 0.01, 0.3, True), (-DISPLACED, 0.3, False), (0.1, 0.3, False), (-1.0, -0.1, False)],
    ids=["displaced", "at the limit", "gained", "margins fall too"],
)
def test_the_alarm_needs_falling_chosen_answers_and_rising_margins(gained: float, margin: float, rings: bool) -> None:
    line = alarm(gained, margin, accepted=False)

    assert (line is not None) == rings
    assert line is None or "--set 'dpo.loss_type=[sigmoid,sft]'" in line


def test_a_run_that_has_the_remedy_is_told_to_raise_its_weight() -> None:
    line = alarm(-0.5, 1.0, accepted=True)

    assert line is not None
    assert "Raise the weight of sft in dpo.loss_weights" in line


def test_displacement_is_read_off_held_out_pairs_else_off_the_last_steps() -> None:
    history = [{GAINED: 0.0, "rewards/margins": 0.0}] * 19 + [{GAINED: -0.5, "rewards/margins": 2.0}]

    assert displaced({GAINED: -0.1, "rewards/margins": 1.0}, history) == (-0.1, 1.0)
    assert displaced({}, [*history, {"train_runtime": 3}]) == (-0.25, 1.0)
