"""From the recipe to a PairTrainer with its pairs, their reference and their smoothing."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from jobs.common.console import say
from jobs.common.jsonl import sha256_file, write_atomic
from jobs.train import adapters, guards
from jobs.train.data import Data
from jobs.train.examples import Row
from jobs.train.margins import length_baseline
from jobs.train.objective import objective, pair_smoothing
from jobs.train.setup import Parts, check_rows, common_arguments, finish_setup
from jobs.train.student import template_sha256
from jobs.train.together import on_one_gpu

STORE = "reference"
"""Folder of the reference's log-probabilities below RUNS."""
REFERENCE = "reference.json"
"""The stage's own copy of those it uses."""


def pair_trainer(parts: Parts, data: Data, watch: Any) -> tuple[Any, dict[str, Any]]:
    """The trainer, ready to train, and facts of its data for the manifest."""
    from jobs.train.keeper import Keeper
    from jobs.train.shares import Steps

    stage, settings = parts.stage, parts.stage.context.recipe.dpo
    trainer = _build(parts, data, watch)
    shown = check_rows(trainer, data.train, parts.tokenizer, parts.student)
    write_atomic(stage.folder / "loss_mask.txt", shown.encode())
    facts = _give_pairs(trainer, parts, data, watch)
    pairs = trainer.pairs.ids
    steps = Steps(
        sizes=[trainer.size(pair) for pair in pairs],
        tokens=[2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs],
        scored=sum(len(pair.chosen) + len(pair.rejected) for pair in pairs),
        ids=[row.id for row in data.train.rows],
        batch_size=settings.batch_size,
        seed=stage.context.recipe.seed,
    )
    trainer.begin(steps, Keeper(stage, parts.execution), watch)
    return trainer, facts


def _build(parts: Parts, data: Data, watch: Any) -> Any:
    from datasets import Dataset
    from trl import DPOConfig

    from jobs.train.dpo_trainer import PairTrainer

    settings, held_out = parts.stage.context.recipe.dpo, data.held_out.rows
    guards.check_window(parts.model.config, settings.max_length, parts.stage)
    before = adapters.snapshot(parts.model)
    trainer = PairTrainer(
        model=parts.model,
        args=on_one_gpu(DPOConfig(**common_arguments(settings, parts), beta=settings.beta, disable_dropout=True)),
        train_dataset=Dataset.from_list([row.for_trl() for row in data.train.rows]),
        eval_dataset=Dataset.from_list([row.for_trl() for row in held_out]) if held_out else None,
        processing_class=parts.tokenizer,
        callbacks=[watch],
    )
    adapters.restore(trainer.model, before)  # TRL rounds the policy to bf16 over 4-bit weights
    trainer.model.delete_adapter(adapters.REFERENCE)  # TRL's copy: the reference is in the store
    finish_setup(trainer, parts)
    return trainer


def _give_pairs(trainer: Any, parts: Parts, data: Data, watch: Any) -> dict[str, Any]:
    from jobs.train.engine import attention
    from jobs.train.pairs import Pairs, Passes, pair_ids
    from jobs.train.reference import pin, summed
    from jobs.train.start import Reference

    stage, settings, execution = parts.stage, parts.stage.context.recipe.dpo, parts.execution
    goal, share = objective(settings), execution.attention == attention.NAME  # flash-attn knows no shared prompts
    how = Passes(trainer.args.device, execution.micro_batch_tokens, share)
    rows = [*data.train.rows, *data.held_out.rows]
    ids = [pair_ids(row, settings.max_length) for row in (*trainer.train_dataset, *(trainer.eval_dataset or ()))]
    sft_again, dpo_again = (stage.context.command(name, "--redo") for name in ("sft", "dpo"))
    store = stage.context.runs / STORE
    reference = Reference(store, _key(parts), trainer.model, how, watch, trainer.accelerator, sft_again)
    stored = summed(pin(stage.folder / REFERENCE, ids, partial(reference.find, ids), dpo_again))
    known = [_probability(row) for row in rows]
    smoothing = [pair_smoothing(goal, probability) for probability in known]
    if goal.smoothing is None and all(probability is None for probability in known):
        say("dpo: label_smoothing=judge, but no pair has a judge's probability, so none is smoothed")
    count = len(data.train.rows)
    principles = [row.principle_id for row in rows]
    trainer.use(
        goal,
        Pairs.of(ids[:count], stored[:, :count], smoothing[:count], principles[:count]),
        Pairs.of(ids[count:], stored[:, count:], smoothing[count:], principles[count:]),
        share,
    )
    lengths = [(len(pair.chosen), len(pair.rejected)) for pair in ids]
    return {
        "reference_pairs": len(ids),
        "reference_pairs_computed": reference.computed,
        "length_baseline": asdict(length_baseline(lengths[:count], lengths[count:])),
    }


def _key(parts: Parts) -> Any:
    from jobs.train.reference import Key

    context = parts.stage.context
    return Key(
        base=parts.student.revision,
        quantization=context.recipe.dpo.quantization,
        precision=parts.execution.precision,
        adapter_sha256=sha256_file(context.folder / "sft" / "adapter" / "adapter_model.safetensors"),
        template_sha256=template_sha256(context.recipe.student.chat_template),
    )


def _probability(row: Row) -> float | None:
    """The judge's probability that chosen is better; mix-ins have none of ours."""
    return None if row.principle_id == "mix_in" else row.record.get("preference_probability")
