"""Splits that others measure on are told by their names, however they write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.train_split import is_train_split

MEASURED_ON = (
    "test", "test_sft", "TEST", "train_test", "validation", "valid", "validation_matched", "val", "val_prefs", "valset",
    "dev", "dev-clean", "train_dev", "trainval", "devset", "development", "eval", "evaluation", "eval_sft", "heldout",
    "held_out", "held-out", "holdout", "prefs_dev2",
)  # fmt: skip
TRAINED = (
    "train", "train_sft", "train_prefs", "Train", "all", "default", "en", "retrieval", "medieval", "devanagari",
    "developer", "train_valence", "sft", "part1",
)  # fmt: skip


@pytest.mark.parametrize("name", MEASURED_ON)
def test_a_split_to_measure_on_is_refused(name: str) -> None:
    assert not is_train_split(name)


@pytest.mark.parametrize("name", TRAINED)
def test_any_other_split_may_be_trained(name: str) -> None:
    assert is_train_split(name)


@given(st.sampled_from(MEASURED_ON), st.text(st.characters(categories=["Nd", "Po", "Pd", "Pc"]), max_size=4))
def test_digits_and_signs_around_a_name_hide_nothing(name: str, around: str) -> None:
    assert not is_train_split(f"{around}{name}{around}".swapcase())
