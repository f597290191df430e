"""Every guard fires on what it is there for, and is silent on a good row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jobs.common.errors import ConfigError, DataError
from jobs.train import guards

AGAIN = "cai sft --run r --recipe mine.yaml --redo"


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
    with pytest.raises(DataError, match=f"policy and reference .* Run: {AGAIN}"):
        guards.check_same_adapters({"a": torch.tensor([1.0, 2.0])}, reference, AGAIN)


def test_a_bf16_policy_stops() -> None:
    rounded = {"a": torch.ones(2, dtype=torch.bfloat16)}
    with pytest.raises(DataError, match=f"bfloat16.* Run: {AGAIN}"):
        guards.check_same_adapters(rounded, rounded, AGAIN)


def test_a_reference_that_moved_stops() -> None:
    guards.check_reference_kept("a" * 64, "a" * 64, AGAIN)

    with pytest.raises(DataError, match=f"the reference changed during training .* Run: {AGAIN}"):
        guards.check_reference_kept("a" * 64, "b" * 64, AGAIN)


@pytest.mark.parametrize("name", ["rewards/chosen", "rewards/rejected", "rewards/margins"])
def test_a_margin_that_is_not_exactly_zero_stops(name: str) -> None:
    figures = dict.fromkeys(("rewards/chosen", "rewards/rejected", "rewards/margins"), 0.0)
    guards.check_start(figures)

    with pytest.raises(DataError, match=f"{name} of the first batch is 1e-09"):
        guards.check_start(figures | {name: 1e-9})


@pytest.mark.parametrize(("precision", "limit"), guards.REFERENCE_TOLERANCE.items())
def test_a_stored_reference_may_be_off_by_rounding_alone(precision: str, limit: float) -> None:
    guards.check_stored_reference(limit, precision, "runs/reference", AGAIN)

    for error in (limit * 1.01, float("nan")):
        with pytest.raises(DataError, match=f"limit .* in {precision}.*Remove runs/reference and run: {AGAIN}"):
            guards.check_stored_reference(error, precision, "runs/reference", AGAIN)


@pytest.mark.parametrize(
    ("kind", "window", "most"),
    [
        ("LlamaConfig", {}, 8192),
        ("MistralConfig", {"sliding_window": 4096}, 4096),
        ("Qwen2Config", {"sliding_window": 4096, "use_sliding_window": True}, 4096),
        ("Qwen2Config", {"sliding_window": 4096, "use_sliding_window": False}, 8192),
    ],
)
def test_rows_longer_than_what_the_model_reads_are_refused(kind: str, window: dict[str, Any], most: int) -> None:
    import transformers

    stage: Any = SimpleNamespace(
        plan=SimpleNamespace(name="sft"), context=SimpleNamespace(command=lambda *given: " ".join(["cai", *given]))
    )
    config = getattr(transformers, kind)(max_position_embeddings=8192, **window)
    guards.check_window(config, most, stage)

    with pytest.raises(
        ConfigError, match=rf"sft: max_length {most + 1} .*: cai sft --redo --set sft.max_length={most}$"
    ):
        guards.check_window(config, most + 1, stage)
