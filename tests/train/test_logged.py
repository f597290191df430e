"""log.jsonl read back after kills."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.common.errors import DataError
from jobs.train.logged import before, cut_log, read_log

STEPS = 8
EVALUATED = {3, 6}


def lines_of(first: int, last: int) -> list[dict[str, float]]:
    """What a process logs that takes the steps from `first` to `last`."""
    found: list[dict[str, float]] = []
    for step in range(first, last + 1):
        found.append({"step": step, "loss": 1 / step})
        if step in EVALUATED:
            found.append({"step": step, "held_out/loss": 2 / step})
    return found


def write(path: Path, lines: list[dict[str, float]], torn: str = "") -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kills=st.lists(st.tuples(st.integers(1, STEPS), st.integers(0, STEPS)), max_size=4))
def test_a_log_of_killed_processes_reads_as_the_undisturbed_one(tmp_path: Path, kills: list[tuple[int, int]]) -> None:
    written, reached = [], 0
    for first, last in kills:  # each begins at a checkpoint that the ones before reached
        first = min(first, reached + 1)
        reached = max(reached, last) if last >= first else reached
        written += lines_of(first, last)
    write(tmp_path / "log.jsonl", written + lines_of(min(reached + 1, 1), STEPS), torn='{"step": 9, "lo')

    assert read_log(tmp_path / "log.jsonl") == lines_of(1, STEPS)


def test_held_out_figures_come_after_their_steps_own() -> None:
    lines = lines_of(1, 4)

    assert before(lines, 3, {"loss": 1.0}) == lines_of(1, 2)
    assert before(lines, 3, {"held_out/loss": 1.0}) == [*lines_of(1, 2), {"step": 3, "loss": 1 / 3}]
    assert before(lines, 9, {"loss": 1.0}) == lines


def test_a_cut_leaves_the_resumed_step_whole_and_no_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write(path, lines_of(1, 5), torn='{"step"')

    cut_log(path, 3)

    assert path.read_bytes() == "".join(json.dumps(line) + "\n" for line in lines_of(1, 3)).encode()


def test_no_log_has_no_lines(tmp_path: Path) -> None:
    cut_log(tmp_path / "log.jsonl", 3)

    assert read_log(tmp_path / "log.jsonl") == []
    assert not (tmp_path / "log.jsonl").exists()


@pytest.mark.parametrize("damage", ["{", "[1]", '{"loss": 1}', '{"step": "3"}', "\\xff"])
def test_a_damaged_line_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n" + damage + "\n")

    with pytest.raises(DataError, match=r"log.jsonl:2: .*Remove the file and run the same command"):
        read_log(path)
