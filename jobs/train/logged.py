"""Reading log.jsonl back: every figure once, in the order of training, whatever was killed in between.

One line per optimizer step, {"step": 3, "loss": 1.9, ...}, and one per held-out evaluation, {"step": 3,
"held_out/loss": 2.1, ...}, which comes after its step's own line. A process that was killed may have written steps that
the next one took again from a checkpoint, so a line takes the place of all later ones before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.common.errors import DataError
from jobs.common.jsonl import write_atomic

HELD_OUT = "held_out/"
"""Prefix of figures measured on held-out rows."""

Line = dict[str, Any]

_ADVICE = "Remove the file and run the same command: training does not depend on it, only the curves do."


def read_log(path: Path) -> list[Line]:
    """The lines of a log.jsonl that hold, in the order of training; none where there is no file.

    A last line without its end was being written when the process was killed, and is left out.

    Raises:
        DataError: another line is not an object with a step; names file and line.
    """
    if not path.exists():
        return []
    kept: list[Line] = []
    for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        line = _parse(path, number, text)
        kept = before(kept, line["step"], line)
        kept.append(line)
    return kept


def before(lines: list[Line], step: int, figures: Mapping[str, Any]) -> list[Line]:
    """The lines that come before these figures of this step."""
    end = len(lines)
    while end and _place(lines[end - 1]["step"], lines[end - 1]) >= _place(step, figures):
        end -= 1
    return lines[:end]


def cut_log(path: Path, step: int) -> None:
    """Leave the lines up to a step, held-out figures of that step included: training goes on from there.

    Raises:
        DataError: the file is damaged.
    """
    if path.exists():
        kept = [line for line in read_log(path) if line["step"] <= step]
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def _place(step: int, figures: Mapping[str, Any]) -> tuple[int, bool]:
    return step, any(name.startswith(HELD_OUT) for name in figures)


def _parse(path: Path, number: int, text: bytes) -> Line:
    try:
        line = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}:{number}: not JSON ({error}). {_ADVICE}") from error
    if not isinstance(line, dict) or not isinstance(line.get("step"), int):
        raise DataError(f"{path}:{number}: expected an object with a step, found {text[:60]!r}. {_ADVICE}")
    return line
