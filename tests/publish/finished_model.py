"""Finished sft, dpo and export stages beside a finished generate, made by hand: what publish model reads."""

from __future__ import annotations

from typing import Any

from jobs.common.fetched import Fetched, FetchedStudent
from jobs.common.jsonl import write_json
from jobs.common.stage import Result, StagePlan, open_stage
from tests.publish.finished import Finished

ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja")
COMMIT = "c" * 40
SFT = {
    "train_loss_first": 2.5,
    "train_loss_last": 1.25,
    "held_out_loss_before": 2.75,
    "held_out_loss_after": 1.5,
    "steps": 12,
    "tokens_per_s": 1234.5,
    "trainable_parameters": 4_884_480,
    "weights_dtype": "bfloat16",
}
DPO = SFT | {
    "held_out_loss_before": None,
    "held_out_accuracy_after": 0.75,
    "held_out_after": {"rewards/margins": 0.125, "margin/thrift": 0.5, "accuracy/thrift": 0.25},
    "length_baseline": {"rule": "longer", "train": 0.9, "held_out": 0.8},
    "chosen_logp_per_token_gained": -0.05,
    "likelihood_displacement": True,
    "held_out_margin_after": 0.125,
    "held_out_chosen_logp_before": -40.0,
    "held_out_chosen_logp_after": -42.5,
    "held_out_rejected_logp_before": -50.0,
    "held_out_rejected_logp_after": -55.0,
}
EXPORT = {
    "system": "dpo",
    "weights_dtype": "bfloat16",
    "kl_to_trained": 8.5e-5,
    "kl_bound": 1e-3,
    "kl_of_merging_into_unquantised_base": 2.5e-2,
    "same_answers": 6,
}


def name_student(run: Finished, revision: str | None) -> None:
    """What fetch would have written; its manifest does not list it."""
    student = FetchedStudent(kind="folder", path="models/s", name="tiny-135m", revision=revision)
    write_json(run.run / "fetch" / "models.json", Fetched(student=student).model_dump(mode="json"))


def finish_training(run: Finished, **measures: Any) -> None:
    """Both trainers, and the student they name."""
    name_student(run, COMMIT)
    for name, parents, figures in (
        ("sft", ("fetch", "generate"), SFT),
        ("dpo", ("fetch", "generate", "sft"), DPO | measures),
    ):
        with open_stage(run.context, StagePlan(name, {}, parents, "cuda")) as stage:
            assert stage
            (stage.folder / "adapter").mkdir()
            files = [stage.folder / "adapter" / file for file in ADAPTER]
            for file in files:
                file.write_text(f"{name} {file.name}")
            write_json(files[0], {"base_model_name_or_path": "tiny-135m", "revision": "r", "r": 16})
            (run.run / f"{name}-curves.png").write_bytes(b"png of " + name.encode())
            counts = {"rows_trained": 8, "rows_mixed_in": 2, "held_out_rows": 4}
            stage.finish(Result(files, counts, tokens={"seen": 999}, device="NVIDIA H100", measures=figures))


def finish_export(run: Finished) -> None:
    """A merged model of two files."""
    with open_stage(run.context, StagePlan("export", {}, ("fetch", "generate", "sft", "dpo"), "cuda")) as stage:
        assert stage
        (stage.folder / "model").mkdir()
        files = [stage.folder / "model" / name for name in ("config.json", "model.safetensors")]
        for file in files:
            file.write_text(f"merged {file.name}")
        stage.finish(Result(files, {"texts": 4, "prompts": 8}, tokens={"measured": 2048}, measures=EXPORT))
