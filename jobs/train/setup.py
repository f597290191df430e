"""From the recipe to a trainer that is safe to start: fingerprint, shared TRL arguments, and the checks on its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.common.console import say
from jobs.common.errors import DataError
from jobs.common.settings import DpoSettings, SftSettings
from jobs.common.stage import OpenStage, RunContext
from jobs.train import guards, loss_mask
from jobs.train.device import Device
from jobs.train.divided import divide
from jobs.train.examples import Row, encode
from jobs.train.execution import Execution
from jobs.train.fitted import Fitted
from jobs.train.loss_mask import MaskedRow
from jobs.train.student import Student, end_of_turn, set_special_tokens, template_sha256


@dataclass(frozen=True)
class Parts:
    """What a trainer is built from."""

    stage: OpenStage
    model: Any
    tokenizer: Any
    student: Student
    device: Device
    execution: Execution


OUTSIDE = {"micro_batch_tokens", "gradient_checkpointing", "save_minutes", "evaluations"}
"""Settings that are not part of the fingerprint; the manifest has what they came to."""


MIX_IN_AND_DROPOUT = 2
"""Raised where the code draws other mixed-in rows or dropout masks, or trains other parts of such rows: what was begun
before is then not gone on with. In the fingerprint only where a recipe has either."""


def ingredients(context: RunContext, section: str) -> dict[str, Any]:
    """What can change a training stage's output, besides its inputs.

    How often it saves and evaluates cannot; how its rows are packed and recomputed changes it only by rounding, since
    dropout belongs to the rows (jobs/train/engine/dropout.py).
    """
    recipe, settings = context.recipe, getattr(context.recipe, section)
    drawn = settings.mix_in or (section == "sft" and recipe.sft.lora.dropout > 0)
    return ({"mix_in_and_dropout_version": MIX_IN_AND_DROPOUT} if drawn else {}) | {
        section: settings.model_dump(mode="json", exclude=OUTSIDE),
        "student": recipe.student.model_dump(mode="json"),
        "seed": recipe.seed,
        "chat_template_sha256": template_sha256(recipe.student.chat_template),
    }


def common_arguments(settings: SftSettings | DpoSettings, parts: Parts) -> dict[str, Any]:
    """Arguments that SFTConfig and DPOConfig share, by TRL's names."""
    stage, device = parts.stage, parts.device
    return {
        "output_dir": str(stage.folder / "checkpoints"),
        "seed": stage.context.recipe.seed,
        "data_seed": stage.context.recipe.seed,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": min(settings.warmup_fraction, 1 - 1e-9),  # below 1 it is a share of the steps
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": 1,  # a step's forward passes are Stepping's
        "gradient_checkpointing": False,  # finish_setup turns it on where the execution has it
        "max_length": settings.max_length,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": False,  # no autocast: the frozen weights set the dtype, and the engine casts the adapters
        "use_cpu": device.kind == "cpu",
        "dataloader_pin_memory": False,  # batches are row numbers
        "logging_steps": 1,
        "save_strategy": "no",  # the watch decides when
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "trust_remote_code": False,
    }


def finish_setup(trainer: Any, parts: Parts) -> None:
    """Prepare the model for packed passes and make it agree with the tokenizer; only the watch shows progress.

    Every operation is deterministic from here on, so that a resumed run is equal to the bit on a GPU too.
    """
    import torch
    from transformers import PrinterCallback

    from jobs.train.engine.prepare import prepare_model
    from jobs.train.keeper import recompute_activations

    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    prepare_model(trainer.model, parts.execution.compiled, sharded=trainer.is_fsdp_enabled)
    if parts.execution.gradient_checkpointing:
        recompute_activations(trainer.model)
    if trainer.is_fsdp_enabled:
        divide(trainer)
    trainer.remove_callback(PrinterCallback)
    set_special_tokens(trainer.model, parts.tokenizer, end_of_turn(parts.tokenizer, parts.student))
    guards.check_padding(trainer.model.generation_config, parts.tokenizer.pad_token_id)


def check_rows(trainer: Any, fitted: Fitted, tokenizer: Any, student: Student) -> str:
    """Check the loss mask of every row as the trainer will train it, and show one, and one of several answers.

    Returns:
        The shown rows, which are also printed.

    Raises:
        DataError: TRL dropped rows we counted as kept, or a mask is wrong.
    """
    tokens = loss_mask.turn_tokens(tokenizer, end_of_turn(tokenizer, student))
    dataset = trainer.train_dataset
    if list(dataset["id"]) != [row.id for row in fitted.rows]:
        raise DataError(f"The trainer kept {len(dataset)} of {len(fitted.rows)} rows and does not say why.")
    cut = {it.id for it in fitted.cut}
    shown: dict[bool, str] = {}
    for row, prepared in zip(fitted.rows, dataset, strict=True):
        for answer, masked in _masked(row, prepared, tokenizer, row.id in cut):
            loss_mask.check_row(masked, tokens, tokenizer)
            several = len(masked.asked) > 1
            if several not in shown:
                _check_markers(row, answer, masked, tokenizer)
                shown[several] = loss_mask.show_mask(masked, tokenizer)
    text = "".join(shown.values())
    say(text.rstrip())
    return text


def _masked(row: Row, prepared: dict[str, Any], tokenizer: Any, cut: bool) -> list[tuple[str, MaskedRow]]:
    if "labels" in prepared:
        asked = [encode(tokenizer, turns, ask=True) for turns in row.asked("completion")]
        return [("completion", MaskedRow(row.id, prepared["input_ids"], prepared["labels"], asked, cut))]
    prompt = encode(tokenizer, row.prompt, ask=True)
    found = []
    for answer in ("chosen", "rejected"):
        start, rest = prepared["prompt_ids"], prepared[f"{answer}_ids"]
        masked = MaskedRow(row.id, start + rest, [loss_mask.IGNORED] * len(start) + rest, [prompt], cut=False)
        found.append((answer, masked))  # TRL cuts pairs later, in its collator
    return found


def _check_markers(row: Row, answer: str, masked: MaskedRow, tokenizer: Any) -> None:
    whole = tokenizer.apply_chat_template(
        row.prompt + row.answers[answer], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    mask = list(whole["assistant_masks"])
    first = len(masked.asked[0])
    mask[:first] = [0] * first  # assistant turns of a prompt are context
    loss_mask.check_generation_markers(masked, mask, tokenizer)
