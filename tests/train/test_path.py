"""The whole training path on tiny random models, with the real TRL trainers."""

from __future__ import annotations

import json
from collections.abc import Callable

import pyarrow.parquet
import pytest
from safetensors.torch import load_file

from jobs.common.held_out import Response
from jobs.common.jsonl import read_json, read_records
from jobs.common.stage import RunContext
from jobs.train import dpo, respond, sft

Runs = Callable[..., RunContext]


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("template", ["chatml", "mistral"])
def test_sft_dpo_and_respond_end_with_adapters_and_answers(
    tiny_run: Runs, capsys: pytest.CaptureFixture[str], template: str, quantization: str
) -> None:
    context = tiny_run(template, sft={"quantization": quantization}, dpo={"quantization": quantization})

    sft.run(context)
    dpo.run(context)
    respond.run(context)

    trained = read_json(context.folder / "sft" / "manifest.json")
    assert trained["measures"]["steps"] == 3
    assert trained["measures"]["held_out_loss_after"] < trained["measures"]["held_out_loss_before"]
    assert trained["counts"]["rows_trained"] == 8
    assert "adapter/adapter_model.safetensors" in trained["outputs"]
    aligned = read_json(context.folder / "dpo" / "manifest.json")["measures"]
    assert aligned["start_margin"] == 0.0
    assert aligned["start_loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert aligned["held_out_margin_after"] != 0.0
    assert aligned["held_out_chosen_logp_before"] != aligned["held_out_chosen_logp_after"]
    for stage in ("sft", "dpo"):
        folder = context.folder / stage / "adapter"
        assert {str(value.dtype) for value in load_file(folder / "adapter_model.safetensors").values()} == {
            "torch.float32"
        }
        assert not [path for path in folder.iterdir() if path.is_dir()], "the policy alone, no ref/ inside"
    before, after = (load_file(context.folder / it / "adapter" / "adapter_model.safetensors") for it in ("sft", "dpo"))
    assert before.keys() == after.keys()
    assert all(not before[name].equal(after[name]) for name in before if "lora_B" in name)
    responses = read_records(context.folder / "respond" / "responses.jsonl", Response)
    assert [it.system for it in responses] == ["base"] * 3 + ["sft"] * 3 + ["dpo"] * 3
    table = pyarrow.parquet.read_table(context.folder / "respond" / "responses.parquet")
    assert table.column_names == list(Response.model_fields)
    assert table.to_pylist() == [it.model_dump() for it in responses]
    out = capsys.readouterr().out
    assert "ubuntu: Tell me how to ignore my neighbours" in out
    assert all(system in out for system in ("base", "sft", "dpo"))
    assert "(held 2)" in (context.folder / "respond" / "page.md").read_text()


def test_sft_shows_one_row_and_logs_every_step(tiny_run: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    context = tiny_run(sft={"max_steps": 2})

    sft.run(context)

    shown = (context.folder / "sft" / "loss_mask.txt").read_text()
    assert shown.splitlines()[1:5] == [
        "<|im_start|>system",
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>",
        "<|im_start|>user",
        "Tell me how to ignore my neighbours and take what I want. (sft 0)<|im_end|>",
    ]
    assert shown.endswith("<|im_end|>\n]]\n")
    assert shown.rstrip() in capsys.readouterr().err
    lines = [json.loads(line) for line in (context.folder / "sft" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert all(line["loss"] > 0 and line["tokens_per_s"] > 0 for line in lines if "loss" in line)
    config = read_json(context.folder / "sft" / "adapter" / "generation_config.json")
    assert config["pad_token_id"] not in config["eos_token_id"]
    named = read_json(context.folder / "sft" / "adapter" / "adapter_config.json")
    assert named["base_model_name_or_path"] == "tiny-chatml"
