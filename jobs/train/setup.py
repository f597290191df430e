"""From the recipe to a trainer that is safe to start: fingerprint, shared TRL arguments, and the checks on its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.common.console import say
from jobs.common.errors import DataError
from jobs.common.settings import DpoSettings, SftSettings
from jobs.common.stage import OpenStage, RunContext
from jobs.train import guards
from jobs.train.device import Device, without_compiled_kernels
from jobs.train.examples import Fitted, Row, encode
from jobs.train.student import Student, end_of_turn, set_special_tokens, template_sha256


@dataclass(frozen=True)
class Parts:
    """What a trainer is built from."""

    stage: OpenStage
    model: Any
    tokenizer: Any
    student: Student
    device: Device


def ingredients(context: RunContext, section: str) -> dict[str, Any]:
    """What can change a training stage's output, besides its inputs; `save_minutes` cannot."""
    recipe = context.recipe
    return {
        section: getattr(recipe, section).model_dump(mode="json", exclude={"save_minutes"}),
        "student": recipe.student.model_dump(mode="json"),
        "seed": recipe.seed,
        "chat_template_sha256": template_sha256(recipe.student.chat_template),
    }


def common_arguments(settings: SftSettings | DpoSettings, parts: Parts, held_out: int) -> dict[str, Any]:
    """Arguments that SFTConfig and DPOConfig share, by TRL's names."""
    stage, device = parts.stage, parts.device
    # TRL averages over batches: equal batches make that the average over rows.
    eval_batch = max(size for size in range(1, settings.batch_size + 1) if held_out % size == 0)
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
        "per_device_eval_batch_size": eval_batch,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "max_length": settings.max_length,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": device.kind == "cuda",
        "use_cpu": device.kind == "cpu",
        "dataloader_pin_memory": device.kind == "cuda",
        "logging_steps": 1,
        "save_strategy": "no",  # the watch decides when
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "trust_remote_code": False,
    }


def finish_setup(trainer: Any, parts: Parts) -> None:
    """Make model and tokenizer agree on padding and on what ends an answer; only the watch shows progress."""
    from transformers import PrinterCallback

    without_compiled_kernels()
    trainer.remove_callback(PrinterCallback)
    set_special_tokens(trainer.model, parts.tokenizer, end_of_turn(parts.tokenizer, parts.student))
    guards.check_padding(trainer.model.generation_config, parts.tokenizer.pad_token_id)


def check_rows(trainer: Any, fitted: Fitted, tokenizer: Any, student: Student) -> str:
    """Check the loss mask of every row as the trainer will train it, and show one.

    Returns:
        The shown row, which is also printed.

    Raises:
        DataError: TRL dropped rows we counted as kept, or a mask is wrong.
    """
    tokens = guards.turn_tokens(tokenizer, end_of_turn(tokenizer, student))
    dataset = trainer.train_dataset
    if list(dataset["id"]) != [row.id for row in fitted.rows]:
        raise DataError(f"The trainer kept {len(dataset)} of {len(fitted.rows)} rows and does not say why.")
    cut = {it.id for it in fitted.cut}
    shown = ""
    for row, prepared in zip(fitted.rows, dataset, strict=True):
        for answer, masked in _masked(row, prepared, tokenizer, row.id in cut):
            guards.check_row(masked, tokens, tokenizer)
            if not shown:
                _check_markers(row, answer, masked, tokenizer)
                shown = guards.show_mask(masked, tokenizer)
    say(shown.rstrip())
    return shown


def _masked(row: Row, prepared: dict[str, Any], tokenizer: Any, cut: bool) -> list[tuple[str, guards.MaskedRow]]:
    prompt = encode(tokenizer, row.prompt, ask=True)
    if "labels" in prepared:
        return [("completion", guards.MaskedRow(row.id, prepared["input_ids"], prepared["labels"], prompt, cut))]
    found = []
    for answer in ("chosen", "rejected"):
        start, rest = prepared["prompt_ids"], prepared[f"{answer}_ids"]
        masked = guards.MaskedRow(row.id, start + rest, [guards.IGNORED] * len(start) + rest, prompt, cut=False)
        found.append((answer, masked))  # TRL cuts pairs later, in its collator
    return found


def _check_markers(row: Row, answer: str, masked: guards.MaskedRow, tokenizer: Any) -> None:
    whole = tokenizer.apply_chat_template(
        row.prompt + row.answers[answer], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    mask = list(whole["assistant_masks"])
    mask[: len(masked.prompt_ids)] = [0] * len(masked.prompt_ids)  # earlier assistant turns are context
    guards.check_generation_markers(masked, mask, tokenizer)
