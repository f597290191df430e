"""What the training benchmark makes of the steps it timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

import pytest

from benchmarks import training_memory
from benchmarks.training_drive import Seen
from benchmarks.training_meter import Meter
from benchmarks.training_models import Case, ModelSpec
from benchmarks.training_peak import flops_per_token
from benchmarks.training_rows import Rows, synthetic_rows
from benchmarks.training_table import case_table, common_loss, figures
from jobs.common.flops import Work, causal_context
from jobs.common.model_shape import KNOWN


def case(stage: str = "sft") -> Case:
    return Case.from_json(
        {
            "stage": stage,
            "model": ModelSpec("smollm2-1.7b", "cpu", "bfloat16", "none", None).__dict__,
            "batch_size": 8,
            "scratch": "",
        }
    )


def seen(step_s: float, losses: list[float], reference_s: float = 0.0) -> Seen:
    steps = [[step_s, 1000.0, 8.0, loss] for loss in losses]
    return Seen({"losses": losses, "reference_s_per_pair": reference_s, "peak_bytes": 2**30}, [steps, steps])


def test_medians_are_per_second_and_a_reference_pass_costs_what_it_took_per_pair() -> None:
    found = figures(seen(2.0, [3.0, 2.0], reference_s=0.25))

    assert found is not None
    assert found.tokens_per_s == pytest.approx(500)
    assert found.rows_per_s == pytest.approx(4)
    assert found.with_reference == pytest.approx(2)
    assert figures(Seen(error="out of memory")) is None


def test_the_common_loss_is_one_that_every_side_reached_and_time_to_it_counts_steps() -> None:
    sides = {"ours": seen(1.0, [5.0, 4.0, 3.0, 2.0, 1.0]), "original": seen(2.0, [5.0, 4.0, 3.0, 2.0])}

    table = case_table(case(), sides, flops_per_token=1e9, peak=1e13)

    assert common_loss(sides) == pytest.approx(3.0)
    ours, original = table.splitlines()[2:4]
    assert ours.endswith("| 4, 4.0 |")
    assert original.endswith("| 4, 8.0 |")
    assert "2.00x" in original
    assert "10.0%" in ours


def test_a_side_that_failed_is_a_line_that_says_why() -> None:
    sides = {"ours": seen(1.0, [5.0, 4.0, 3.0]), "original": Seen(error="OutOfMemoryError: 80 GiB")}

    assert "no figure: OutOfMemoryError: 80 GiB" in case_table(case(), sides, 1e9, 1e13)


def test_the_meter_leaves_out_what_happens_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 10.0, 13.0, 20.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    ends: Callable[[list[list[float]]], bool] = lambda steps: len(steps) == 2  # noqa: E731
    meter = Meter("cpu", ends)

    meter.begin()
    done = [meter.step(100, 8, 1.0), meter.step(100, 8, 0.5)]

    assert done == [False, True]
    assert [step[0] for step in meter.steps] == [2.0, 3.0]


def test_a_token_costs_what_the_plan_counts() -> None:
    rows = Rows("two", [([1] * 100, 50), ([1] * 300, 150)], [])
    shape = KNOWN["HuggingFaceTB/SmolLM2-1.7B-Instruct"]

    assert flops_per_token(case(), rows) == Work(shape, 16, causal_context([100, 300]), 0.5).training


def test_made_up_rows_have_the_lengths_of_the_original_s() -> None:
    rows = synthetic_rows()
    lengths = [len(ids) for ids, _ in rows.sft]

    assert len(lengths) == len(rows.pairs) == 220
    assert mean(lengths) == pytest.approx(157, rel=0.05)
    assert median(lengths) == pytest.approx(153.5, rel=0.05)
    assert mean(len(chosen) for _, chosen, _ in rows.pairs) == pytest.approx(108, rel=0.08)
    assert all(max(ids) < 1024 for ids, _ in rows.within(1024).sft)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks transformers by an old name
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_memory_table_has_predicted_and_real_of_rows_of_the_asked_length(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelSpec("tiny", "cpu", "float32", "none", None)
    found = training_memory._row(Case(stage, model, 4, str(tmp_path)), 256)  # type: ignore[arg-type]

    name, how, expected, real, off = (part.strip() for part in found.strip("|").split("|"))
    assert (name, "2048 tokens a pass" in how) == (stage, True)
    assert 0 < float(expected) < float(real), "a process holds more than the tensors of a tiny model"
    assert off.endswith("%")
