"""Continue the SFT adapter on preference pairs: `cai dpo`.

Settings → TRL's DPOConfig → PairTrainer → adapter. The reference is the SFT model: the same frozen weights with the SFT
adapter as it was saved. Its log-probabilities are in RUNS/reference, shared by all runs. Reads fetch, generate (or
repair) and sft; writes adapter/ (the policy alone), reference.json, loss_mask.txt, execution.json and log.jsonl.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from jobs.common.console import say
from jobs.common.data_stage import data_folder, data_stage
from jobs.common.fetched import load_fetched
from jobs.common.jsonl import read_records, sha256_file
from jobs.common.records import PreferencePair
from jobs.common.settings import DpoSettings
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan
from jobs.train import adapters, guards
from jobs.train.beside import beside
from jobs.train.checkpoints import chain
from jobs.train.data import checked_ledger, prepare_data, require_rows
from jobs.train.device import choose_device
from jobs.train.dpo_setup import REFERENCE, STORE, pair_trainer
from jobs.train.examples import pair_rows
from jobs.train.execution import choose_execution
from jobs.train.loop import Loop, Trained, measures, run_loop, token_counts
from jobs.train.margins import alarm, displaced
from jobs.train.mix_in import MixIns
from jobs.train.setup import Parts, ingredients
from jobs.train.student import find_student, load_model, load_tokenizer, student_shape
from jobs.train.together import of_first
from jobs.train.training import run_training

SECTION: Literal["dpo"] = "dpo"

SHOWN = {
    "loss": "loss",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "logps/chosen": "chosen_logp",
    "logps/rejected": "rejected_logp",
}
"""Held-out figures that the manifest names by themselves, by TRL's names."""


def run(context: RunContext) -> None:
    """Train the DPO adapter; see the module docstring."""
    plan = StagePlan(SECTION, ingredients(context, SECTION), parents=("fetch", data_stage(context), "sft"), lock="cuda")
    run_training(context, plan, _train)


def _train(stage: OpenStage, watch: Any) -> Result:
    context, settings = stage.context, stage.context.recipe.dpo
    folder, start = data_folder(context), adapters.adapter_of(context, "sft")
    own = pair_rows(read_records(folder / "pairs.jsonl", PreferencePair))
    require_rows(context, own, "pairs.jsonl")
    fetched, ledger = load_fetched(context), checked_ledger(context, own, SECTION)
    device, student = choose_device(), find_student(context, fetched)
    adapters.check_base(start, student)
    tokenizer = load_tokenizer(student)
    held_out_rows = pair_rows(read_records(folder / "held_out_pairs.jsonl", PreferencePair))
    data = prepare_data(stage, own, held_out_rows, MixIns(context, fetched, SECTION, ledger), tokenizer)
    execution = of_first(choose_execution(stage, settings, student_shape(student), device, data.train))
    say(f"dpo: {len(data.train.rows)} pairs, {data.train.tokens} tokens, on {device.name} ({execution.short})")
    base = load_model(student, settings.quantization, device, execution.precision, execution.attention)
    model = adapters.load_adapter(base, start, student, trainable=True)
    trainer, facts = pair_trainer(Parts(stage, model, tokenizer, student, device, execution), data, watch)
    trained = run_loop(Loop(stage, trainer, watch), before=partial(_start, trainer, stage), after=trainer.evaluate)
    kept, again = sha256_file(stage.folder / REFERENCE), context.command(SECTION, "--redo")
    guards.check_reference_kept(trained.before["reference_sha256"], kept, again)
    files = adapters.save_adapter(trainer.model, tokenizer, student, stage.folder / "adapter")
    shown = measures(trained, trainer.model, trainer.keeper.execution) | {
        **_figures(trained, settings),
        **facts,
        "checkpoints": chain(stage.folder),
        **beside(trainer, trained, device),
    }
    _say_figures(shown)
    outputs = [*files, *(stage.folder / name for name in ("loss_mask.txt", "dropped.jsonl", "log.jsonl", REFERENCE))]
    return Result(outputs, data.counts, data.dropped, token_counts(data, trained), device=device.name, measures=shown)


def _start(trainer: Any, stage: OpenStage) -> dict[str, Any]:
    """Prove that the policy is its reference, then measure the held-out pairs."""
    from jobs.train.start import prove_start

    proof = prove_start(trainer, stage.context.folder / "sft" / "adapter", stage.context.runs / STORE)
    return proof | {"reference_sha256": sha256_file(stage.folder / REFERENCE), "held_out": trainer.evaluate()}


def _figures(trained: Trained, settings: DpoSettings) -> dict[str, Any]:
    """Held-out figures before and after, and whether the chosen answers became less likely."""
    before, after = trained.before["held_out"], trained.after
    figures: dict[str, Any] = {f"start_{name}": trained.before[name] for name in ("loss", "margin", "reference_error")}
    for name, shown in SHOWN.items():
        figures[f"held_out_{shown}_before"], figures[f"held_out_{shown}_after"] = before.get(name), after.get(name)
    figures |= {"held_out_before": before, "held_out_after": after}
    gained, margin = displaced(after, trained.history)
    return figures | {
        "chosen_logp_per_token_gained": gained,
        "likelihood_displacement": alarm(gained, margin, "sft" in settings.loss_type) is not None,
    }


def _say_figures(shown: dict[str, Any]) -> None:
    line = f"dpo: loss {shown['train_loss_first']:.4f} → {shown['train_loss_last']:.4f}; held-out "
    if shown["held_out_accuracy_after"] is None:
        say(line + "not measured (no held-out pairs)")
        return
    before, after = shown["held_out_chosen_logp_before"], shown["held_out_chosen_logp_after"]
    length = shown["length_baseline"]
    say(
        line + f"accuracy {shown['held_out_accuracy_after']:.3f} ({length['rule']} alone {length['held_out']:.3f}), "
        f"margin {shown['held_out_margin_after']:.4f}, log-probability of chosen {before:.2f} → {after:.2f}"
    )
