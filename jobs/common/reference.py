"""recipes/README.md, written from the settings classes: `python -m jobs.common.reference > recipes/README.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobs.common.old_names import OLD_NAMES
from jobs.common.recipe import PROJECT, nested_model
from jobs.common.settings import Recipe

INTRODUCTION = """\
# Recipes

One YAML file is one run. Choose it with `CAI_RECIPE=name` (or `--recipe`), change single keys with
`CAI_SET="dpo.beta=0.05 seed=1"` (or `--set`, once per key), or copy a file and give its path. A key that is not in
this table is an error that names the nearest one.

A recipe `…-mixed` is its namesake with rows of Hub datasets beside the run's own, which come first; take them out with
`--set sft.mix_in=[] --set dpo.mix_in=[]`, or copy the lists into any other recipe.

| recipe | what for |
|---|---|
"""


def reference() -> str:
    """The whole page: shipped recipes with their first comment, then one table per section."""
    rows = "".join(f"| `{path.stem}` | {_first_comment(path.read_text(encoding='utf-8'))} |\n" for path in _recipes())
    return INTRODUCTION + rows + "".join(_section("", Recipe)) + _old_names()


def _recipes() -> list[Path]:
    return sorted((PROJECT / "recipes").glob("*.yaml"), key=lambda path: path.stem)


def _first_comment(text: str) -> str:
    comment = re.match(r"(?:#.*\n)+", text)
    return " ".join(line.lstrip("# ") for line in comment.group().splitlines()) if comment else ""


def _section(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    yield _heading(prefix, model)
    dotted = {f"{prefix}.{name}" if prefix else name: field for name, field in model.model_fields.items()}
    nested = {path: nested_model(field.annotation) for path, field in dotted.items()}
    yield from (_row(path, field) for path, field in dotted.items() if nested[path] is None or field.description)
    for path, section in nested.items():
        if section is not None and path not in {"dpo.mix_in", "initial.price"}:  # tables shown once before
            yield from _section(path, section)


def _heading(prefix: str, model: type[BaseModel]) -> str:
    title = f"`{prefix}`" if prefix else "Top level"
    meaning = (model.__doc__ or "").strip()
    return f"\n## {title}\n\n{meaning}\n\n| key | default | values | meaning |\n|---|---|---|---|\n"


def _row(path: str, field: FieldInfo) -> str:
    meaning = (field.description or "").replace("\n", " ")
    return f"| `{path}` | {_default(field)} | {_values(field)} | {meaning} |\n"


def _old_names() -> str:
    there: dict[str, list[str]] = {}
    for old, new in OLD_NAMES.items():
        there.setdefault(new, []).append(f"`{old}`")
    rows = "".join(f"| {', '.join(old)} | {new} |\n" for new, old in there.items())
    return (
        "\n## Names from TRL and the alignment-handbook\n\n"
        "`cai recipe import OLD.yaml --out mine.yaml` translates a whole file and says what became of every key.\n"
        f"\n| there | here |\n|---|---|\n{rows}"
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return "empty"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _values(field: FieldInfo) -> str:
    limits = [_limit(item) for item in field.metadata]
    return f"{_type_name(field.annotation)} {' '.join(filter(None, limits))}".strip()


def _limit(item: object) -> str:
    signs = {"gt": "> ", "ge": "≥ ", "lt": "< ", "le": "≤ "}
    if isinstance(item, annotated_types.Gt | annotated_types.Ge | annotated_types.Lt | annotated_types.Le):
        name = type(item).__name__.lower()
        return f"{signs[name]}{getattr(item, name):g}"
    return ""


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in {Union, UnionType}:
        return " or ".join(_type_name(part) for part in get_args(annotation) if part is not type(None))
    if origin is list:
        return f"list of {_type_name(get_args(annotation)[0])}"
    if origin is not None:
        inner = get_args(annotation)
        return f"{_type_name(inner[0])} {' '.join(filter(None, map(_limit, _metadata(inner[1:]))))}".strip()
    names = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}
    return names.get(annotation, "section")


def _metadata(items: tuple[Any, ...]) -> list[Any]:
    return [part for item in items for part in (item.metadata if isinstance(item, FieldInfo) else [item])]


if __name__ == "__main__":
    print(reference(), end="")
