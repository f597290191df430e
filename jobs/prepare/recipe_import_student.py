"""The keys of an old file that name its model, its precision and its chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.common.errors import ConfigError
from jobs.common.jsonl import read_json
from jobs.prepare.recipe_import_draft import Draft, Line

MARKS = {"chatml": ("<|im_start|>",), "zephyr": ("<|user|>", "<|assistant|>"), "mistral": ("[INST]",)}
"""What a template writes that no other does."""


def model(draft: Draft, key: str, value: Any) -> Line:
    """`model_name_or_path`: the student; of a DPO file that joins an SFT recipe, the end of that SFT."""
    if draft.onto is not None:
        stays = draft.onto.get("student", {}).get("model", "embedded")
        why = "dpo continues this run's sft adapter, and its frozen copy is the reference"
        return Line(key, value, "dead", f"student.model stays {stays}: {why}")
    base = _adapter_base(draft, key, value)
    if base is None:
        return Line(key, value, "renamed", draft.put("student.model", value))
    put = draft.put("student.model", base)
    return Line(key, value, "renamed", f"{put}, the base of that adapter; sft trains a new one, which dpo continues")


def revision(draft: Draft, key: str, value: Any) -> Line:
    """`model_revision`."""
    if draft.onto is not None:
        return Line(key, value, "dead", "student.revision stays: the student is the sft section's")
    return Line(key, value, "renamed", draft.put("student.revision", str(value)))


def chat_template(draft: Draft, key: str, value: Any) -> Line:
    """`chat_template` (text) or `chat_template_path`: ours of the same turns, or the one the model speaks."""
    short = value if key == "chat_template_path" else "(jinja)"
    if draft.onto is not None:
        return Line(key, short, "dead", "student.chat_template stays: the student is the sft section's")
    theirs = _recognised(draft, key, value)
    ours = spoken(str(draft.old.get("model_name_or_path", ""))) or theirs
    put = draft.put("student.chat_template", ours)
    if ours == theirs:
        return Line(key, short, "renamed", put)
    return Line(key, short, "lost", f"{put}: the model speaks {ours}; {theirs} on it teaches a second way to end turns")


def unsaid_template(draft: Draft) -> None:
    """Where the old file has no template: the model's own, or the handbook's default (Zephyr's) for a base Mistral."""
    name = str(draft.old.get("model_name_or_path", ""))
    if draft.onto is None and "chat_template" not in draft.recipe.get("student", {}):
        draft.put("student.chat_template", spoken(name) or ("zephyr" if "mistral" in name.lower() else "chatml"))


def spoken(name: str) -> str | None:
    """The template that a model's name promises, or None."""
    lower = name.lower()
    if "smollm" in lower or "qwen" in lower:
        return "chatml"
    if "zephyr" in lower:
        return "zephyr"
    return "mistral" if "mistral" in lower and "instruct" in lower else None


def precision(draft: Draft, key: str, value: Any) -> Line:
    """`bf16`, `fp16`, `dtype` or `torch_dtype`; all of them decide together."""
    dtypes = {str(draft.old.get(name)).removeprefix("torch.") for name in ("dtype", "torch_dtype")}
    if draft.old.get("bf16") is True or "bfloat16" in dtypes:
        here = "bf16"
    else:
        here = "fp32" if "float32" in dtypes else "auto"
    half = (key == "fp16" and value is True) or str(value).removeprefix("torch.") == "float16"
    return Line(key, value, "lost" if half and here == "auto" else "renamed", draft.put_here("precision", here))


def _adapter_base(draft: Draft, key: str, value: Any) -> str | None:
    config = Path(str(value)) / "adapter_config.json"
    if not config.is_file():
        return None
    base = read_json(config).get("base_model_name_or_path")
    if not base:
        raise ConfigError(
            f"{draft.file.where((key,))}: {key}: {value} is an adapter, and {config} does not name its base "
            "(base_model_name_or_path). Write the base model there, then import again."
        )
    return str(base)


def _recognised(draft: Draft, key: str, value: Any) -> str:
    path = Path(str(value))
    text = path.read_text(encoding="utf-8") if key == "chat_template_path" and path.is_file() else str(value)
    for name, marks in MARKS.items():
        if all(mark in text for mark in marks):
            return name
    if key == "chat_template_path" and (known := spoken(text)):
        return known
    raise ConfigError(
        f"{draft.file.where((key,))}: {key}: this template is none of ours ({', '.join(MARKS)}). "
        f"Remove the key to take the one {draft.old.get('model_name_or_path')} speaks, then import again."
    )
