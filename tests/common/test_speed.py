"""How fast training should go beside what one H100 measured, and when compiling the layers pays."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobs.common.flops import Work
from jobs.common.gpus import GPUS
from jobs.common.memory import Load
from jobs.common.model_shape import KNOWN
from jobs.common.settings import DpoSettings, SftSettings
from jobs.common.speed import (
    COMPILE_S,
    SHARES,
    STEP_S,
    Amount,
    beside_passes_s,
    compile_pays,
    share_of_peak,
    tokens_per_s,
)

LARGE = KNOWN["HuggingFaceTB/SmolLM2-1.7B-Instruct"]
MISTRAL = KNOWN["mistralai/Mistral-7B-v0.1"]
H100 = next(gpu.bf16_flops for gpu in GPUS if gpu.name == "H100") or 0.0
PROJECT = Path(__file__).resolve().parents[2]
CONTEXT = 100
"""Of packed rows of 60 to 300 tokens, about."""


def load(shape: Any, tokens: int, **how: Any) -> Load:
    return Load(shape, 16, tokens, **how)


@pytest.mark.parametrize(
    ("measured", "ran"),
    [
        pytest.param(61_300, load(LARGE, 16384, compiled=True), id="1.7B compiled"),
        pytest.param(37_400, load(LARGE, 16384), id="1.7B not compiled"),
        pytest.param(16_100, load(MISTRAL, 8192, compiled=True), id="7B compiled"),
        pytest.param(8_900, load(MISTRAL, 4096, quantization="nf4"), id="7B in 4 bits, not compiled"),
    ],
)
def test_passes_alone_go_as_fast_as_an_h100_ran_them(measured: int, ran: Load) -> None:
    assert tokens_per_s("sft", Work(ran.shape, 16, CONTEXT), ran, H100) == pytest.approx(measured, rel=0.05)


def test_a_whole_run_is_as_fast_as_an_h100_ran_it_with_what_every_step_takes_besides() -> None:
    ran = load(LARGE, 10_000, compiled=True)
    step_s = 10_000 / tokens_per_s("sft", Work(LARGE, 16, CONTEXT), ran, H100) + STEP_S
    assert 10_000 / step_s == pytest.approx(39_900, rel=0.05)


def test_every_width_has_shares_and_neither_four_bits_nor_eager_layers_are_faster() -> None:
    assert [it.least_hidden for it in SHARES] == sorted((it.least_hidden for it in SHARES), reverse=True)
    assert SHARES[-1].least_hidden == 0
    for it in SHARES:
        assert 0 < it.nf4_eager < it.nf4_compiled <= it.compiled < 1
        assert it.nf4_eager <= it.eager < it.compiled


def test_the_guide_names_the_shares_that_are_used() -> None:
    guide = (PROJECT / "docs" / "plan-and-budget.md").read_text(encoding="utf-8").replace("*", "")
    named = re.findall(r"^\| (?:from ([\d,]+)|below) \|(.*)\|$", guide, re.MULTILINE)
    found = [(int(width.replace(",", "") or 0), *map(float, shares.split("|"))) for width, shares in named]
    assert found == [(it.least_hidden, it.compiled, it.eager, it.nf4_compiled, it.nf4_eager) for it in SHARES]


def test_a_cpu_compiles_nothing_and_its_steps_take_nothing_besides() -> None:
    cpu = load(LARGE, 2048, device="cpu")
    assert not compile_pays("sft", SftSettings(epochs=1e6), cpu, Amount(10, 10_000), 1e12)
    assert beside_passes_s(cpu, steps=100) == 0
    assert share_of_peak("dpo", cpu) == share_of_peak("sft", replace(cpu, quantization="nf4"))


def test_a_device_of_unknown_peak_compiles_nothing() -> None:
    assert not compile_pays("sft", SftSettings(epochs=1e6), load(LARGE, 2048), Amount(10, 10_000), None)


def test_compiling_is_counted_once_and_every_step_by_itself() -> None:
    eager = load(LARGE, 2048)
    assert beside_passes_s(eager, 100) == pytest.approx(100 * STEP_S)
    assert beside_passes_s(replace(eager, compiled=True), 100) == pytest.approx(100 * STEP_S + COMPILE_S)


@given(
    stage=st.sampled_from(["sft", "dpo"]),
    asked=st.builds(
        Load,
        st.sampled_from([KNOWN["embedded"], LARGE, MISTRAL]),
        st.just(16),
        st.just(4096),
        quantization=st.sampled_from(["none", "nf4"]),
    ),
    amount=st.builds(Amount, st.integers(1, 20_000), st.integers(20_000, 40_000_000)),
    epochs=st.floats(0.1, 20),
    peak=st.floats(4e13, 1e15),
)
def test_layers_are_compiled_exactly_where_the_whole_stage_ends_earlier(
    stage: Literal["sft", "dpo"], asked: Load, amount: Amount, epochs: float, peak: float
) -> None:
    settings = SftSettings(epochs=epochs) if stage == "sft" else DpoSettings(epochs=epochs)
    work = Work(asked.shape, 16, amount.tokens / amount.rows / 2)

    def seconds(compiled: bool) -> float:
        ran = replace(asked, compiled=compiled)
        return epochs * amount.tokens / tokens_per_s(stage, work, ran, peak) + beside_passes_s(ran, 10)

    won = seconds(False) - seconds(True)
    assume(abs(won) > 1e-6)
    assert compile_pays(stage, settings, asked, amount, peak) == (won > 0)
    unread = replace(asked, compiled=True, gradient_checkpointing=True)
    assert compile_pays(stage, settings, unread, amount, peak) == (won > 0)


def test_steps_count_as_the_epochs_they_come_to() -> None:
    amount = Amount(rows=100, tokens=30_000)
    assert amount.epochs(SftSettings(epochs=1.5)) == 1.5
    assert amount.epochs(SftSettings(max_steps=50, batch_size=4)) == 2
    assert amount.epochs(SftSettings(max_steps=3, batch_size=400)) == 3
