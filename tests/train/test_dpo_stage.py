"""The dpo stage on real trainers: its reference is data that runs share, its start is proved, its resume is exact."""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any, get_args

import pytest

from jobs.common.errors import DataError, StoppedError
from jobs.common.jsonl import read_json, sha256_file, write_json
from jobs.common.loss_settings import LossType
from jobs.common.settings import DpoSettings
from jobs.common.stage import RunContext
from jobs.train import adapters, dpo, dpo_setup, sft, start
from jobs.train.objective import objective
from jobs.train.pairs import scored
from jobs.train.reference import Logps, _lines
from tests.train.builders import small_generate
from tests.train.stopped import stop_after

Runs = Callable[..., RunContext]


def trained(tiny_run: Runs, **changes: Any) -> RunContext:
    """A run with a finished sft stage."""
    sft_settings = {"max_steps": 2, "learning_rate": 1e-2} | changes.pop("sft", {})
    context = tiny_run(sft=sft_settings, **changes)
    sft.run(context)
    return context


def copy_run(context: RunContext, run: str, **changes: Any) -> RunContext:
    """The same finished parents under another name, with other dpo settings."""
    for stage in ("fetch", "generate", "sft"):
        shutil.copytree(context.folder / stage, context.runs / run / stage)
    settings = DpoSettings.model_validate(context.recipe.dpo.model_dump() | changes)
    return replace(context, run=run, recipe=context.recipe.model_copy(update={"dpo": settings}))


def measures(context: RunContext) -> dict[str, Any]:
    found: dict[str, Any] = read_json(context.folder / "dpo" / "manifest.json")["measures"]
    return found


def adapter_sha256(context: RunContext) -> str:
    return sha256_file(context.folder / "dpo" / "adapter" / "adapter_model.safetensors")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pairs run through the reference, one number per stage that ran any."""
    counts: list[int] = []
    original = start.Reference._compute

    def count(self: start.Reference, pairs: list[Any]) -> Iterator[list[Logps]]:
        counts.append(len(pairs))
        yield from original(self, pairs)

    monkeypatch.setattr(start.Reference, "_compute", count)
    return counts


def test_a_run_with_another_beta_loss_and_rate_runs_no_reference_at_all(tiny_run: Runs, computed: list[int]) -> None:
    context = trained(tiny_run)
    dpo.run(context)
    other = copy_run(context, "other", beta=0.5, loss_type=["ipo", "sft"], loss_weights=[1, 0.2], learning_rate=1e-4)

    dpo.run(other)

    assert computed == [11]
    assert measures(context)["reference_pairs_computed"] == measures(context)["reference_pairs"] == 11
    assert measures(other)["reference_pairs_computed"] == 0
    assert adapter_sha256(context) != adapter_sha256(other)


def test_the_manifest_says_where_it_began_and_what_each_principle_gained(tiny_run: Runs) -> None:
    context = trained(tiny_run)
    dpo.run(context)

    found = measures(context)
    assert found["start_margin"] == 0.0
    assert found["start_loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert found["start_reference_error"] <= 1e-5
    assert found["held_out_margin_before"] == pytest.approx(0, abs=1e-4)
    assert found["held_out_after"]["margin/ubuntu"] == pytest.approx(found["held_out_margin_after"], rel=1e-5)
    assert found["held_out_margin_after"] > 0
    assert found["length_baseline"] == {"rule": "longer", "train": 1.0, "held_out": 1.0}
    assert found["trainable_parameters"] > 0
    assert "dpo/adapter/ref" not in str(list(context.folder.rglob("*")))
    assert set(read_json(context.folder / "dpo" / "reference.json")) != set()


def test_another_sft_adapter_has_another_reference(tiny_run: Runs, computed: list[int]) -> None:
    context = trained(tiny_run, dpo={"max_steps": 1})
    dpo.run(context)
    other = copy_run(context, "other")
    shutil.rmtree(other.folder / "sft")
    sft.run(replace(other, recipe=other.recipe.model_copy(update={"seed": 1})))
    dpo.run(replace(other, recipe=other.recipe.model_copy(update={"seed": 1})))

    assert computed == [11, 11]


def test_a_damaged_shard_is_named_and_computed_again(
    tiny_run: Runs, computed: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    context = trained(tiny_run, dpo={"max_steps": 1})
    dpo.run(context)
    (shard,) = (context.runs / "reference").rglob("*.jsonl")
    shard.write_bytes(shard.read_bytes()[:-20])
    other = copy_run(context, "other", beta=0.2)

    dpo.run(other)

    assert f"{shard} is damaged" in capsys.readouterr().err
    assert computed == [11, 11]


def test_stored_values_of_another_model_do_not_start(tiny_run: Runs) -> None:
    context = trained(tiny_run, dpo={"max_steps": 1})
    dpo.run(context)
    (shard,) = (context.runs / "reference").rglob("*.jsonl")
    kept = [Logps.model_validate_json(line) for line in shard.read_bytes().splitlines()]
    data = _lines([one.model_copy(update={"chosen": one.chosen - 0.01 * one.chosen_tokens}) for one in kept])
    shard.unlink()
    shard.with_name(f"{sha256(data).hexdigest()}.jsonl").write_bytes(data)
    other = copy_run(context, "other", beta=0.2)

    with pytest.raises(DataError, match=r"0\.00\d+ per token off .*limit 1e-05 in fp32.*Remove .*reference and run"):
        dpo.run(other)
    assert not (other.folder / "dpo" / "adapter").exists()


def test_every_loss_starts_with_margins_of_exactly_zero(tiny_run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    context = trained(tiny_run, dpo={"max_steps": 1})
    starts: dict[str, dict[str, float]] = {}

    def prove(trainer: Any, stage: Any) -> dict[str, Any]:
        for kind in get_args(LossType):
            smoothing = 0.01 if kind == "exo_pair" else 0.0
            trainer.goal = objective(DpoSettings(loss_type=kind, label_smoothing=smoothing))
            starts[kind] = start.prove_start(trainer, context.folder / "sft" / "adapter", context.runs)
        raise StoppedError("enough")

    monkeypatch.setattr(dpo, "_start", prove)
    with pytest.raises(StoppedError):
        dpo.run(context)

    assert {one["margin"] for one in starts.values()} == {0.0}
    plain = {kind: round(starts[kind]["loss"], 4) for kind in ("sigmoid", "hinge", "ipo", "apo_zero", "robust")}
    assert plain == {"sigmoid": 0.6931, "hinge": 1.0, "ipo": 25.0, "apo_zero": 1.0, "robust": 0.6931}


def test_a_forward_pass_that_is_not_the_same_twice_does_not_start(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = trained(tiny_run)
    restore = adapters.restore

    def move(model: Any, values: dict[str, Any]) -> None:
        calls.append(len(calls))
        proving = calls[-1] == 1  # before it, TRL's rounding was taken back
        restore(model, {name: one + 1e-3 if proving else one for name, one in values.items()})

    calls: list[int] = []
    monkeypatch.setattr(adapters, "restore", move)

    with pytest.raises(DataError, match=r"of the first batch is .* before training, expected exactly 0"):
        dpo.run(context)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_stop_inside_a_step_resumes_to_the_undisturbed_adapter(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, quantization: str
) -> None:
    changes = {"quantization": quantization}
    context = trained(tiny_run, sft=changes, dpo={"max_steps": 4} | changes)
    undisturbed = copy_run(context, "undisturbed")
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(StoppedError, match="a checkpoint of step"):
            dpo.run(context)
    shutil.rmtree(context.runs / "reference")  # the run goes on with the values it began with

    dpo.run(context)
    dpo.run(undisturbed)

    assert adapter_sha256(context) == adapter_sha256(undisturbed)
    assert measures(context)["train_loss_last"] == measures(undisturbed)["train_loss_last"]
    assert measures(context)["resumed_from_step"] is not None


def test_a_reference_that_changes_between_stop_and_resume_does_not_finish(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = trained(tiny_run)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(StoppedError):
            dpo.run(context)
    path = context.folder / "dpo" / dpo_setup.REFERENCE
    found = read_json(path)
    name = min(found)
    write_json(path, found | {name: found[name] | {"chosen": found[name]["chosen"] + 1e-3}})

    with pytest.raises(DataError, match="the reference changed during training"):
        dpo.run(context)
    assert not (context.folder / "dpo" / "adapter").exists()


def test_a_stop_while_the_reference_is_computed_keeps_what_is_computed(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, computed: list[int]
) -> None:
    context = trained(tiny_run, dpo={"max_steps": 1})
    passes: list[int] = []

    def third(*sizes: Any) -> Iterator[Any]:
        for found in scored(*sizes):
            passes.append(len(found[0]))
            if len(passes) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(start, "scored", third)
        with pytest.raises(StoppedError):
            dpo.run(context)

    dpo.run(context)

    assert len(passes) == 3
    kept = sum(passes[:2])  # the signal ends the third where it meets it
    assert computed == [11, 11 - kept]
    assert measures(context)["reference_pairs_computed"] == 11 - kept


def test_the_judges_probability_smooths_its_own_pair(tiny_run: Runs) -> None:
    files = small_generate()
    sure = [one.model_copy(update={"preference_probability": 1.0}) for one in files["pairs"]]
    unsure = [one.model_copy(update={"preference_probability": 0.55}) for one in files["pairs"]]
    losses = {}
    for name, pairs in {"none": files["pairs"], "sure": sure, "unsure": unsure}.items():
        context = replace(tiny_run(files=files | {"pairs": pairs}, dpo={"label_smoothing": "judge"}), run="r")
        sft.run(context)
        dpo.run(context)
        losses[name] = measures(context)["train_loss_last"]
        shutil.rmtree(context.runs)

    assert losses["none"] == losses["sure"] < losses["unsure"]


def test_displacement_is_named_once_with_its_remedy_and_the_remedy_works(
    tiny_run: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = {"learning_rate": 1e-2, "max_steps": 12}
    # This loss lowers the chosen answers, and the rejected ones more (arXiv 2408.06266).
    context = trained(tiny_run, dpo=fast | {"loss_type": "apo_down"})
    dpo.run(context)
    said = capsys.readouterr().err
    remedied = copy_run(context, "remedied", loss_type=["apo_down", "sft"], loss_weights=[0.1, 1])
    dpo.run(remedied)

    assert measures(context)["likelihood_displacement"] is True
    assert measures(context)["chosen_logp_per_token_gained"] < -0.02
    assert measures(context)["held_out_margin_after"] > 0
    assert said.count("likelihood displacement") == 1
    assert "--set 'dpo.loss_type=[sigmoid,sft]' --set 'dpo.loss_weights=[1,0.1]'" in said
    assert measures(remedied)["likelihood_displacement"] is False
    assert "likelihood displacement" not in capsys.readouterr().err
