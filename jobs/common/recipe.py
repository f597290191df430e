"""Recipes: one YAML per run, read strictly, changed with `--set section.key=value`.

from jobs.common.recipe import load_recipe
recipe = load_recipe("demo", ["dpo.beta=0.05"])
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from jobs.common.errors import ConfigError
from jobs.common.old_names import OLD_NAMES
from jobs.common.settings import Recipe
from jobs.common.yamlfile import KeyPath, Loader, YamlFile, load_yaml

PROJECT = Path(__file__).resolve().parents[2]
"""Where constitutions/, recipes/ and requirements/ lie: the checkout, or /app in the images."""


def recipe_path(name: str) -> Path:
    """A name means `recipes/<name>.yaml`; anything with a slash or an ending is a path."""
    return Path(name) if "/" in name or name.endswith((".yaml", ".yml")) else PROJECT / "recipes" / f"{name}.yaml"


def load_recipe(name: str, sets: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` changes.

    Raises:
        ConfigError: missing file, unknown key (names the nearest one), wrong type or range, or sft and dpo on other
            frozen weights; names file and line.
    """
    path = recipe_path(name)
    if not path.is_file() and path.parent == PROJECT / "recipes":
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise ConfigError(
            f"No recipe {name!r} in recipes/. There are: {', '.join(known)}; or give a path to a YAML file."
        )
    file = load_yaml(path)
    for change in sets:
        _apply(file.value, change)
        at = tuple(change.partition("=")[0].split("."))
        for line in [key for key in file.lines if key[: len(at)] == at]:
            del file.lines[line]  # an error in this value is the command line's, not the file's
    try:
        recipe = Recipe.model_validate(file.value)
    except ValidationError as error:
        raise ConfigError(_explain(file, error)) from error
    _require_same_weights(file, recipe)
    return recipe


def _require_same_weights(file: YamlFile, recipe: Recipe) -> None:
    """DPO's reference is the SFT model only on the frozen weights that SFT trained on."""
    sft, dpo = recipe.sft.quantization, recipe.dpo.quantization
    if sft == dpo:
        return
    said = [key for key in (("dpo", "quantization"), ("sft", "quantization")) if key in file.lines]
    raise ConfigError(
        f"{file.where(said[0]) if said else '--set'}: dpo.quantization is {dpo}, sft.quantization is {sft}: the sft "
        "adapter belongs to the weights it was trained on, and on others dpo's reference is not the SFT model. "
        f"Give both the same, such as --set sft.quantization={sft} --set dpo.quantization={sft}"
    )


def _apply(value: dict[str, Any], change: str) -> None:
    dotted, equals, text = change.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {change!r}: expected key=value, such as dpo.beta=0.05.")
    *parents, last = dotted.split(".")
    for parent in parents:
        child = value.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {change!r}: {parent} is a value, not a section.")
        value = child
    try:
        value[last] = yaml.load(text, Loader=Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {change!r}: {text!r} is not a YAML value.") from error


def _explain(file: YamlFile, error: ValidationError) -> str:
    first = error.errors()[0]
    at = _key(first["loc"])
    source = file.where(at) if at in file.lines else "--set"
    dotted = ".".join(str(part) for part in at)
    if first["type"] == "extra_forbidden":
        return f"{source}: unknown key {dotted!r}. {_advice(at)}"
    if first["type"] == "missing":
        return f"{file.where(at)}: {dotted} is missing. All keys: recipes/README.md."
    if first["type"] == "value_error" and isinstance(first["input"], dict):  # keys that do not go together
        return f"{source}: {dotted}: {first['ctx']['error']}. All keys: recipes/README.md."
    same = [one for one in error.errors() if _key(one["loc"]) == at]  # one per alternative, such as `auto` or a number
    deepest = max(same, key=lambda one: len(one["loc"]))
    expected = [deepest["msg"]] if len(deepest["loc"]) > len(at) + 1 else list(dict.fromkeys(it["msg"] for it in same))
    found = re.sub(r"//[^/@]*@", "//...@", repr(deepest["input"]))  # a password never reaches a message
    return f"{source}: {dotted}: {'; or '.join(expected)}, found {found}. All keys: recipes/README.md."


def _key(loc: KeyPath) -> KeyPath:
    """The part of an error's place that the recipe has; pydantic goes on with the name of the alternative it tried."""
    for end, part in enumerate(loc, start=1):
        if isinstance(part, str) and _section(loc[:end]) is None:
            return loc[:end]
    return loc


def _advice(at: KeyPath) -> str:
    name = str(at[-1])
    if name in OLD_NAMES:
        return f"That name is TRL's or the alignment-handbook's; here it is {OLD_NAMES[name]}."
    section = _section(at[:-1])
    siblings = list(section.model_fields) if section else []
    everywhere = {path.rsplit(".", 1)[-1]: path for path in key_paths(Recipe)}
    near = difflib.get_close_matches(name, siblings, n=1) or difflib.get_close_matches(name, list(everywhere), n=1)
    if not near:
        return "All keys: recipes/README.md."
    prefix = ".".join(str(part) for part in at[:-1])
    full = ".".join(filter(None, [prefix, near[0]])) if near[0] in siblings else everywhere[near[0]]
    return f"Did you mean {full!r}?"


def _section(at: KeyPath) -> type[BaseModel] | None:
    model: type[BaseModel] = Recipe
    for part in at:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        nested = nested_model(field.annotation) if field else None
        if nested is None:
            return None
        model = nested
    return model


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The settings class inside a field's annotation, through `| None` and `list[...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := nested_model(part))), None)


def key_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of the recipe in dotted form, sections before their keys."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        nested = nested_model(field.annotation)
        paths += [f"{prefix}{name}"] + (key_paths(nested, f"{prefix}{name}.") if nested else [])
    return paths
