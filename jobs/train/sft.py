"""Train the SFT adapter on prompts and revisions: `cai sft`.

Settings → TRL's SFTConfig → PackedSftTrainer → adapter. Reads fetch and generate (or repair), writes adapter/,
loss_mask.txt, execution.json and log.jsonl.
"""

from __future__ import annotations

from typing import Any, Literal

from jobs.common.console import say
from jobs.common.data_stage import data_folder, data_stage
from jobs.common.fetched import load_fetched
from jobs.common.jsonl import read_records, write_atomic
from jobs.common.records import SftExample
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan
from jobs.train import adapters, guards
from jobs.train.beside import beside
from jobs.train.checkpoints import chain
from jobs.train.data import Data, checked_ledger, prepare_data, require_rows
from jobs.train.device import choose_device
from jobs.train.examples import sft_rows
from jobs.train.execution import choose_execution
from jobs.train.loop import Loop, measures, run_loop, token_counts
from jobs.train.loss_mask import sft_columns
from jobs.train.mix_in import MixIns
from jobs.train.setup import Parts, check_rows, common_arguments, finish_setup, ingredients
from jobs.train.student import find_student, load_model, load_tokenizer, student_shape
from jobs.train.together import of_first, on_one_gpu
from jobs.train.training import run_training

SECTION: Literal["sft"] = "sft"


def run(context: RunContext) -> None:
    """Train the SFT adapter; see the module docstring."""
    plan = StagePlan(SECTION, ingredients(context, SECTION), parents=("fetch", data_stage(context)), lock="cuda")
    run_training(context, plan, _train)


def _train(stage: OpenStage, watch: Any) -> Result:
    context, settings = stage.context, stage.context.recipe.sft
    folder = data_folder(context)
    own = sft_rows(read_records(folder / "sft.jsonl", SftExample))
    require_rows(context, own, "sft.jsonl")
    fetched, ledger = load_fetched(context), checked_ledger(context, own, SECTION)
    device, student = choose_device(), find_student(context, fetched)
    tokenizer = load_tokenizer(student)
    held_out_rows = sft_rows(read_records(folder / "held_out_sft.jsonl", SftExample))
    data = prepare_data(stage, own, held_out_rows, MixIns(context, fetched, SECTION, ledger), tokenizer)
    execution = of_first(choose_execution(stage, settings, student_shape(student), device, data.train))
    say(f"sft: {len(data.train.rows)} rows, {data.train.tokens} tokens, on {device.name} ({execution.short})")
    base = load_model(student, settings.quantization, device, execution.precision, execution.attention)
    model = adapters.new_adapter(base, settings.lora, context.recipe.seed)
    trainer = _trainer(Parts(stage, model, tokenizer, student, device, execution), data, watch)
    trained = run_loop(Loop(stage, trainer, watch), before=trainer.evaluate, after=trainer.evaluate)
    files = adapters.save_adapter(trainer.model, tokenizer, student, stage.folder / "adapter")
    shown = measures(trained, trainer.model, trainer.keeper.execution) | {
        "held_out_loss_before": trained.before.get("loss"),
        "held_out_loss_after": trained.after.get("loss"),
        "held_out_before": trained.before,
        "held_out_after": trained.after,
        "checkpoints": chain(stage.folder),
        **beside(trainer, trained, device),
    }
    say(f"sft: loss {shown['train_loss_first']:.4f} → {shown['train_loss_last']:.4f}; held-out {_arrow(shown)}")
    outputs = [*files, *(stage.folder / name for name in ("loss_mask.txt", "dropped.jsonl", "log.jsonl"))]
    return Result(outputs, data.counts, data.dropped, token_counts(data, trained), device=device.name, measures=shown)


def _trainer(parts: Parts, data: Data, watch: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig

    from jobs.train.keeper import Keeper
    from jobs.train.sft_trainer import PackedSftTrainer, row_of
    from jobs.train.shares import Steps

    stage, settings = parts.stage, parts.stage.context.recipe.sft
    held_out = data.held_out.rows
    guards.check_window(parts.model.config, settings.max_length, stage)
    before = adapters.snapshot(parts.model)
    trainer = PackedSftTrainer(
        model=parts.model,
        args=on_one_gpu(SFTConfig(**common_arguments(settings, parts), completion_only_loss=True, packing=False)),
        train_dataset=Dataset.from_list(sft_columns(data.train.rows, parts.tokenizer)),
        eval_dataset=Dataset.from_list(sft_columns(held_out, parts.tokenizer)) if held_out else None,
        processing_class=parts.tokenizer,
        callbacks=[watch],
    )
    adapters.restore(trainer.model, before)  # TRL rounds them to bf16 over 4-bit weights
    finish_setup(trainer, parts)
    shown = check_rows(trainer, data.train, parts.tokenizer, parts.student)
    write_atomic(stage.folder / "loss_mask.txt", shown.encode())
    rows = [row_of(prepared) for prepared in trainer.train_dataset]
    trainer.use(
        rows, [row_of(prepared) for prepared in trainer.eval_dataset or ()], [it.principle_id for it in held_out]
    )
    sizes = [len(row.ids) for row in rows]
    steps = Steps(
        sizes=sizes,
        tokens=sizes,
        scored=sum(row.scored_tokens for row in rows),
        ids=[row.id for row in data.train.rows],
        batch_size=settings.batch_size,
        seed=stage.context.recipe.seed,
    )
    trainer.begin(steps, Keeper(stage, parts.execution), watch)
    return trainer


def _arrow(shown: dict[str, Any]) -> str:
    before, after = shown["held_out_loss_before"], shown["held_out_loss_after"]
    return "not measured (no held-out rows)" if before is None else f"{before:.4f} → {after:.4f}"
