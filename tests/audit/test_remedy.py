"""Which commands a red gate names."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.audit.remedy import import_and_repair, other_fix, repairable
from jobs.measure.measured import Gate
from tests.audit.stages import WORDS


def red(name: str, fix: str = "Do this.") -> Gate:
    return Gate(name, 1.0, 0.0, "red", "says", fix)


def test_repair_is_named_only_where_asking_rows_again_can_help() -> None:
    assert not repairable([red("coverage"), red("splits")])
    assert repairable([red("coverage"), red("length_only")])
    assert other_fix([red("splits")]) == "Do this"


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["rows.v2.jsonl"], "cai import rows.v2.jsonl --run rows --recipe RECIPE && cai repair --run rows "),
        (["my rows.jsonl", "b.jsonl"], "cai import 'my rows.jsonl' b.jsonl --run my-rows "),
        (["models"], "--run models-run "),
        (
            ["hub:owner/name@main:train"],
            "hf download --repo-type dataset owner/name --local-dir name && cai import name --run name ",
        ),
    ],
)
def test_the_chain_for_a_source_is_typed_as_it_stands(sources: list[str], said: str) -> None:
    assert said in import_and_repair(sources)


def test_the_originals_files_are_named_by_what_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "pref.json"
    rows = [{"prompt": "Q?", "chosen_response": "Yes.", "rejected_response": "No."}]
    path.write_text(json.dumps({"0_0": rows}), encoding="utf-8")
    assert f"--red-team FILE --sft FILE --preferences {path} " in import_and_repair([str(path)])


def test_the_named_import_runs_as_it_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    texts = [f"{one} {other} {third}" for one in WORDS[:5] for other in WORDS[5:10] for third in WORDS[10:12]]
    rows = [{"prompt": f"{text}?", "chosen": f"However {text} {text}.", "rejected": f"{text}."} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["audit", str(path), "--out", str(tmp_path / "out")]) == 65
    error = capsys.readouterr().err.splitlines()[-1]
    command = error.partition("Next: ")[2].partition(" && ")[0].replace("RECIPE", "demo")
    assert main([*shlex.split(command)[1:], "--runs", str(tmp_path / "runs")]) == 0
    assert (tmp_path / "runs" / "rows" / "generate" / "manifest.json").exists()
