"""The memory model: sizes that are known, what must grow with what, and that what is said to fit does fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.errors import DataError
from jobs.common.fitting import GPU_TOKENS, device_bytes, fit_to, usable_bytes
from jobs.common.memory import GIB, Load, peak_bytes
from jobs.common.model_shape import KNOWN, ModelShape, shape_of

LARGE = KNOWN["HuggingFaceTB/SmolLM2-1.7B-Instruct"]
MISTRAL = KNOWN["mistralai/Mistral-7B-Instruct-v0.3"]
SIXTEEN_GB = (16e9, 15.6 * GIB)
"""Sixteen billion bytes, and what a 16 GB card reports."""

loads = st.builds(
    Load,
    shape=st.sampled_from([KNOWN["embedded"], LARGE, MISTRAL]),
    lora_rank=st.sampled_from([4, 16, 64]),
    micro_batch_tokens=st.integers(1, 8192),
    quantization=st.sampled_from(["none", "nf4"]),
    precision=st.sampled_from(["bf16", "fp32"]),
    gradient_checkpointing=st.booleans(),
    compiled=st.booleans(),
    scored_share=st.floats(0, 1),
    device=st.sampled_from(["cuda", "cpu"]),
)


@pytest.mark.parametrize(
    ("name", "weights", "adapter"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008, 4_884_480),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120, 8_683_520),
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711_376_384, 18_087_936),
        ("mistralai/Mistral-7B-Instruct-v0.2", 7_241_732_096, 41_943_040),
        ("mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552, 41_943_040),
    ],
)
def test_known_students_have_the_published_number_of_weights(name: str, weights: int, adapter: int) -> None:
    assert KNOWN[name].parameters == weights
    assert KNOWN[name].lora_parameters(16) == adapter


CONFIG = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


def test_a_config_gives_the_shape_with_the_defaults_of_the_library() -> None:
    assert shape_of(CONFIG) == LARGE
    bare = {key: value for key, value in CONFIG.items() if key not in {"num_key_value_heads", "tie_word_embeddings"}}
    assert shape_of(bare | {"head_dim": None}) == replace(LARGE, tied=False)
    assert shape_of(CONFIG | {"head_dim": 128}).queries == 32 * 128


@pytest.mark.parametrize("value", [None, 0, -1, "2048", 2048.0, True])
def test_a_config_without_a_size_names_it(value: Any) -> None:
    with pytest.raises(DataError, match="intermediate_size"):
        shape_of(CONFIG | {"intermediate_size": value})


def test_weights_take_what_their_dtype_takes() -> None:
    bf16 = peak_bytes(Load(MISTRAL, 16, 2048))
    nf4 = peak_bytes(Load(MISTRAL, 16, 2048, quantization="nf4"))
    assert bf16.weights == 2 * MISTRAL.parameters
    assert nf4.weights / GIB == pytest.approx(3.85, abs=0.02)
    assert bf16.adapter + bf16.gradients + bf16.optimizer == 18 * MISTRAL.lora_parameters(16)


@pytest.mark.parametrize(
    ("measured_gib", "load"),
    [
        pytest.param(37.4, Load(LARGE, 16, 16384, compiled=True), id="1.7B compiled"),
        pytest.param(32.7, Load(LARGE, 16, 16384, compiled=True), id="1.7B compiled, whole run"),
        pytest.param(43.9, Load(LARGE, 16, 16384), id="1.7B not compiled"),
        pytest.param(45.4, Load(MISTRAL, 16, 8192, compiled=True), id="7B compiled"),
        pytest.param(27.3, Load(MISTRAL, 16, 4096, quantization="nf4"), id="7B in 4 bits, not compiled"),
    ],
)
def test_the_peak_is_within_a_tenth_of_what_an_h100_measured(measured_gib: float, load: Load) -> None:
    for scored_share in (0.6, 1.0):
        peak = peak_bytes(replace(load, scored_share=scored_share)).total / GIB
        assert peak == pytest.approx(measured_gib, rel=0.1)


@given(load=loads, more=st.integers(1, 8192))
def test_the_peak_grows_with_tokens_rank_scored_share_and_precision(load: Load, more: int) -> None:
    peak = peak_bytes(load).total
    assert peak_bytes(replace(load, micro_batch_tokens=load.micro_batch_tokens + more)).total > peak
    assert peak_bytes(replace(load, lora_rank=load.lora_rank + more)).total > peak
    assert peak_bytes(replace(load, scored_share=1.0)).total >= peak
    assert peak_bytes(replace(load, precision="fp32")).total >= peak


@given(load=loads)
def test_compiled_layers_never_take_more_than_eager_ones(load: Load) -> None:
    compiled, eager = (peak_bytes(replace(load, compiled=it)) for it in (True, False))
    assert compiled.activations <= eager.activations
    assert compiled.total <= eager.total


@given(load=loads)
def test_checkpointing_and_four_bits_never_take_more(load: Load) -> None:
    kept = replace(load, gradient_checkpointing=False)
    assert peak_bytes(replace(kept, gradient_checkpointing=True)).total < peak_bytes(kept).total
    dense, packed = (peak_bytes(replace(load, quantization=kind)) for kind in ("none", "nf4"))
    assert packed.weights < dense.weights
    assert packed.activations == dense.activations


@given(load=loads, memory_gib=st.floats(1, 200))
def test_what_is_said_to_fit_fits_and_is_the_most(load: Load, memory_gib: float) -> None:
    memory = memory_gib * GIB
    room = usable_bytes(memory, load.device)
    found = fit_to(load, memory)
    if found is None:
        assert peak_bytes(replace(load, gradient_checkpointing=True)).total > room
        assert peak_bytes(replace(load, gradient_checkpointing=False)).total > room
        return
    tokens, checkpointing = found
    chosen = replace(load, micro_batch_tokens=tokens, gradient_checkpointing=checkpointing)
    assert tokens >= load.micro_batch_tokens
    assert peak_bytes(chosen).total <= room
    if checkpointing:
        assert peak_bytes(replace(load, gradient_checkpointing=False)).total > room
    if load.device == "cuda" and tokens < GPU_TOKENS:
        assert peak_bytes(replace(chosen, micro_batch_tokens=tokens + 1024)).total > room
    assert fit_to(load, memory, (checkpointing,)) == found


@given(load=loads)
def test_the_smallest_device_that_holds_a_peak_holds_it(load: Load) -> None:
    peak = peak_bytes(load).total
    assert usable_bytes(device_bytes(peak, load.device), load.device) == pytest.approx(peak)


@pytest.mark.parametrize("memory", SIXTEEN_GB)
@pytest.mark.parametrize("longest", [2048, 4096], ids=["sft", "dpo"])
@pytest.mark.parametrize("compiled", [False, True])
def test_mistral_7b_in_four_bits_and_smollm2_fit_16_gb_at_2048_tokens(
    memory: float, longest: int, compiled: bool
) -> None:
    assert fit_to(Load(MISTRAL, 16, longest, quantization="nf4", compiled=compiled), memory)
    assert fit_to(Load(LARGE, 16, longest, compiled=compiled), memory)
    assert fit_to(Load(MISTRAL, 16, longest, compiled=compiled), memory) is None


def test_a_cpu_takes_small_passes_but_never_less_than_the_longest_row() -> None:
    load = Load(KNOWN["embedded"], 16, 100, precision="fp32", device="cpu")
    assert fit_to(load, 8 * GIB) == (2048, False)
    assert fit_to(replace(load, micro_batch_tokens=5000), 64 * GIB) == (5120, False)


def test_a_row_between_two_grid_points_is_tried_itself() -> None:
    load = Load(MISTRAL, 16, 1500, quantization="nf4")
    exact = device_bytes(peak_bytes(load).total, "cuda")
    assert fit_to(load, exact + 1) == (1500, False)


def test_shapes_are_compared_by_value() -> None:
    assert ModelShape(8, 16, 1, 2, 1, 4, 100, tied=True).linears == (
        (8, 8), (8, 4), (8, 4), (8, 8), (8, 16), (8, 16), (16, 8),
    )  # fmt: skip
