"""What is refused before a training stage's folder is touched: no --redo moves a finished output for nothing."""

from __future__ import annotations

from pathlib import Path

from jobs.common.errors import ConfigError
from jobs.common.fetched import student_folder
from jobs.common.jsonl import read_json
from jobs.common.manifest import finished_manifest
from jobs.common.row_limit import require_rows_fit
from jobs.common.stage import RunContext
from jobs.train.device import libraries
from jobs.train.divided import require_divisible
from jobs.train.student import skeleton
from jobs.train.targets import wrong_target


def require_trainable(context: RunContext, section: str) -> None:
    """Refuse what the student, the SFT model or the processes cannot follow; a stage that has finished is left alone.

    A student that is a GGUF not yet dequantised is looked at later, when it is loaded.

    Args:
        context: the run.
        section: `sft` or `dpo`.

    Raises:
        ConfigError: weights that cannot be divided, or are not those sft trained on; rows beyond what the student
            reads; an adapter on other than its linear layers.
        DataError: a manifest or config.json is damaged, or the student cannot be loaded.
    """
    if not context.redo and (context.folder / section / "manifest.json").exists():
        return
    require_divisible(context, section)
    if section == "dpo":
        _require_sft_weights(context)
    if (folder := student_folder(context)) is None:
        return
    config = read_json(folder / "config.json")
    require_rows_fit(config, section, getattr(context.recipe, section).max_length, _again(context, section))
    if section == "sft" and context.recipe.sft.lora.target_modules != "all-linear":
        _require_targets(context, folder)


def _require_sft_weights(context: RunContext) -> None:
    if not (context.folder / "sft" / "manifest.json").exists():
        return  # opening the stage says so
    trained = finished_manifest(context, "sft")["ingredients"].get("sft", {}).get("quantization")
    asked = context.recipe.dpo.quantization
    if trained and trained != asked:
        same = [f"--set {section}.quantization={trained}" for section in ("sft", "dpo")]
        raise ConfigError(
            f"dpo: dpo.quantization is {asked}, and {context.folder / 'sft'} was trained with {trained}: on other "
            f"frozen weights the reference is not the SFT model. Run: {_again(context, 'dpo')} {' '.join(same)}"
        )


def _require_targets(context: RunContext, folder: Path) -> None:
    with libraries("sft", context.typed):
        model = skeleton(folder)
        if fault := wrong_target(model, context.recipe.sft.lora.target_modules):
            raise ConfigError(f"{fault} Run: {_again(context, 'sft')} --set sft.lora.target_modules=all-linear")


def _again(context: RunContext, section: str) -> str:
    return context.command(section, *["--redo"] * context.redo)
