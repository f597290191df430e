"""`cai export`: what is written is the trained model, and it loads anywhere."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.common.errors import ConfigError, DataError
from jobs.common.jsonl import read_json
from jobs.common.stage import RunContext
from jobs.train import export
from jobs.train.device import libraries
from jobs.train.likeness import logits_of, mean_kl, probe_of
from jobs.train.merge import merge_adapter, without_repacking
from jobs.train.speakers import Speaker, Weights, load_speaker, weights_of
from tests.train.trained import trained_run

Students = Callable[[str], Path]


def measures(context: RunContext) -> dict[str, Any]:
    found: dict[str, Any] = read_json(context.folder / "export" / "manifest.json")["measures"]
    return found


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("template", ["chatml", "mistral"])
def test_the_exported_folder_is_the_trained_model(
    tmp_path: Path, students: Students, template: str, quantization: str
) -> None:
    context = trained_run(tmp_path, students(template), quantization)

    export.run(context)

    shown = measures(context)
    assert shown["kl_to_trained"] < 1e-9
    assert shown["same_answers"] == 3
    assert (shown["kl_of_merging_into_unquantised_base"] is None) == (quantization == "none")
    folder = context.folder / "export" / "model"
    assert "quantization_config" not in (folder / "config.json").read_text()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.generation_config.pad_token_id not in model.generation_config.eos_token_id
    with libraries("export", context.run):
        base = load_speaker(context, (), weights_of(context, "dpo"))
        trained = load_speaker(context, ("dpo",), weights_of(context, "dpo"))
    assert tokenizer.chat_template == base.tokenizer.chat_template
    without_repacking(trained.model)
    rows = probe_of(context, tokenizer).rows
    theirs = logits_of(trained.model, rows)
    assert mean_kl(logits_of(model, rows), theirs) < 1e-9
    assert mean_kl(logits_of(base.model, rows), theirs) > 1e-3, "an adapter that changes nothing would prove nothing"


def test_layers_without_an_adapter_are_dequantised_too(tmp_path: Path, students: Students) -> None:
    narrow = {"quantization": "nf4", "lora": {"rank": 4, "alpha": 8, "target_modules": ["q_proj"]}}
    context = trained_run(tmp_path, students("chatml"), "nf4", sft=narrow)

    export.run(context)

    assert measures(context)["kl_to_trained"] < 1e-9
    weights = load_file(context.folder / "export" / "model" / "model.safetensors")
    assert {str(value.dtype) for value in weights.values()} == {"torch.float32"}
    assert not [name for name in weights if "absmax" in name or "lora" in name]


def test_the_sft_adapter_is_exported_without_dpo(tmp_path: Path, students: Students) -> None:
    context = trained_run(tmp_path, students("chatml"), export={"system": "sft"})
    (context.folder / "dpo" / "manifest.json").unlink()

    export.run(context)

    assert measures(context)["system"] == "sft"
    assert "sft" in read_json(context.folder / "export" / "manifest.json")["parents"]


def test_weights_in_bf16_are_rounded_once(tmp_path: Path, students: Students) -> None:
    """Rounding the product of the adapter's halves before it is added would give other bits."""
    context = trained_run(tmp_path, students("chatml"))
    with libraries("export", context.run):
        exact = merge_adapter(load_speaker(context, ("dpo",), Weights("none", "float32")).model, "dpo")
        ours = merge_adapter(load_speaker(context, ("dpo",), Weights("none", "bfloat16")).model, "dpo")
        base = load_speaker(context, (), Weights("none", "float32")).model
    for name, value in ours.named_parameters():
        assert value.dtype == torch.bfloat16
        change = dict(exact.named_parameters())[name] - dict(base.named_parameters())[name]
        whole = dict(base.named_parameters())[name].bfloat16().float() + change
        assert (value.float() - whole).abs().max() <= whole.abs().max() * 2**-8


def test_a_merged_model_that_is_another_one_is_not_written(
    tmp_path: Path, students: Students, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = trained_run(tmp_path, students("chatml"))

    def damaged(model: Any, name: str) -> Any:
        merged = merge_adapter(model, name)
        merged.lm_head.weight.data *= 1.05
        return merged

    monkeypatch.setattr(export, "merge_adapter", damaged)
    with pytest.raises(DataError, match=r"differs from the trained one by .* more than 1e-06 \(float32\).*cai dpo"):
        export.run(context)
    assert not (context.folder / "export" / "model").exists()
    assert not (context.folder / "export" / "manifest.json").exists()


def test_a_folder_that_reads_back_differently_is_told(
    tmp_path: Path, students: Students, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = trained_run(tmp_path, students("chatml"))
    write = export._write

    def write_wrongly(*args: Any) -> Path:
        folder = write(*args)
        path = folder / "model.safetensors"
        weights = load_file(path)
        weights["model.norm.weight"] = weights["model.norm.weight"] * 1.001
        save_file(weights, path, {"format": "pt"})
        return folder

    monkeypatch.setattr(export, "_write", write_wrongly)
    with pytest.raises(DataError, match="read back, it is another model"):
        export.run(context)
    assert not (context.folder / "export" / "manifest.json").exists()


def test_a_second_export_says_already_finished(
    tmp_path: Path, students: Students, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = trained_run(tmp_path, students("chatml"))
    export.run(context)
    monkeypatch.setattr(export, "load_speaker", None)
    export.run(context)
    assert "export: already finished" in capsys.readouterr().err


def test_without_a_finished_dpo_it_names_the_command(tmp_path: Path, students: Students) -> None:
    context = trained_run(tmp_path, students("chatml"))
    (context.folder / "dpo" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r'No finished "dpo" stage .* Run: cai dpo --run r'):
        export.run(context)


def test_a_recipe_with_another_template_than_was_trained_is_refused(tmp_path: Path, students: Students) -> None:
    context = trained_run(tmp_path, students("chatml"))
    student = context.recipe.student.model_copy(update={"chat_template": "zephyr"})
    other = replace(context, recipe=context.recipe.model_copy(update={"student": student}))
    with pytest.raises(ConfigError, match=r"trained with student.chat_template=chatml, the recipe has zephyr"):
        export.run(other)


def test_the_error_of_identical_models_is_nothing_and_of_others_is_known() -> None:
    ours, theirs = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert mean_kl([ours], [ours + 3.0]) == pytest.approx(0, abs=1e-14)
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert mean_kl([ours, ours], [theirs, ours]) == pytest.approx(wanted / 2)


def test_a_sentencepiece_model_goes_along(tmp_path: Path, students: Students, monkeypatch: pytest.MonkeyPatch) -> None:
    context = trained_run(tmp_path / "runs", students("chatml"))
    shutil.copytree(students("chatml"), tmp_path / "student")
    (tmp_path / "student" / "tokenizer.model").write_bytes(b"pieces")
    load = export.load_speaker

    def from_copy(*args: Any) -> Speaker:
        speaker = load(*args)
        return replace(speaker, student=replace(speaker.student, folder=tmp_path / "student"))

    monkeypatch.setattr(export, "load_speaker", from_copy)
    export.run(context)
    assert (context.folder / "export" / "model" / "tokenizer.model").read_bytes() == b"pieces"
    assert "model/tokenizer.model" in read_json(context.folder / "export" / "manifest.json")["outputs"]
