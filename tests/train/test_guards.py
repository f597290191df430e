"""Every guard fires on what it is there for, and is silent on a good row."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jobs.common.errors import ConfigError, DataError
from jobs.train import guards

END, BOS, NEWLINE, WORD = 2, 1, 3, 9
TEXTS = {END: "<end>", BOS: "<s>", NEWLINE: "\n"}
GOOD = guards.MaskedRow(
    "r",
    input_ids=[BOS, 7, 8, 20, 21, END, NEWLINE],
    labels=[-100, -100, -100, 20, 21, END, NEWLINE],
    prompt_ids=[BOS, 7, 8],
    cut=False,
)
TOKENS = guards.TurnTokens(end_of_turn=END, bos=BOS)
TOKENIZER = SimpleNamespace(decode=lambda ids: "".join(TEXTS.get(token, f"w{token} ") for token in ids))


def test_a_good_row_passes_and_is_shown_with_its_trained_part() -> None:
    guards.check_row(GOOD, TOKENS, TOKENIZER)

    shown = guards.show_mask(GOOD, TOKENIZER)
    assert shown == "Row r: 4 of 7 tokens are trained, between [[ and ]]:\n<s>w7 w8 [[w20 w21 <end>\n]]\n"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"labels": [-100] * 7}, "no token is trained"),
        ({"labels": [-100, -100, 8, 20, 21, END, NEWLINE]}, "system and user turns are 3 tokens"),
        ({"labels": [BOS, 7, 8, 20, 21, END, NEWLINE]}, "system and user turns are 3 tokens"),
        ({"labels": [-100, -100, -100, 20, -100, END, NEWLINE]}, "not one piece"),
        ({"labels": [-100, -100, -100, 20, 21, END, -100]}, "not one piece"),
        ({"labels": [-100, -100, -100, 20, 22, END, NEWLINE]}, "not one piece"),
        ({"prompt_ids": [BOS, 7]}, "not what the model sees"),
        ({"input_ids": [BOS, 7, 8, 20, 21], "labels": [-100, -100, -100, 20, 21]}, "trained 0 times"),
        ({"input_ids": [BOS, 7, 8, END, 21, END], "labels": [-100, -100, -100, END, 21, END]}, "trained 2 times"),
        (
            {"input_ids": [BOS, 7, 8, 20, END, WORD], "labels": [-100, -100, -100, 20, END, WORD]},
            "text follows the end",
        ),
        (
            {
                "input_ids": [BOS, BOS, 8, 20, END],
                "labels": [-100, -100, -100, 20, END],
                "prompt_ids": [BOS, BOS, 8],
            },
            "2 BOS tokens",
        ),
        (
            {"input_ids": [6, 7, 8, 20, END], "labels": [-100, -100, -100, 20, END], "prompt_ids": [6, 7, 8]},
            "0 BOS tokens",
        ),
    ],
)
def test_a_broken_mask_stops(broken: dict[str, list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        guards.check_row(replace(GOOD, **broken), TOKENS, TOKENIZER)  # type: ignore[arg-type]


def test_a_cut_row_may_end_without_its_end_of_turn() -> None:
    cut = replace(GOOD, input_ids=GOOD.input_ids[:5], labels=GOOD.labels[:5], cut=True)

    guards.check_row(cut, TOKENS, TOKENIZER)


def test_a_template_without_bos_is_not_asked_for_one() -> None:
    guards.check_row(GOOD, replace(TOKENS, bos=None), TOKENIZER)


@pytest.mark.parametrize("mask", [[0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]], ids=["newline outside", "inside"])
def test_markers_may_differ_from_the_mask_by_white_space(mask: list[int]) -> None:
    guards.check_generation_markers(GOOD, mask, TOKENIZER)


@pytest.mark.parametrize("mask", [[0, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 0]], ids=["end left out", "prompt inside"])
def test_markers_that_disagree_stop(mask: list[int]) -> None:
    with pytest.raises(DataError, match="generation markers"):
        guards.check_generation_markers(GOOD, mask, TOKENIZER)


@pytest.mark.parametrize(("pad", "ends"), [(2, [2, 5]), (2, 2), (7, [2])], ids=["in list", "is the end", "another"])
def test_padding_that_ends_an_answer_stops(pad: int, ends: object) -> None:
    with pytest.raises(DataError, match="must not end an answer"):
        guards.check_padding(SimpleNamespace(eos_token_id=ends, pad_token_id=pad), 2)


def test_padding_of_its_own_passes() -> None:
    guards.check_padding(SimpleNamespace(eos_token_id=[2, 5], pad_token_id=0), 0)


@pytest.mark.parametrize(
    "reference",
    [{"a": torch.tensor([1.0, 2.0 + 2e-7])}, {"b": torch.tensor([1.0, 2.0])}, {}],
    ids=["one bit", "other layer", "nothing"],
)
def test_a_policy_that_is_not_its_reference_stops(reference: dict[str, torch.Tensor]) -> None:
    with pytest.raises(DataError, match="policy and reference"):
        guards.check_same_adapters({"a": torch.tensor([1.0, 2.0])}, reference)


def test_a_bf16_policy_stops() -> None:
    rounded = {"a": torch.ones(2, dtype=torch.bfloat16)}
    with pytest.raises(DataError, match="bfloat16"):
        guards.check_same_adapters(rounded, rounded)


def test_a_reference_that_moved_stops() -> None:
    guards.check_reference_kept("a" * 64, "a" * 64)

    with pytest.raises(DataError, match=r"the reference changed during training .*cai dpo --redo"):
        guards.check_reference_kept("a" * 64, "b" * 64)


@pytest.mark.parametrize("name", ["rewards/chosen", "rewards/rejected", "rewards/margins"])
def test_a_margin_that_is_not_exactly_zero_stops(name: str) -> None:
    figures = dict.fromkeys(("rewards/chosen", "rewards/rejected", "rewards/margins"), 0.0)
    guards.check_start(figures)

    with pytest.raises(DataError, match=f"{name} of the first batch is 1e-09"):
        guards.check_start(figures | {name: 1e-9})


@pytest.mark.parametrize(("precision", "limit"), guards.REFERENCE_TOLERANCE.items())
def test_a_stored_reference_may_be_off_by_rounding_alone(precision: str, limit: float) -> None:
    guards.check_stored_reference(limit, precision, "runs/reference")

    for error in (limit * 1.01, float("nan")):
        with pytest.raises(DataError, match=f"limit .* in {precision}.*Remove runs/reference and run: cai dpo --redo"):
            guards.check_stored_reference(error, precision, "runs/reference")


def test_rows_longer_than_a_sliding_window_are_refused() -> None:
    stage: Any = SimpleNamespace(
        plan=SimpleNamespace(name="sft"), context=SimpleNamespace(command=lambda *given: " ".join(["cai", *given]))
    )
    guards.check_window(SimpleNamespace(sliding_window=4096), 4096, stage)
    guards.check_window(SimpleNamespace(sliding_window=None), 8192, stage)
    guards.check_window(SimpleNamespace(), 8192, stage)

    with pytest.raises(ConfigError, match=r"window of 4096 tokens .*Run: cai sft --redo --set sft.max_length=4096"):
        guards.check_window(SimpleNamespace(sliding_window=4096), 4097, stage)
