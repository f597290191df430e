"""Repair of data that others made: many rows of one prompt, principles nobody named, and no chains."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from jobs.common.constitution import load_constitution
from jobs.common.data_stage import data_stage
from jobs.common.records import PreferencePair
from jobs.generate.repair_principle import principle_of
from jobs.generate.repair_read import read_rows
from tests.fakes.openai_server import Answer
from tests.fakes.scripted_run import ScriptedRun, scripted_run
from tests.fakes.teacher_texts import ways_of, write_answer, write_prompt
from tests.generate.world import error_line

PROMPTS = 40


def imported(run: ScriptedRun, pairs: int = 1, **more: str) -> None:
    """Import pairs whose chosen side is much too long, so many of each prompt."""
    rows = []
    for number in range(PROMPTS):
        prompt = write_prompt("imported", number)
        right, wrong = ways_of(prompt) or ("", "")
        for index in range(pairs):
            long, short = write_answer(right, 110, "c", number, index), write_answer(wrong, 40, "r", number, index)
            rows.append({"prompt": prompt, "chosen": long, "rejected": short} | more)
    source = run.folder / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert run.cai("import", str(source)) == 0


def only_reports(run: ScriptedRun, **teacher: str) -> None:
    """Change the recipe: a failed gate stops nothing, and the teacher is another."""
    path = Path(run.recipe)
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    recipe["audit"] = {"on_failure": "report"}
    recipe["teacher"] |= teacher
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")


def ids(run: ScriptedRun, stage: str) -> Counter[str]:
    return Counter(row["id"] for name in ("pairs", "held_out_pairs") for row in run.rows(stage, f"{name}.jsonl"))


def test_no_pair_is_lost_where_a_prompt_has_many(tmp_path: Path) -> None:
    with scripted_run(tmp_path, "good", 2) as run:
        only_reports(run)
        imported(run, pairs=3, principle_id="ubuntu")
        assert run.cai("repair") == 0
        given_up = Counter(row["id"] for row in run.rows("repair", "dropped.jsonl"))
        assert ids(run, "repair") + given_up == ids(run, "generate")
        pairs = run.rows("repair", "pairs.jsonl")
        assert len({(row["id"], row["chosen"], row["rejected"]) for row in pairs}) == len(pairs)
        assert sum(row["chosen_by"] == "rewrite" for row in pairs) > len(pairs) / 2
        manifest = run.manifest("repair")
        assert manifest["counts"]["pairs"] == len(pairs)
        assert not [name for name in manifest["outputs"] if name.endswith(".parquet")]


def test_rows_of_a_principle_that_the_constitution_does_not_have_are_asked_about_all_the_same(tmp_path: Path) -> None:
    with scripted_run(tmp_path, "good", 2) as run:
        only_reports(run)
        imported(run)
        assert run.cai("repair") == 0
        pairs = run.rows("repair", "pairs.jsonl")
        assert {row["principle_id"] for row in pairs} == {"imported"}
        assert sum(row["chosen_by"] == "rewrite" for row in pairs) > len(pairs) / 2


def test_the_constitution_stands_in_for_a_principle_it_does_not_have() -> None:
    constitution = load_constitution("south_africa")
    assert principle_of(constitution, "ubuntu") is constitution.principle("ubuntu")
    found = principle_of(constitution, "imported")
    assert (found.title, found.text) == (constitution.title, constitution.description)


def test_the_embedded_model_does_not_rewrite_what_others_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_run(tmp_path, "good", 2) as run:
        only_reports(run, endpoint="embedded", model="smollm2-135m-instruct")
        imported(run, principle_id="ubuntu")
        capsys.readouterr()
        assert run.cai("repair") == 78
        line = error_line(capsys)
        assert "'imported'" in line
        assert "'smollm2-135m-instruct'" in line
        assert "--recipe smollm2-135m" in line
        assert not (run.context.folder / "repair").exists()
        assert data_stage(run.context) == "generate"


def test_a_key_that_is_missing_leaves_nothing_behind_but_what_was_begun_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted_run(tmp_path, "good", 2) as run:
        imported(run, principle_id="ubuntu")
        begun = run.context.folder / "repair"
        with monkeypatch.context() as patch:
            patch.delenv("OPENAI_API_KEY")
            patch.delenv("OPENAI_BASE_URL")
            assert run.cai("repair") == 78
            assert not begun.exists()
            assert run.cai("audit", "--set", "audit.on_failure=report") == 0
        respond = run.server.respond
        run.server.respond = lambda _: Answer(status=401, error={"message": "no"})
        assert run.cai("repair") == 69
        run.server.respond = respond
        assert run.cai("repair", "--set", "budget_usd=1") == 78, "no price, so nothing can be capped"
        assert (begun / "begun.json").exists()


def test_rows_under_one_id_are_each_their_own_and_keep_the_prompts_id(tmp_path: Path) -> None:
    def pair(number: int) -> str:
        found = PreferencePair(
            id="p", principle_id="x", prompt="P?", chosen=f"Yes {number}.", rejected=f"No {number}.",
            model="m", rejected_model="m", prompt_version="1",
        )  # fmt: skip
        return found.model_dump_json() + "\n"

    (tmp_path / "pairs.jsonl").write_text(pair(1) + pair(2) + pair(3), encoding="utf-8")
    prompt = {"id": "p", "principle_id": "x", "prompt": "P?", "split": "dpo", "model": "m", "prompt_version": "1"}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(prompt | {"sample_index": 0}) + "\n", encoding="utf-8")
    rows = read_rows(tmp_path)
    assert list(rows.rows) == ["p", "p#2", "p#3"]
    assert {row.prompt_id for row in rows.pairs} == {"p"}
    rows.move("p", "held_out")
    assert [row.split for row in rows.of_prompt("p")] == ["held_out"] * 3
    rows.drop("p", "gave_up_opening", "")
    assert [row.answer for row in rows.of_prompt("p")] == ["Yes 2.", "Yes 3."]
    rows.drop_prompt("p", "gave_up_duplicates", "")
    assert not rows.rows
    assert [(one.id, one.drop_reason) for one in rows.dropped] == [
        ("p", "gave_up_opening"), ("p", "gave_up_duplicates"), ("p", "gave_up_duplicates"),
    ]  # fmt: skip
