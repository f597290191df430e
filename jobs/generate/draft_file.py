"""Write requests into a constitution's YAML without touching anything else in it.

A new key goes after the principle's last one with the same indentation, as a folded block; an empty value that is
already written is replaced. The result is parsed and compared before it takes the file's place.
"""

from __future__ import annotations

import copy
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.common.errors import ConfigError
from jobs.common.jsonl import write_atomic

WIDTH = 92
"""Longest line written, in characters."""


@dataclass(frozen=True)
class Insertion:
    """One text for one field of one principle."""

    index: int
    """Position of the principle in the file."""
    field: str
    text: str


@dataclass(frozen=True)
class Edit:
    """Lines `start` to `end` (0-based, end excluded) become `lines`."""

    start: int
    end: int
    lines: list[str]


def insert_requests(file: Path, insertions: list[Insertion]) -> None:
    """Write the texts into the file, atomically.

    Raises:
        ConfigError: the file is written in a style we cannot edit safely; says which principle.
    """
    if not insertions:
        return
    raw = file.read_bytes().decode()
    newline = "\r\n" if "\r\n" in raw else "\n"
    text = raw.replace("\r\n", "\n")
    lines = text.split("\n")
    # From the end, so that earlier line numbers stay true; of two new keys at one place the later comes first.
    edits = [_edit(file, text, lines, insertion) for insertion in insertions]
    for _, edit in sorted(enumerate(edits), key=lambda item: (item[1].start, item[0]), reverse=True):
        lines[edit.start : edit.end] = edit.lines
    changed = "\n".join(lines)
    _verify(file, text, changed, insertions)
    write_atomic(file, changed.replace("\n", newline).encode())


def _edit(file: Path, text: str, lines: list[str], insertion: Insertion) -> Edit:
    principle = _principle_node(file, text, insertion.index)
    key, value = principle.value[-1]
    written = next((pair for pair in principle.value if pair[0].value == insertion.field), None)
    if written:
        key, value = written
    indent = " " * key.start_mark.column
    new = [f"{indent}{insertion.field}: >-", *textwrap.wrap(insertion.text, WIDTH, **_wrapping(indent + "  "))]
    end = _end_of(value, lines)
    return Edit(key.start_mark.line, end, new) if written else Edit(end, end, new)


def _wrapping(indent: str) -> dict[str, Any]:
    # A folded block joins lines with one space: never break inside a word.
    return {
        "initial_indent": indent,
        "subsequent_indent": indent,
        "break_long_words": False,
        "break_on_hyphens": False,
    }


def _end_of(value: yaml.Node, lines: list[str]) -> int:
    """The line after a value, before the blank lines and comments that follow it."""
    mark = value.end_mark
    end = mark.line + 1 if mark.column and lines[mark.line][: mark.column].strip() else mark.line
    end = max(min(end, len(lines)), value.start_mark.line + 1)
    while end > value.start_mark.line + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return end


def _principle_node(file: Path, text: str, index: int) -> yaml.MappingNode:
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    principles = next(value for key, value in root.value if key.value == "principles")
    node = principles.value[index]
    if not isinstance(node, yaml.MappingNode) or node.flow_style or principles.flow_style:
        line = node.start_mark.line + 1
        raise ConfigError(
            f"{file}:{line}: principle written in {{braces}}; write one key per line, then run: "
            f"cai constitution draft {file}"
        )
    return node


def _verify(file: Path, before: str, after: str, insertions: list[Insertion]) -> None:
    wanted = copy.deepcopy(yaml.safe_load(before))
    for insertion in insertions:
        wanted["principles"][insertion.index][insertion.field] = insertion.text
    try:
        found = yaml.safe_load(after)
    except yaml.YAMLError:
        found = None
    if found != wanted:
        raise ConfigError(
            f"{file} could not be edited without changing something else; nothing was written. "
            f"Add critique_request and revision_request by hand."
        )
