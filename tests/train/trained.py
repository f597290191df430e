"""Finished sft and dpo stages made by hand in a second: adapters that matter, manifests as the trainers leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jobs.common.fetched import load_fetched
from jobs.common.stage import Result, RunContext, StagePlan, open_stage
from jobs.train import adapters
from jobs.train.device import Device, libraries
from jobs.train.student import end_of_turn, find_student, load_model, load_tokenizer, set_special_tokens
from tests.train.builders import finish_fetch, finish_generate, make_context, small_generate

MEASURES: dict[str, dict[str, Any]] = {
    "sft": {
        "train_loss_first": 2.5,
        "train_loss_last": 1.25,
        "steps": 3,
        "train_s": 6.0,
        "tokens_per_s": 123.4,
        "trainable_parameters": 1000,
        "held_out_loss_before": 2.75,
        "held_out_loss_after": 1.5,
    },
    "dpo": {
        "train_loss_first": 0.6931,
        "train_loss_last": 0.5,
        "steps": 3,
        "train_s": 6.0,
        "tokens_per_s": 60.0,
        "trainable_parameters": 1000,
        "start_margin": 0.0,
        "held_out_accuracy_after": 0.75,
        "held_out_margin_after": 0.125,
        "held_out_chosen_logp_before": -40.0,
        "held_out_chosen_logp_after": -42.5,
        "held_out_rejected_logp_before": -50.0,
        "held_out_rejected_logp_after": -55.0,
    },
}


def trained_run(runs: Path, student: Path, quantization: str = "none", **changes: Any) -> RunContext:
    """A run of a tiny student whose sft and dpo have finished; its template is the end of the folder's name."""
    recipe: dict[str, Any] = {
        "student": {"chat_template": student.name.removeprefix("tiny-")},
        "sft": {"quantization": quantization, "lora": {"rank": 4, "alpha": 8}},
        "dpo": {"quantization": quantization},
    }
    context = make_context(runs, **(recipe | changes))
    finish_fetch(context, student)
    finish_generate(context, small_generate())
    with libraries("sft", context.run):
        finish_training(context)
    return context


def finish_training(context: RunContext, *stages: str) -> None:
    """Leave these stages finished; without names both."""
    student = find_student(context, load_fetched(context))
    tokenizer = load_tokenizer(student)
    for seed, name in enumerate(stages or ("sft", "dpo")):
        settings = getattr(context.recipe, name)
        parents = ("fetch", "generate") if name == "sft" else ("fetch", "generate", "sft")
        with open_stage(context, StagePlan(name, {}, parents, "cuda")) as stage:
            assert stage is not None
            model = load_model(student, settings.quantization, Device("cpu", "cpu"), "fp32", "sdpa")
            model = adapters.new_adapter(model, context.recipe.sft.lora, seed)
            for key, value in adapters.weights(model).items():
                if "lora_B" in key:
                    torch.nn.init.normal_(value, std=0.05)
            set_special_tokens(model, tokenizer, end_of_turn(tokenizer, student))
            files = adapters.save_adapter(model, tokenizer, student, stage.folder / "adapter")
            measures = MEASURES[name] | {"weights_dtype": "float32", "adapter_dtype": "float32"}
            stage.finish(Result(files, {"rows_trained": 8}, tokens={"seen": 321}, measures=measures))
