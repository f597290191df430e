"""The command: stage and sources, strip and exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.__main__ import main
from jobs.audit.job import run
from jobs.audit.lights import failure_line, limit_shown, print_strip, value_shown
from jobs.common.errors import DataError
from jobs.common.jsonl import read_json
from jobs.common.stage import RunContext
from jobs.measure.measured import Gate
from tests.audit.made import GATES
from tests.audit.stages import finish_generate, make_context

LONGER = 40


def arguments(context: RunContext, *more: str) -> list[str]:
    recipe = context.runs.parent / "recipe.yaml"
    return ["audit", "--recipe", str(recipe), "--run", "tiny", "--runs", str(context.runs), *more]


def files_of(context: RunContext) -> set[str]:
    return {path.name for path in (context.folder / "audit").iterdir()}


def test_good_data_passes_every_gate_and_the_stage_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = make_context(tmp_path)
    finish_generate(context)
    assert main(arguments(context)) == 0
    printed = capsys.readouterr()
    assert files_of(context) == {"audit.html", "measures.json", "manifest.json", "begun.json"}
    manifest = read_json(context.folder / "audit" / "manifest.json")
    assert set(manifest["outputs"]) == {"audit.html", "measures.json"}
    assert manifest["parents"].keys() == {"generate"}
    assert manifest["counts"]["pairs"] == 60
    assert {found["light"] for found in manifest["measures"]["gates"].values()} == {"green"}, printed.out
    assert str(context.folder / "audit" / "audit.html") in printed.err
    assert "Every measured gate holds" in printed.out


def test_a_length_biased_teacher_stops_the_run_with_65_and_everything_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = make_context(tmp_path)
    finish_generate(context, extra_words=LONGER)
    assert main(arguments(context)) == 65
    printed = capsys.readouterr()
    error = printed.err.splitlines()[-1]
    assert error.startswith(
        f"Error: {context.folder / 'audit' / 'audit.html'}: 3 gates fail: length_only 100 % (limit ≤ 65 %)"
    )
    assert "length_ratio" in error
    assert "Run: cai repair --run tiny" in error
    assert "--set audit.on_failure=report" in error
    assert "→ cai repair --run tiny --recipe" in printed.out
    assert "■ red" in printed.out
    assert files_of(context) == {"audit.html", "measures.json"}, "no manifest: the stage is not finished"
    gates = {gate["name"]: gate["light"] for gate in read_json(context.folder / "audit" / "measures.json")["gates"]}
    assert gates["length_only"] == "red"


def test_where_gates_only_report_the_stage_says_so_and_finishes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = make_context(tmp_path)
    finish_generate(context, extra_words=LONGER)
    assert main(arguments(context, "--set", "audit.on_failure=report")) == 0
    assert "the run goes on because audit.on_failure is report" in capsys.readouterr().err
    assert read_json(context.folder / "audit" / "manifest.json")["measures"]["red"] == 3


def test_after_a_stop_the_same_command_runs_again_also_with_other_limits(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    finish_generate(context, extra_words=LONGER)
    for _ in range(2):
        with pytest.raises(DataError, match="3 gates fail"):
            run(context)
    run(make_context(tmp_path, "audit.length_only=1.0", "audit.prompt_blind=1.0", "audit.length_ratio=9.0"))
    assert (context.folder / "audit" / "manifest.json").exists()


def test_a_finished_audit_is_not_done_twice_and_redo_moves_it_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = make_context(tmp_path)
    finish_generate(context)
    assert main(arguments(context)) == 0
    assert main(arguments(context)) == 0
    assert "audit: already finished" in capsys.readouterr().err
    assert main(arguments(context, "--set", "audit.opening=0.5")) == 78
    assert "audit.opening" in capsys.readouterr().err
    assert main(arguments(context, "--set", "audit.opening=0.5", "--redo")) == 0
    assert (context.folder / "audit.replaced-1" / "audit.html").exists()


def test_without_a_finished_generate_the_next_command_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(make_context(tmp_path))) == 78
    assert "Run: cai generate --run tiny" in capsys.readouterr().err


def test_a_source_is_audited_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = make_context(tmp_path)
    finish_generate(context, extra_words=LONGER)
    out = tmp_path / "report"
    file = context.folder / "generate" / "pairs.jsonl"
    assert main(["audit", str(file), "--out", str(out)]) == 65
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"Error: {out / 'audit.html'}: ")
    assert "length_only 100 %" in error
    assert {path.name for path in out.iterdir()} == {"audit.html", "measures.json"}


def test_a_good_source_is_exit_0_and_says_where_the_page_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = make_context(tmp_path)
    finish_generate(context)
    assert main(["audit", str(context.folder), "--out", str(tmp_path / "report")]) == 0
    assert str(tmp_path / "report" / "audit.html") in capsys.readouterr().err
    found = read_json(tmp_path / "report" / "measures.json")
    assert found["counts"] | {"prompts": 140, "examples": 60, "pairs": 60} == found["counts"]
    coverage = next(gate for gate in found["gates"] if gate["name"] == "coverage")
    assert coverage["light"] == "green", "the run's recipe names its constitution"


def test_a_source_nobody_can_read_is_65_with_the_shapes_that_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "x"}\nnot json\n[1]\n', encoding="utf-8")
    assert main(["audit", str(file), "--out", str(tmp_path / "out")]) == 65
    error = capsys.readouterr().err.splitlines()[-1]
    assert "not one row can be read (1 unknown_columns, 1 not_json, 1 not_an_object)" in error
    assert "prompt + chosen + rejected" in error
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_not_there_is_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(tmp_path / "nothing.jsonl"), "--out", str(tmp_path / "out")]) == 78
    assert "No file or folder" in capsys.readouterr().err


def test_the_strip_has_one_row_per_gate_with_shape_word_value_limit_and_fix(capsys: pytest.CaptureFixture[str]) -> None:
    print_strip("made", GATES, Console(width=200, force_terminal=False))
    printed = capsys.readouterr().out
    for said in (
        "made: 3 of 6 gates fail: malformed, length only, length ratio.",
        "■ red", "▲ amber", "● green", "○ not measured", "8.3 %", "\u00d72.75", "≤ 65 %",
        "chosen is longer in 100 % of 12 pairs",
        "→ cai repair --run made",
    ):  # fmt: skip
        assert said in printed
    rows = [line for line in printed.splitlines() if any(shape in line for shape in "■▲●○")]
    assert len(rows) == len(GATES)


def test_text_in_the_strip_is_never_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_strip("[red]x[/red]", [Gate("leaks", 1, 0, "red", "[bold]says[/bold] [/]", "[link=x]y")], Console(width=200))
    printed = capsys.readouterr().out
    assert "[red]x[/red]" in printed
    assert "[bold]says[/bold] [/]" in printed
    assert "[link=x]y" in printed


@pytest.mark.parametrize(
    ("gate", "value", "limit"),
    [
        (Gate("malformed", 0.163, 0.0, "red", "", ""), "16.3 %", "≤ 0 %"),
        (Gate("leaks", 1234, 0, "red", "", ""), "1,234", "≤ 0"),
        (Gate("length_ratio", 1.371, 1.25, "red", "", ""), "\u00d71.37", "≤ \u00d71.25"),
        (Gate("coverage", 0.5, 1.0, "red", "", ""), "50 %", "≥ 100 %"),
        (Gate("prompt_blind", None, 0.75, "grey", "", ""), "not measured", "≤ 75 %"),
    ],
)
def test_values_read_as_people_write_them(gate: Gate, value: str, limit: str) -> None:
    assert (value_shown(gate), limit_shown(gate)) == (value, limit)
    assert failure_line(gate) == f"{gate.name} {value} (limit {limit})"


def test_the_report_of_a_run_is_the_same_twice(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    finish_generate(context)
    pages: list[Any] = []
    for number in range(2):
        assert main(["audit", str(context.folder), "--out", str(tmp_path / str(number))]) == 0
        pages.append((tmp_path / str(number) / "audit.html").read_bytes())
        json.loads((tmp_path / str(number) / "measures.json").read_bytes())
    assert pages[0] == pages[1]


def test_a_report_that_would_lie_in_a_file_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report").write_text("mine", encoding="utf-8")
    assert main(["audit", "nothing.jsonl", "--out", str(tmp_path / "report")]) == 78
    assert capsys.readouterr().err == (
        f"Error: --out {tmp_path / 'report'}: that is a file; the report needs a folder. Choose another name.\n"
    )


def test_too_many_unreadable_rows_end_with_65_after_the_report_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out"
    file.write_text('{"prompt": "How far is it?", "completion": "Ten miles."}\n{"x": 1}\nnot json\n', encoding="utf-8")
    assert main(["audit", str(file), "--out", str(out)]) == 65
    printed = capsys.readouterr()
    said = "2 of 3 rows could not be read: unknown columns 1, not JSON 1"
    assert printed.err.splitlines()[-1] == f"Error: {out / 'audit.html'}: {said}."
    assert said in printed.out
    assert said in (out / "audit.html").read_text(encoding="utf-8")
    assert "measuring 1 prompt, 1 supervised row and no pairs" in printed.err


def test_a_run_that_lacks_only_coverage_is_not_sent_to_repair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = make_context(tmp_path)
    finish_generate(context)
    constitution = tmp_path / "tiny.yaml"
    text = constitution.read_text(encoding="utf-8")
    principle = text[text.index("  - id: thrift") :].replace("thrift", "courage")
    constitution.write_text(text + principle, encoding="utf-8")
    assert main(arguments(context)) == 65
    error = capsys.readouterr().err.splitlines()[-1]
    assert "1 gate fails: coverage 75 %" in error
    assert "cai repair" not in error
    assert "Next: " in error
