"""LoRA adapters: made, loaded, kept in fp32, compared and saved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.errors import ConfigError, DataError
from jobs.common.jsonl import read_json, whole_folder, write_json
from jobs.common.settings import LoraSettings
from jobs.common.stage import RunContext
from jobs.train.divided import is_divided, part_of, whole
from jobs.train.student import Student
from jobs.train.targets import wrong_target

POLICY, REFERENCE = "default", "ref"
"""PEFT's name of the adapter that is trained, and TRL's name of the frozen copy."""

FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Saved:
    """The adapter that a finished stage left."""

    folder: Path
    again: str
    """The command that trains it anew; for messages."""


def adapter_of(context: RunContext, stage: str) -> Saved:
    """Where a stage leaves its adapter."""
    return Saved(context.folder / stage / "adapter", context.command(stage, "--redo"))


def new_adapter(model: Any, settings: LoraSettings, seed: int) -> Any:
    """The model with a fresh adapter; the same seed gives the same start, with 4-bit weights or not.

    Raises:
        ConfigError: the adapter would be on other layers than the decoder's linear ones.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    if fault := wrong_target(model, settings.target_modules):
        raise ConfigError(f"{fault} Correct the recipe and run sft again with --redo.")
    set_seed(seed)
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def load_adapter(model: Any, saved: Saved, student: Student, name: str = POLICY, trainable: bool = False) -> Any:
    """The model with a saved adapter.

    Raises:
        DataError: the adapter is missing, was trained on another base, or does not fit this one.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    check_base(saved, student)
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(saved.folder, adapter_name=name, is_trainable=trainable)
            return model
        return PeftModel.from_pretrained(model, saved.folder, adapter_name=name, is_trainable=trainable)
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(f"{saved.folder} does not fit {student.name}: {first}. Run: {saved.again}") from error


def check_base(saved: Saved, student: Student) -> None:
    """Refuse an adapter of another base.

    Raises:
        DataError: its configuration is missing or names another base or revision.
    """
    path = saved.folder / "adapter_config.json"
    if not path.exists():
        raise DataError(f"{path} does not exist. Run: {saved.again}")
    config = read_json(path)
    found = (config.get("base_model_name_or_path"), config.get("revision"))
    if found != (student.name, student.revision):
        raise DataError(
            f"{path}: the adapter's base is {found[0]} ({str(found[1])[:12]}), the student is {student.name} "
            f"({student.revision[:12]}). Run: {saved.again}"
        )


def weights(model: Any, name: str = POLICY) -> dict[str, Any]:
    """The parameters of one adapter, by layer; the names are the same for policy and reference."""
    part = f".{name}."
    return {key.replace(part, "."): value for key, value in model.named_parameters() if part in key}


def snapshot(model: Any, name: str = POLICY) -> dict[str, Any]:
    """A copy of an adapter's values in fp32: taken before TRL, which rounds the policy to bf16 over 4-bit weights."""
    return {key: value.detach().float().clone() for key, value in weights(model, name).items()}


def restore(model: Any, values: dict[str, Any]) -> None:
    """Put whole values back, in fp32; where processes hold parts of them, each takes its own."""
    for name, parameter in weights(model).items():
        value = values[name].to(parameter.device)
        if is_divided(parameter):
            parameter.detach().copy_(part_of(value, parameter))
        else:
            parameter.data = value.clone()


def saved_weights(folder: Path) -> dict[str, Any]:
    """The parameters of a saved adapter, named as `weights` names them."""
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def load_values(model: Any, checkpoint: Path) -> None:
    """Put a checkpoint's policy into the model without going on with training."""
    restore(model, saved_weights(checkpoint))


def trainable_parameters(model: Any) -> int:
    """How many values are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def whole_values(model: Any) -> dict[str, Any]:
    """The policy's values by PEFT's names, put together where processes hold parts of them (FSDP); all must call it."""
    return {name: whole(value) for name, value in model.state_dict().items() if f".{POLICY}." in name}


def save_adapter(model: Any, tokenizer: Any, student: Student, folder: Path) -> list[Path]:
    """Write the policy alone, with tokenizer, template and generation config, whole or not at all.

    Returns:
        The files, adapter weights among them.
    """
    with whole_folder(folder) as temporary:
        model.save_pretrained(
            temporary, selected_adapters=[POLICY], safe_serialization=True, state_dict=whole_values(model)
        )
        tokenizer.save_pretrained(temporary)
        model.generation_config.save_pretrained(temporary)
        (temporary / "README.md").unlink(missing_ok=True)
        _name_base(temporary / "adapter_config.json", student)
    return sorted(path for path in folder.iterdir() if path.is_file())


def _name_base(path: Path, student: Student) -> None:
    # PEFT writes the folder the base was loaded from, which means nothing on another machine.
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, config | {"base_model_name_or_path": student.name, "revision": student.revision})
