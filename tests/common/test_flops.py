"""The arithmetic of LoRA training against numbers worked out by hand."""

from __future__ import annotations

import pytest

from jobs.common.flops import Work, causal_context, mfu
from jobs.common.model_shape import KNOWN, ModelShape


@pytest.mark.parametrize(
    ("name", "forward", "sft", "recomputing"),
    [
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", 3.62, 7.4, 10.8),
        ("mistralai/Mistral-7B-Instruct-v0.3", 14.76, 29.8, 44.3),
    ],
)
def test_gigaflops_per_token_at_2048_tokens(name: str, forward: float, sft: float, recomputing: float) -> None:
    work = Work(KNOWN[name], 16, causal_context([2048]))
    assert work.forward / 1e9 == pytest.approx(forward, abs=0.01)
    assert work.training / 1e9 == pytest.approx(sft, rel=0.03)  # the round figures count attention's gradient once
    assert (work.training + work.recomputed) / 1e9 == pytest.approx(recomputing, rel=0.03)
    assert work.training < 0.75 * 3 * work.forward  # training every weight would be three times forward


def test_one_tiny_layer_is_counted_product_by_product() -> None:
    shape = ModelShape(hidden=4, intermediate=8, layers=1, heads=2, kv_heads=1, head_dim=2, vocab=10, tied=True)
    work = Work(shape, lora_rank=1, context=3, scored_share=0.5)
    linear = 4 * 4 + 2 * (4 * 2) + 4 * 4 + 3 * (4 * 8)
    attention, head = 2 * 2 * 4 * 3, 0.5 * 2 * 4 * 10
    adapter = 8 + 6 + 6 + 8 + 12 + 12 + 12
    assert work.forward == 2 * linear + attention + head
    assert work.training == 4 * linear + 3 * attention + 2 * head + 6 * adapter
    assert work.recomputed == 2 * linear + attention + 2 * adapter


def test_context_is_the_mean_over_positions_not_over_rows() -> None:
    assert causal_context([1]) == 1
    assert causal_context([1, 3]) == (1 + 1 + 2 + 3) / 4


def test_mfu_is_the_share_of_the_peak() -> None:
    work = Work(KNOWN["HuggingFaceTB/SmolLM2-1.7B-Instruct"], 16, 1024)
    assert mfu(989e12 / work.training, work, 989e12) == pytest.approx(1)
