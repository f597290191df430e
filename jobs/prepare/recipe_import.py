"""Other projects' training files as recipes: `cai recipe import OLD.yaml [--out NEW.yaml]`.

OLD is a YAML of TRL or the alignment-handbook, for SFT or DPO. One recipe holds both: import the SFT file first, then
the DPO file with the same --out. Every key is named with what became of it; a key that neither project has is refused.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel

from jobs.common.console import say
from jobs.common.errors import ConfigError
from jobs.common.jsonl import write_atomic
from jobs.common.recipe import load_recipe, nested_model
from jobs.common.settings import Recipe
from jobs.common.yamlfile import YamlFile, load_yaml
from jobs.prepare.recipe_import_draft import Draft, Line, Status, shown
from jobs.prepare.recipe_import_keys import translate

ONLY_DPO = {"beta", "max_prompt_length", "precompute_ref_log_probs", "label_smoothing", "loss_weights", "rpo_alpha"}
ONLY_SFT = {"max_seq_length", "packing", "assistant_only_loss", "completion_only_loss", "neftune_noise_alpha"}
VALUE_WIDTH = 34


def import_recipe(file: Path, out: Path | None) -> None:
    """Translate one file; onto a recipe that has an sft section and no dpo section, a DPO file adds it.

    Raises:
        ConfigError: the file cannot be read, has unknown keys, is neither SFT nor DPO, or `out` cannot take it.
    """
    old = load_yaml(file)
    stage = _stage(old)
    draft = Draft(old, stage, _existing(out, stage))
    lines = translate(draft)
    text = _text(draft, out)
    _require_valid(text, file)
    _show(lines, draft)
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomic(out, text.encode())
        say(f"recipe import: wrote {out}. {_next(draft, out)}")


def _stage(old: YamlFile) -> Literal["sft", "dpo"]:
    keys = set(old.value)
    splits = str([old.value.get(key) for key in ("dataset_splits", "dataset_mixture", "datasets", "dataset_mixer")])
    if keys & ONLY_DPO or "_prefs" in splits:
        return "dpo"
    if keys & ONLY_SFT or "_sft" in splits:
        return "sft"
    raise ConfigError(
        f"{old.path}: SFT or DPO? It has none of {', '.join(sorted(ONLY_SFT))} (SFT), none of "
        f"{', '.join(sorted(ONLY_DPO))} (DPO). Add one, such as max_seq_length: 1024 or beta: 0.1."
    )


def _existing(out: Path | None, stage: str) -> dict[str, Any] | None:
    if out is None or not out.exists():
        return None
    load_recipe(str(out.resolve()))
    found: dict[str, Any] = load_yaml(out).value
    if stage == "dpo" and "sft" in found and "dpo" not in found:
        return found
    raise ConfigError(
        f"{out} exists already; only a DPO file can be added, to a recipe with an sft and without a dpo section. "
        "Import the SFT file first, then the DPO file, or give another --out."
    )


def _text(draft: Draft, out: Path | None) -> str:
    body = yaml.safe_dump(_ordered(draft.recipe, Recipe), sort_keys=False, allow_unicode=True)
    if draft.onto is not None and out is not None:
        return f"{out.read_text(encoding='utf-8').rstrip()}\n{body}"
    return (
        f"# From {draft.file.path.name} ({draft.stage.upper()}). The run's own rows come first; what is not named here "
        "is the default:\n# the embedded 135M model is the teacher and writes the initial responses until `teacher` "
        f"and `initial` say\n# otherwise, as in recipes/mistral-7b.yaml.\n{body}"
    )


def _ordered(values: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The same keys in the order of recipes/README.md."""
    ordered = {}
    for name, field in model.model_fields.items():
        if name in values:
            section, value = nested_model(field.annotation), values[name]
            ordered[name] = _ordered(value, section) if section and isinstance(value, dict) else value
    return ordered


def _require_valid(text: str, file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file.name
        path.write_text(text, encoding="utf-8")
        try:
            load_recipe(str(path))
        except ConfigError as error:
            problem = str(error).replace(str(path), f"{file} (translated)")
            raise ConfigError(f"{problem} Correct that value, then import again.") from error


def _show(lines: list[Line], draft: Draft) -> None:
    wide = max(len(line.key) for line in lines)
    for line in lines:
        say(f"{line.key:<{wide}}  {_cut(shown(line.value)):<{VALUE_WIDTH}}  {line.status:<7}  {line.became}")
    counts = {status: sum(line.status == status for line in lines) for status in get_args(Status)}
    counted = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    unsaid = sum(draft.old.get(line.key) is None and line.status != "dead" for line in lines)
    more = f" and {unsaid} defaults that are others here" if unsaid else ""
    say(f"recipe import: {draft.stage.upper()} file with {len(draft.old)} keys{more}: {counted}")
    if differs := [line.key for line in lines if line.status == "differs"]:
        say(f"recipe import: set in the recipe what differs, to train as there: {', '.join(differs)}")
    lost = [line.key for line in lines if line.status == "lost"]
    if lost:
        say(f"recipe import: lost changed the result there and has no place here: {', '.join(lost)}")
    if draft.stage == "dpo" and draft.onto is None:
        model = draft.recipe.get("student", {}).get("model", "the model")
        say(
            f"recipe import: a DPO file starts from an SFT's result. If {model} is one (adapter or merged), import the "
            "SFT file first and this one with the same --out: sft, then dpo on the adapter that sft trained"
        )


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_WIDTH else f"{text[: VALUE_WIDTH - 3]}..."


def _next(draft: Draft, out: Path) -> str:
    more = f"Add its DPO file: cai recipe import DPO.yaml --out {out}. " if draft.stage == "sft" else ""
    return f"{more}Then: cai plan --recipe {out}"
