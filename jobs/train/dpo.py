"""Continue the SFT adapter on preference pairs: `cai dpo`.

Settings → TRL's DPOConfig → DPOTrainer → adapter. The reference is the SFT model: the same base with a frozen copy of
the SFT adapter. Reads fetch, generate (or repair) and sft, writes adapter/ (the policy alone), loss_mask.txt and
log.jsonl.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from jobs.common.console import say
from jobs.common.data_stage import data_folder, data_stage
from jobs.common.fetched import load_fetched
from jobs.common.jsonl import read_records, write_atomic
from jobs.common.records import PreferencePair
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan, open_stage
from jobs.train import adapters, guards
from jobs.train.data import Data, checked_ledger, prepare_data
from jobs.train.device import choose_device, libraries
from jobs.train.examples import pair_rows, require_rows
from jobs.train.loop import Loop, Trained, measures, remove_checkpoints, run_loop, token_counts, watching
from jobs.train.mix_in import mixed_rows
from jobs.train.setup import Parts, check_rows, common_arguments, finish_setup, ingredients
from jobs.train.student import find_student, load_model, load_tokenizer

SECTION: Literal["dpo"] = "dpo"


def run(context: RunContext) -> None:
    """Train the DPO adapter; see the module docstring."""
    plan = StagePlan(SECTION, ingredients(context, SECTION), parents=("fetch", data_stage(context), "sft"), lock="cuda")
    with open_stage(context, plan) as stage:
        if stage is None:
            return
        with libraries(SECTION, context.run):
            stage.finish(_train(stage))
        remove_checkpoints(stage)


def _train(stage: OpenStage) -> Result:
    context, settings = stage.context, stage.context.recipe.dpo
    folder, start = data_folder(context), context.folder / "sft" / "adapter"
    own = pair_rows(read_records(folder / "pairs.jsonl", PreferencePair))
    require_rows(context, own, "pairs.jsonl")
    fetched, ledger = load_fetched(context), checked_ledger(context, own, SECTION)
    mixed = mixed_rows(context, fetched, SECTION, own, ledger)
    device, student = choose_device(), find_student(context, fetched)
    adapters.check_base(start, student)
    tokenizer = load_tokenizer(student)
    held_out_rows = pair_rows(read_records(folder / "held_out_pairs.jsonl", PreferencePair))
    data = prepare_data(stage, [*own, *mixed.rows], mixed.refused, held_out_rows, tokenizer)
    say(f"dpo: {len(data.train.rows)} pairs, {data.train.tokens} tokens, on {device.name}")
    base = load_model(student, settings.quantization, device)
    model = adapters.load_adapter(base, start, student, trainable=True)
    with watching(stage, settings) as watch:
        trainer = _trainer(Parts(stage, model, tokenizer, student, device), data, watch)
        write_atomic(stage.folder / "loss_mask.txt", check_rows(trainer, data.train, tokenizer, student).encode())
        reference = adapters.snapshot(trainer.model, adapters.REFERENCE)
        loop = Loop(stage, trainer, watch)
        trained = run_loop(loop, before=partial(check_start, trainer), after=partial(_held_out, trainer, data))
        guards.check_reference_kept(reference, adapters.weights(trainer.model, adapters.REFERENCE))
    files = adapters.save_adapter(trainer.model, tokenizer, student, stage.folder / "adapter")
    shown = measures(trained, trainer.model, device) | _figures(trained, settings.beta)
    _say_figures(shown)
    outputs = [*files, stage.folder / "loss_mask.txt", stage.folder / "dropped.jsonl"]
    return Result(outputs, data.counts, data.dropped, token_counts(data, trained), device=device.name, measures=shown)


def _trainer(parts: Parts, data: Data, watch: Any) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    settings = parts.stage.context.recipe.dpo
    before = adapters.snapshot(parts.model)
    trainer = DPOTrainer(
        model=parts.model,
        args=DPOConfig(
            **common_arguments(settings, parts, len(data.held_out.rows)),
            beta=settings.beta,
            loss_type=[settings.loss_type],
            disable_dropout=True,
            precompute_ref_log_probs=False,
        ),
        train_dataset=Dataset.from_list([row.for_trl() for row in data.train.rows]),
        eval_dataset=Dataset.from_list([row.for_trl() for row in data.held_out.rows]) if data.held_out.rows else None,
        processing_class=parts.tokenizer,
        callbacks=[watch],
    )
    adapters.restore(trainer.model, before)  # TRL rounds the policy, not the reference, to bf16 over 4-bit weights
    finish_setup(trainer, parts)
    return trainer


def check_start(trainer: Any) -> dict[str, Any]:
    """Prove that the policy starts as the reference: equal bits, and margins of exactly 0 on one batch.

    Raises:
        DataError: it does not; training would optimize against another model than the SFT model.
    """
    policy = adapters.weights(trainer.model, adapters.POLICY)
    reference = adapters.weights(trainer.model, adapters.REFERENCE)
    guards.check_same_adapters(policy, reference)
    rows = trainer.train_dataset.select(
        range(min(len(trainer.train_dataset), trainer.args.per_device_train_batch_size))
    )
    metrics = trainer.evaluate(eval_dataset=rows)
    guards.check_start(metrics)
    return {"loss": metrics["eval_loss"], "margin": metrics["eval_rewards/margins"]}


def _held_out(trainer: Any, data: Data) -> dict[str, Any]:
    if not data.held_out.rows:
        return {}
    metrics = trainer.evaluate()
    names = (
        "rewards/accuracies",
        "rewards/margins",
        "rewards/chosen",
        "rewards/rejected",
        "logps/chosen",
        "logps/rejected",
    )
    return {"loss": metrics["eval_loss"]} | {name: metrics[f"eval_{name}"] for name in names}


def _figures(trained: Trained, beta: float) -> dict[str, Any]:
    """Held-out figures. The reference is the start, so log-probabilities before follow from the rewards after."""
    after = trained.after
    figures: dict[str, Any] = {
        "start_loss": trained.before["loss"],
        "start_margin": trained.before["margin"],
        "held_out_loss_after": after.get("loss"),
        "held_out_accuracy_before": 0.0 if after else None,
        "held_out_accuracy_after": after.get("rewards/accuracies"),
        "held_out_margin_before": 0.0 if after else None,
        "held_out_margin_after": after.get("rewards/margins"),
    }
    for side in ("chosen", "rejected"):
        reward, now = after.get(f"rewards/{side}"), after.get(f"logps/{side}")
        figures[f"held_out_{side}_reward_after"] = reward
        figures[f"held_out_{side}_logp_before"] = None if now is None or reward is None else now - reward / beta
        figures[f"held_out_{side}_logp_after"] = now
    return figures


def _say_figures(shown: dict[str, Any]) -> None:
    line = f"dpo: loss {shown['train_loss_first']:.4f} → {shown['train_loss_last']:.4f}; held-out "
    if shown["held_out_accuracy_after"] is None:
        say(line + "not measured (no held-out pairs)")
        return
    before, after = shown["held_out_chosen_logp_before"], shown["held_out_chosen_logp_after"]
    say(
        line + f"accuracy {shown['held_out_accuracy_after']:.3f}, margin {shown['held_out_margin_after']:.4f}, "
        f"log-probability of chosen {before:.2f} → {after:.2f}"
    )
    if after < before:
        say("dpo: the chosen answers became less likely (likelihood displacement); a lower dpo.learning_rate helps")
