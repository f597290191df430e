"""What each stage does with finished work, changed settings and bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from jobs.common.errors import ConfigError, DataError
from jobs.common.fetched import FetchedFile, load_fetched
from jobs.common.jsonl import read_json, read_records, sha256_file, write_json
from jobs.common.records import Dropped
from jobs.common.stage import RunContext
from jobs.train import adapters, dpo, respond, setup, sft
from jobs.train.stepping import Stepping
from tests.train.builders import finish_fetch, finish_generate, make_context, small_generate

Runs = Callable[..., RunContext]

REPORT = """
import sys
from jobs.__main__ import main
code = main(sys.argv[1:])
heavy = [name for name in ("torch", "transformers", "trl", "peft", "datasets") if name in sys.modules]
print(code, *heavy)
"""


def with_settings(context: RunContext, section: str, **changes: Any) -> RunContext:
    changed = getattr(context.recipe, section).model_copy(update=changes)
    return replace(context, recipe=context.recipe.model_copy(update={section: changed}))


def test_a_second_run_says_already_finished_without_importing_torch_and_another_rate_stops(
    tiny_run: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    context = tiny_run(sft={"max_steps": 1})
    sft.run(context)
    stamp = (context.folder / "sft" / "manifest.json").stat().st_mtime_ns
    recipe = context.runs / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(context.recipe.model_dump(mode="json")))

    arguments = ["sft", "--recipe", str(recipe), "--run", "r", "--runs", str(context.runs)]
    again = subprocess.run([sys.executable, "-c", REPORT, *arguments], capture_output=True, text=True, check=True)
    sft.run(with_settings(context, "sft", save_minutes=3.0))

    assert again.stdout == "0\n", again.stderr
    assert "sft: already finished" in again.stderr
    assert (context.folder / "sft" / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(ConfigError, match=r"sft.learning_rate was 0.0002, now 0.001"):
        sft.run(with_settings(context, "sft", learning_rate=1e-3))


MIXED = {"mix_in": [{"dataset": "d", "weight": 1}]}


@pytest.mark.parametrize(
    ("section", "sections", "counted"),
    [
        ("sft", {}, False),
        ("sft", {"sft": {"lora": {"dropout": 0.1}}}, True),
        ("sft", {"sft": MIXED}, True),
        ("sft", {"dpo": MIXED}, False),
        ("dpo", {}, False),
        ("dpo", {"sft": {"lora": {"dropout": 0.1}}}, False),  # dpo trains without dropout
        ("dpo", {"dpo": MIXED}, True),
    ],
)
def test_a_stage_of_other_mix_in_rows_or_dropout_masks_is_another_and_a_plain_one_stays_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, sections: dict[str, Any], counted: bool
) -> None:
    context = make_context(tmp_path, **sections)
    now = setup.ingredients(context, section)
    monkeypatch.setattr(setup, "MIX_IN_AND_DROPOUT", setup.MIX_IN_AND_DROPOUT + 1)

    assert (setup.ingredients(context, section) != now) == counted
    plain = {section, "student", "seed", "chat_template_sha256"}
    assert now.keys() - plain == ({"mix_in_and_dropout_version"} if counted else set())


def test_dpo_refuses_a_policy_that_trl_rounded_to_bf16(tiny_run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    context = tiny_run(sft={"max_steps": 1, "quantization": "nf4"}, dpo={"quantization": "nf4"})
    sft.run(context)
    monkeypatch.setattr(adapters, "restore", lambda *_: None)

    with pytest.raises(DataError, match=r"policy and reference differ at the start .*bfloat16"):
        dpo.run(context)
    assert not (context.folder / "dpo" / "adapter").exists()


def test_dpo_refuses_a_reference_that_is_not_the_sft_model(tiny_run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    context = tiny_run(sft={"max_steps": 1})
    sft.run(context)
    restore = adapters.restore

    def move(model: Any, values: dict[str, Any]) -> None:
        restore(model, {name: torch.nextafter(value, value + 1) for name, value in values.items()})

    monkeypatch.setattr(adapters, "restore", move)

    with pytest.raises(DataError, match="policy and reference differ at the start"):
        dpo.run(context)


def test_an_adapter_of_another_base_stops_dpo(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_steps": 1})
    sft.run(context)
    change_output(context, "sft", "adapter/adapter_config.json", {"base_model_name_or_path": "other"})

    with pytest.raises(DataError, match=r"the adapter's base is other .*student is tiny-chatml.*sft --run r --redo"):
        dpo.run(context)


def test_an_adapter_of_another_shape_stops_dpo(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_steps": 1})
    sft.run(context)
    change_output(context, "sft", "adapter/adapter_config.json", {"r": 8})

    with pytest.raises(DataError, match=r"adapter does not fit tiny-chatml.*cai sft --run r --redo"):
        dpo.run(context)


def change_output(context: RunContext, stage: str, name: str, changes: dict[str, Any]) -> None:
    """Change an output and the manifest with it, as an older version of the code could have written it."""
    path, manifest = context.folder / stage / name, context.folder / stage / "manifest.json"
    write_json(path, read_json(path) | changes)
    found = read_json(manifest)
    write_json(manifest, found | {"outputs": found["outputs"] | {name: sha256_file(path)}})


def test_too_many_long_rows_stop_sft_and_are_named(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_length": 48})

    with pytest.raises(DataError, match=r"of 8 rows \(8 prompt_too_long\), over 5%.*--set sft.max_length=96"):
        sft.run(context)

    named = read_records(context.folder / "sft" / "dropped.jsonl", Dropped)
    assert {it.drop_reason for it in named} <= {"truncated", "prompt_too_long"}
    assert len(named) == 8
    assert not (context.folder / "sft" / "manifest.json").exists()


@pytest.mark.parametrize(("job", "name"), [(sft, "sft.jsonl"), (dpo, "pairs.jsonl")], ids=["sft", "dpo"])
def test_no_rows_stop_with_the_reasons_of_generate(tmp_path: Path, job: Any, name: str) -> None:
    context = make_context(tmp_path)
    finish_fetch(context, tmp_path / "none")
    finish_generate(context, {}, dropped={"unchanged": 4})
    if job is dpo:
        (context.folder / "sft").mkdir()
        write_json(context.folder / "sft" / "manifest.json", {"outputs": {}, "fingerprint": "", "ingredients": {}})

    with pytest.raises(DataError, match=rf"{name}: 0 rows. generate dropped: 4 unchanged"):
        job.run(context)


def test_a_missing_student_stops_sft(tiny_run: Runs) -> None:
    with pytest.raises(DataError, match=r"/nowhere \(student\) does not exist. Run: cai fetch --run r --redo"):
        sft.run(tiny_run(student=Path("/nowhere")))


def test_nothing_held_out_is_reported_as_unknown_and_respond_stops(tiny_run: Runs) -> None:
    files = small_generate() | {"held_out": [], "held_out_sft": [], "held_out_pairs": []}
    context = tiny_run(files=files, sft={"max_steps": 1}, dpo={"max_steps": 1})

    sft.run(context)
    dpo.run(context)

    assert read_json(context.folder / "sft" / "manifest.json")["measures"]["held_out_loss_after"] is None
    measures = read_json(context.folder / "dpo" / "manifest.json")["measures"]
    assert measures["held_out_accuracy_after"] is None
    assert measures["start_margin"] == 0.0
    with pytest.raises(DataError, match="0 prompts to answer"):
        respond.run(context)


def test_nothing_held_out_is_never_evaluated_between_steps(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = small_generate() | {"held_out_sft": [], "held_out_pairs": []}
    steps = {"max_steps": 6, "evaluations": 2}
    context = tiny_run(files=files, sft=steps, dpo=steps)
    evaluated: list[int] = []
    original = Stepping.evaluate

    def evaluate(self: Any, *arguments: Any, **given: Any) -> dict[str, float]:
        evaluated.append(self.state.global_step)
        return original(self, *arguments, **given)

    monkeypatch.setattr(Stepping, "evaluate", evaluate)

    for stage in (sft, dpo):
        stage.run(context)
        lines = map(json.loads, (context.folder / stage.SECTION / "log.jsonl").read_text().splitlines())
        assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
        assert (context.folder / f"{stage.SECTION}-curves.png").exists()

    assert evaluated == [0, 6, 0, 6], "only to say before and after that nothing was measured"
    said = capsys.readouterr().err
    assert "held-out batches" not in said
    assert said.count("held-out not measured (no held-out") == 2


def mixed_run(tmp_path: Path, student: Path, answers: list[str], weight: float, files: Any = None) -> RunContext:
    """A run ready for an sft of one step, with prompts of those answers as a mix-in."""
    path = tmp_path / "mix.jsonl"
    rows = [{"prompt": f"What is {i}?", "completion": answer} for i, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(record) + "\n" for record in rows))
    sections = {
        "max_steps": 1,
        "batch_size": 1,
        "max_length": 256,
        "mix_in": [{"dataset": str(path), "weight": weight}],
    }
    context = make_context(tmp_path / "runs", sft=sections)
    key = f"{path}@main/train"
    finish_fetch(context, student, {key: FetchedFile(path=str(path), sha256=sha256_file(path))})
    finish_generate(context, small_generate() if files is None else files)
    return context


def test_mixed_in_rows_are_trained_and_counted(
    tmp_path: Path, students: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    context = mixed_run(tmp_path, students("chatml"), [f"It is {i}." for i in range(9)], 0.5)

    sft.run(context)

    counts = read_json(context.folder / "sft" / "manifest.json")["counts"]
    assert (counts["rows_in"], counts["rows_trained"], counts["rows_mixed_in"]) == (12, 12, 4)
    assert "sft: rows: 8 of our own, 4 mixed in, 3 held out\n" in capsys.readouterr().err


def test_weight_counts_the_rows_of_our_own_that_are_trained_and_every_lost_row_is_said(
    tmp_path: Path, students: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files, answers = small_generate(rows=24), ["Because."] * 30 + ["Because. " * 200] * 30
    files["sft"] = [files["sft"][0].model_copy(update={"completion": "<|im_end|>"}), *files["sft"][1:]]
    context = mixed_run(tmp_path, students("chatml"), answers, 1, files)

    sft.run(context)

    manifest = read_json(context.folder / "sft" / "manifest.json")
    counts, dropped = manifest["counts"], manifest["dropped"]
    assert (counts["rows_trained"], counts["rows_mixed_in"]) == (46, 23)
    assert dropped == {"mix_in_too_long": counts["rows_in"] - 47, "special_token": 1}
    assert dropped["mix_in_too_long"] > 0
    ours, others = "(dropped 1 special_token)", f"(dropped {dropped['mix_in_too_long']} mix_in_too_long)"
    assert f"sft: rows: 23 of our own {ours}, 23 mixed in {others}, 3 held out\n" in capsys.readouterr().err
    names = [it.drop_reason for it in read_records(context.folder / "sft" / "dropped.jsonl", Dropped)]
    assert {name: names.count(name) for name in names} == dropped


def test_a_mix_in_of_which_nothing_fits_is_said_and_stops_nothing(
    tmp_path: Path, students: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    context = mixed_run(tmp_path, students("chatml"), ["Because. " * 200] * 9, 3)

    sft.run(context)

    assert read_json(context.folder / "sft" / "manifest.json")["counts"]["rows_mixed_in"] == 0
    said = capsys.readouterr().err
    assert "24 rows wanted (weight 3), 0 of its 9 can be trained" in said
    assert "sft: rows: 8 of our own, 0 mixed in (dropped 9 mix_in_too_long), 3 held out\n" in said


def test_a_damaged_models_json_names_the_field(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    finish_fetch(context, tmp_path)
    path = context.folder / "fetch" / "models.json"
    found = read_json(path)
    write_json(path, found | {"student": found["student"] | {"kind": "zip"}})

    with pytest.raises(DataError, match=r"models.json is damaged \(student.kind:.*Run: cai fetch"):
        load_fetched(context)
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        load_fetched(context)
