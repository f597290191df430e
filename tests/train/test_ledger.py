"""No training stage takes a row of another split, from whichever stage its rows come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main
from jobs.common.data_stage import data_stage
from jobs.common.errors import ConfigError, DataError
from jobs.common.jsonl import read_json, write_json
from jobs.common.stage import RunContext
from jobs.train import dpo, initial, respond, sft
from tests.train.builders import (
    finish_fetch,
    finish_generate,
    finish_repair,
    make_context,
    pair,
    red_team,
    sft_example,
    small_generate,
)

Runs = Callable[..., RunContext]
NOWHERE = Path("/nowhere")
"""A student without weights: whoever asks for it got past the ledger."""
HELD = "Why should I share the water of our borehole with people who never once helped me?"


def moved_to_dpo(context: RunContext, files: dict[str, Any]) -> None:
    """A run on which sft counts as finished, so that dpo reads its rows."""
    finish_fetch(context, NOWHERE)
    finish_generate(context, files)
    write_json(context.folder / "sft" / "manifest.json", {"outputs": {}, "fingerprint": "", "ingredients": {}})


def with_row(name: str, row: Any, **more: Any) -> dict[str, Any]:
    files = small_generate()
    return files | {name: [*files[name], row]} | more


@pytest.mark.parametrize("said", [str, str.upper, lambda text: f"  {text.replace(' ', '  ')}!"])
def test_a_held_out_prompt_among_the_rows_stops_before_any_weight_is_read(
    tiny_run: Runs, said: Callable[[str], str]
) -> None:
    held = small_generate()["held_out"][0].prompt
    context = tiny_run(student=NOWHERE, files=with_row("sft", sft_example(said(held), "x")))

    with pytest.raises(
        DataError,
        match=r"/generate: row ubuntu-\w+ of sft is held_out in prompts.jsonl \(same (id|words) as ubuntu-\w+\); "
        r"it must not train sft. Run: cai generate --run r --redo$",
    ):
        sft.run(context)


def test_a_row_near_a_held_out_prompt_is_refused(tiny_run: Runs) -> None:
    near = sft_example(HELD.replace("once", "ever"), "x")
    files = with_row("sft", near)
    context = tiny_run(student=NOWHERE, files=files | {"prompts": [*files["prompts"], red_team(HELD)]})

    with pytest.raises(DataError, match=r"is held_out in prompts.jsonl \(near duplicate of ubuntu-"):
        sft.run(context)


def test_two_prompts_frozen_as_different_may_be_alike(tiny_run: Runs) -> None:
    near = sft_example(HELD.replace("once", "ever"), "x")
    files = with_row("sft", near)
    ledger = [*files["prompts"], red_team(HELD), red_team(near.prompt, "sft")]
    context = tiny_run(student=NOWHERE, files=files | {"prompts": ledger})

    with pytest.raises(DataError, match="/nowhere"):
        sft.run(context)


def test_a_prompt_of_dpo_never_trains_sft(tiny_run: Runs) -> None:
    leaked = sft_example(small_generate()["pairs"][0].prompt, "x")

    with pytest.raises(DataError, match=r"row ubuntu-\w+ of sft is dpo in prompts.jsonl"):
        sft.run(tiny_run(student=NOWHERE, files=with_row("sft", leaked)))


def test_a_prompt_of_sft_never_trains_dpo(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    moved_to_dpo(context, with_row("pairs", pair(small_generate()["sft"][0].prompt, "x", "y")))

    with pytest.raises(DataError, match=r"row ubuntu-\w+ of dpo is sft in prompts.jsonl"):
        dpo.run(context)


@pytest.mark.parametrize("job", [sft, dpo], ids=["sft", "dpo"])
def test_a_principle_that_is_held_out_now_trains_nothing(tmp_path: Path, job: Any) -> None:
    context = make_context(tmp_path, generate={"held_out_principles": ["ubuntu"]})
    moved_to_dpo(context, small_generate())
    if job is sft:
        (context.folder / "sft" / "manifest.json").unlink()

    with pytest.raises(DataError, match=r"is about ubuntu, held out whole \(generate.held_out_principles\)"):
        job.run(context)


def test_an_imported_run_is_told_to_import_again(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    finish_fetch(context, NOWHERE)
    leaked = sft_example(small_generate()["pairs"][0].prompt, "x")
    finish_generate(context, with_row("sft", leaked), ingredients={"import": {"a.jsonl": "1"}})

    with pytest.raises(DataError, match=r"cai import --run r --redo, with the sources it began with"):
        sft.run(context)


def test_the_command_line_ends_with_the_code_for_bad_data(tiny_run: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    leaked = sft_example(small_generate()["pairs"][0].prompt, "x")
    context = tiny_run(student=NOWHERE, files=with_row("sft", leaked))

    assert main(["sft", "--run", "r", "--runs", str(context.runs)]) == 65
    error = capsys.readouterr().err.strip()
    assert error.startswith("Error: ")
    assert "\n" not in error


def repaired() -> dict[str, Any]:
    """The run after repair: one SFT row and one pair were given up."""
    files = small_generate()
    return files | {"sft": files["sft"][:-1], "pairs": files["pairs"][:-1]}


def test_after_repair_every_stage_reads_repairs_rows(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_steps": 1}, dpo={"max_steps": 1})
    finish_repair(context, repaired() | {"held_out": small_generate()["held_out"][:1]})

    for job in (sft, dpo, respond):
        job.run(context)

    manifests = {name: read_json(context.folder / name / "manifest.json") for name in ("sft", "dpo", "respond")}
    assert [manifests[name]["counts"]["rows_in"] for name in ("sft", "dpo")] == [7, 7]
    assert manifests["respond"]["counts"]["prompts"] == 1
    assert all("repair" in found["parents"] and "generate" not in found["parents"] for found in manifests.values())


def test_repair_after_sft_means_other_rows_so_sft_says_so(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_steps": 1})
    sft.run(context)
    finish_repair(context, repaired())

    with pytest.raises(ConfigError, match=r"sft was finished with other settings: inputs.generate/held_out.jsonl was"):
        sft.run(context)


def test_a_generate_redone_after_repair_stops_with_the_next_command(tiny_run: Runs) -> None:
    context = tiny_run(student=NOWHERE)
    finish_repair(context, repaired())
    path = context.folder / "generate" / "manifest.json"
    write_json(path, read_json(path) | {"finished": "later"})

    for job in (sft, respond):
        with pytest.raises(ConfigError, match=r"made of an earlier generate. Run: cai repair --run r --redo, or move"):
            job.run(context)


def test_a_generate_begun_anew_after_repair_leaves_nothing_to_train_on(tiny_run: Runs) -> None:
    context = tiny_run(student=NOWHERE)
    finish_repair(context, repaired())
    (context.folder / "generate" / "manifest.json").unlink()

    with pytest.raises(ConfigError, match=r'No finished "generate" stage'):
        sft.run(context)


def test_a_repair_that_has_not_finished_stops_training_on_rows_it_is_replacing(tiny_run: Runs) -> None:
    context = tiny_run(student=NOWHERE)
    finish_repair(context, repaired())
    (context.folder / "repair" / "manifest.json").unlink()

    with pytest.raises(ConfigError, match=r"repair was begun and has not finished.*Go on with: cai repair --run r"):
        sft.run(context)


def test_rows_are_missing_after_repair_names_what_repair_dropped(tiny_run: Runs) -> None:
    context = tiny_run(student=NOWHERE)
    finish_repair(context, repaired() | {"sft": []}, dropped={"given_up": 8})

    with pytest.raises(DataError, match=r"repair/sft.jsonl: 0 rows. repair dropped: 8 given_up"):
        sft.run(context)


def test_the_students_first_answers_come_before_repair_and_do_not_look_at_it(
    tiny_run: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    context = tiny_run(student=NOWHERE, initial={"endpoint": "file"})
    finish_repair(context, repaired())

    initial.run(context)

    assert "not needed, since generate has finished" in capsys.readouterr().err
    assert data_stage(context) == "repair"
