"""Repair against scripted teachers of known habits: the audit names the habit, and repair takes it out of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main
from jobs.common.data_stage import data_stage
from jobs.common.jsonl import sha256_file
from jobs.generate.repair_found import targets
from jobs.measure.measured import Gate
from tests.fakes.openai_server import Answer
from tests.fakes.scripted_run import ScriptedRun, scripted_run
from tests.fakes.teachers import Habit

NAMED: dict[Habit, set[str]] = {
    "length_biased": {"length_only", "length_ratio"},
    "refusing": {"refusal_only", "opening"},
    "duplicating": {"duplicates", "leaks"},
    "echoing": {"malformed"},
    "position_biased": {"coverage"},
    "preaching": {"prompt_blind"},
}
"""Habit → gates that must name it."""
AIMS = {"length_only": 0.60, "prompt_blind": 0.65, "refusal_only": 0.60, "opening": 0.05}
NONE_LEFT = ("duplicates", "leaks", "malformed")
KEPT = 0.8


@pytest.fixture(params=list(NAMED))
def spoilt(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Habit, ScriptedRun]]:
    """A run whose data has a habit in it."""
    habit: Habit = request.param
    with scripted_run(tmp_path, habit) as run:
        assert run.cai("generate") == 0
        if habit == "duplicating":
            assert run.repeat_prompts(every=12) > 10
        yield habit, run


def test_each_habit_is_named_and_repaired(
    spoilt: tuple[Habit, ScriptedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    habit, run = spoilt
    assert NAMED[habit] <= red(run.gates("generate"))
    candidates = run.pairs("generate")
    if habit == "position_biased":
        candidates += sum(row["record"]["split"] != "sft" for row in flipped(run))
    assert run.cai("repair") == 0, capsys.readouterr().err
    after = run.gates("repair", targets(run.context.recipe.audit))
    assert not red(after)
    for name, most in AIMS.items():
        assert value(after[name]) <= most, name
    assert [value(after[name]) for name in NONE_LEFT] == [0, 0, 0]
    assert run.pairs("repair") >= KEPT * candidates
    assert_given_up_rows_are_named(run)


def assert_given_up_rows_are_named(run: ScriptedRun) -> None:
    """Every row of generate is still there, or in dropped.jsonl under its id."""
    kept = {row["id"] for row in run.rows("repair", "revisions.jsonl")}
    given_up = {row["id"]: row for row in run.rows("repair", "dropped.jsonl")}
    for row in run.rows("generate", "revisions.jsonl"):
        assert row["id"] in kept or given_up[row["id"]]["drop_reason"].startswith("gave_up_")
    said = sum(gate["given_up"] for gate in run.manifest("repair")["measures"]["gates"].values())
    assert said == sum(row["drop_reason"].startswith("gave_up_") for row in given_up.values())


def test_a_good_teachers_data_is_left_as_it_is_and_nobody_is_asked(tmp_path: Path) -> None:
    with scripted_run(tmp_path, "good") as run:
        assert run.cai("generate") == 0
        assert not red(run.gates("generate", targets(run.context.recipe.audit)))
        asked = len(run.server.history)
        assert run.cai("repair") == 0
        assert len(run.server.history) == asked
        assert run.manifest("repair")["outputs"] == run.manifest("generate")["outputs"]
        assert data_stage(run.context) == "repair"


def test_a_repair_that_broke_off_goes_on_and_pays_for_no_reply_twice(tmp_path: Path) -> None:
    with scripted_run(tmp_path, "length_biased") as run:
        assert run.cai("generate") == 0
        respond, asked = run.server.respond, len(run.server.history)
        run.server.respond = lambda body: (
            respond(body) if len(run.server.history) < asked + 40 else Answer(status=401, error={"message": "no"})
        )
        assert run.cai("repair") == 69
        assert not (run.context.folder / "repair" / "manifest.json").exists()
        run.server.respond = respond
        assert run.cai("repair") == 0
        paid = [one.identity for one in run.server.answered]
        assert len(paid) == len(set(paid))
        outputs = run.manifest("repair")["outputs"]
        total = len(run.server.history)
        assert run.cai("repair") == 0
        assert run.cai("repair", "--redo") == 0
        assert len(run.server.history) == total
        assert run.manifest("repair")["outputs"] == outputs


FILES = {
    "prompts": "prompts",
    "revisions": "revisions",
    "sft": "sft",
    "pairs": "pairs",
    "held_out_pairs": "held_out_pairs",
}
"""Count of the manifest → file whose rows it counts."""


def test_the_manifest_tells_what_the_files_hold_also_of_rows_that_came_back(tmp_path: Path) -> None:
    with scripted_run(tmp_path, "position_biased", 4) as run:
        assert run.cai("generate") == 0
        run.cai("repair")
        manifest, revisions = run.manifest("repair"), run.rows("repair", "revisions.jsonl")
        assert len(revisions) > len(run.rows("generate", "revisions.jsonl"))
        for count, name in FILES.items():
            assert manifest["counts"][count] == len(run.rows("repair", f"{name}.jsonl")), count
        comparisons, measures = run.rows("repair", "comparisons.jsonl"), manifest["measures"]
        assert measures["comparisons"] == len(comparisons)
        assert measures["verdicts"] == dict(Counter(row["verdict"] for row in comparisons))
        sure = [row["preference_probability"] for row in revisions if row["preference_probability"] is not None]
        assert measures["mean_preference_probability"] == pytest.approx(sum(sure) / len(sure))
        card = (run.context.folder / "repair" / "data" / "README.md").read_text(encoding="utf-8")
        assert f"of {len(comparisons)} comparisons" in card
        for name, digest in manifest["outputs"].items():
            assert sha256_file(run.context.folder / "repair" / name) == digest


@pytest.mark.parametrize(("is_audited", "more"), [(True, " --redo"), (False, "")])
def test_the_end_names_the_command_that_reports_on_the_new_rows(
    is_audited: bool, more: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_run(tmp_path, "length_biased", 4) as run:
        assert run.cai("generate") == 0
        reports = ("--set", "audit.on_failure=report")
        if is_audited:
            assert run.cai("audit", *reports) == 0
        capsys.readouterr()
        assert run.cai("repair", *reports) == 0
        (said,) = (line for line in capsys.readouterr().err.splitlines() if "repair: next: cai audit" in line)
        assert said.endswith("audit.on_failure=report" + more)
        assert run.cai("audit", *reports, *more.split()) == 0


def test_the_run_can_be_named_without_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_run(tmp_path, "good", 2) as run:
        assert run.cai("generate") == 0
        options = ["--recipe", run.recipe, "--runs", str(run.context.runs)]
        monkeypatch.setenv("CAI_RUN", "another")
        assert main(["repair", "scripted", *options, "--set", "audit.on_failure=report"]) == 0
        assert data_stage(run.context) == "repair"


def red(gates: dict[str, Gate]) -> set[str]:
    return {name for name, gate in gates.items() if gate.light == "red"}


def value(gate: Gate) -> float:
    assert gate.value is not None
    return gate.value


def flipped(run: ScriptedRun) -> list[dict[str, Any]]:
    return [row for row in run.rows("generate", "dropped.jsonl") if row["drop_reason"] == "judge_flipped"]
