"""Train the SFT adapter on prompts and revisions: `cai sft`.

Settings → TRL's SFTConfig → SFTTrainer → adapter. Reads fetch and generate (or repair), writes adapter/, loss_mask.txt
and log.jsonl.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from jobs.common.console import say
from jobs.common.data_stage import data_folder, data_stage
from jobs.common.fetched import load_fetched
from jobs.common.jsonl import read_records, write_atomic
from jobs.common.records import SftExample
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan, open_stage
from jobs.train import adapters
from jobs.train.data import Data, checked_ledger, prepare_data
from jobs.train.device import choose_device, libraries
from jobs.train.examples import require_rows, sft_rows
from jobs.train.loop import Loop, measures, remove_checkpoints, run_loop, token_counts, watching
from jobs.train.mix_in import mixed_rows
from jobs.train.setup import Parts, check_rows, common_arguments, finish_setup, ingredients
from jobs.train.student import find_student, load_model, load_tokenizer

SECTION: Literal["sft"] = "sft"


def run(context: RunContext) -> None:
    """Train the SFT adapter; see the module docstring."""
    plan = StagePlan(SECTION, ingredients(context, SECTION), parents=("fetch", data_stage(context)), lock="cuda")
    with open_stage(context, plan) as stage:
        if stage is None:
            return
        with libraries(SECTION, context.run):
            stage.finish(_train(stage))
        remove_checkpoints(stage)


def _train(stage: OpenStage) -> Result:
    context, settings = stage.context, stage.context.recipe.sft
    folder = data_folder(context)
    own = sft_rows(read_records(folder / "sft.jsonl", SftExample))
    require_rows(context, own, "sft.jsonl")
    fetched, ledger = load_fetched(context), checked_ledger(context, own, SECTION)
    mixed = mixed_rows(context, fetched, SECTION, own, ledger)
    device, student = choose_device(), find_student(context, fetched)
    tokenizer = load_tokenizer(student)
    held_out_rows = sft_rows(read_records(folder / "held_out_sft.jsonl", SftExample))
    data = prepare_data(stage, [*own, *mixed.rows], mixed.refused, held_out_rows, tokenizer)
    say(f"sft: {len(data.train.rows)} rows, {data.train.tokens} tokens, on {device.name}")
    base = load_model(student, settings.quantization, device)
    model = adapters.new_adapter(base, settings.lora, context.recipe.seed)
    with watching(stage, settings) as watch:
        trainer = _trainer(Parts(stage, model, tokenizer, student, device), data, watch)
        write_atomic(stage.folder / "loss_mask.txt", check_rows(trainer, data.train, tokenizer, student).encode())
        evaluate = partial(_held_out_loss, trainer, data)
        trained = run_loop(Loop(stage, trainer, watch), before=evaluate, after=evaluate)
    files = adapters.save_adapter(trainer.model, tokenizer, student, stage.folder / "adapter")
    shown = measures(trained, trainer.model, device) | {
        "held_out_loss_before": trained.before.get("loss"),
        "held_out_loss_after": trained.after.get("loss"),
    }
    say(f"sft: loss {shown['train_loss_first']:.4f} → {shown['train_loss_last']:.4f}; held-out {_arrow(shown)}")
    outputs = [*files, stage.folder / "loss_mask.txt", stage.folder / "dropped.jsonl"]
    return Result(outputs, data.counts, data.dropped, token_counts(data, trained), device=device.name, measures=shown)


def _trainer(parts: Parts, data: Data, watch: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    settings = parts.stage.context.recipe.sft
    before = adapters.snapshot(parts.model)
    trainer = SFTTrainer(
        model=parts.model,
        args=SFTConfig(
            **common_arguments(settings, parts, len(data.held_out.rows)),
            completion_only_loss=True,
            packing=False,
        ),
        train_dataset=Dataset.from_list([row.for_trl() for row in data.train.rows]),
        eval_dataset=Dataset.from_list([row.for_trl() for row in data.held_out.rows]) if data.held_out.rows else None,
        processing_class=parts.tokenizer,
        callbacks=[watch],
    )
    adapters.restore(trainer.model, before)  # TRL rounds them to bf16 over 4-bit weights
    finish_setup(trainer, parts)
    return trainer


def _held_out_loss(trainer: Any, data: Data) -> dict[str, Any]:
    if not data.held_out.rows:
        return {}
    return {"loss": trainer.evaluate()["eval_loss"]}


def _arrow(shown: dict[str, Any]) -> str:
    before, after = shown["held_out_loss_before"], shown["held_out_loss_after"]
    return "not measured (no held-out rows)" if before is None else f"{before:.4f} → {after:.4f}"
