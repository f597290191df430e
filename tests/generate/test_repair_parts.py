"""The parts of repair by themselves: what is chosen, what is given up, and how rows keep to the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.common.constitution import Principle, load_constitution
from jobs.common.records import Comparison, Dropped, RedTeamPrompt, Revision, Split
from jobs.common.settings import AuditSettings
from jobs.generate import repair_drop
from jobs.generate.judge import Judge, Named
from jobs.generate.repair_choose import choose
from jobs.generate.repair_drop import _joined, drop_copies, give_up
from jobs.generate.repair_flipped import FLIPPED, bring_back, flipped_rows
from jobs.generate.repair_found import Found, targets
from jobs.generate.repair_rows import Row, Rows, row_of
from jobs.measure.data import Data, Pair, PrincipleText, Prompt
from jobs.measure.gates import gates
from jobs.measure.leaks import leaks
from jobs.measure.lengths import lengths
from jobs.measure.meaning import coverage
from jobs.measure.measured import Diversity, Gate, Measured
from jobs.measure.near import clusters, near_pairs
from jobs.measure.openings import openings, types
from tests.fakes import teachers
from tests.fakes.scripted_run import ScriptedRun, scripted_run
from tests.fakes.teacher_texts import ways_of, write_answer, write_prompt

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_values

SETTINGS = AuditSettings()


def a_prompt(number: int, split: Split = "dpo", text: str = "") -> RedTeamPrompt:
    return RedTeamPrompt(
        id=f"p{number % 4}-{number}",
        principle_id=f"p{number % 4}",
        prompt=text or write_prompt("parts", number),
        split=split,
        model="m",
        prompt_version="1",
        sample_index=0,
    )


def a_chain(prompt: RedTeamPrompt, answer: str, initial: str) -> Revision:
    return Revision(
        id=prompt.id,
        principle_id=prompt.principle_id,
        prompt=prompt.prompt,
        split=prompt.split,
        initial_response=initial,
        critique_request="Where?",
        critique="There.",
        revision_request="Rewrite.",
        revision=answer,
        initial_model="s",
        model="m",
        prompt_version="1",
    )


def some_rows(lengths: list[tuple[int, int]]) -> Rows:
    """Pairs whose sides have so many words."""
    prompts = [a_prompt(number) for number in range(len(lengths))]
    rows = Rows({one.id: one for one in prompts}, {})
    for prompt, (chosen, rejected) in zip(prompts, lengths, strict=True):
        right, wrong = ways_of(prompt.prompt) or ("", "")
        answers = write_answer(right, chosen, "c", prompt.id), write_answer(wrong, rejected, "r", prompt.id)
        rows.rows[prompt.id] = row_of(a_chain(prompt, *answers))
    return rows


def look(rows: Rows, audit: AuditSettings | None = None) -> Found:
    """What `Repair` sees of them, without files and without the slow measures."""
    prompts = [Prompt(one.id, one.principle_id, one.prompt, one.split) for one in rows.prompts.values()]
    pairs = [Pair(row.id, row.principle_id, row.record.prompt, row.answer, row.other, row.split) for row in rows.pairs]
    data = Data("rows", prompts, [], pairs, [PrincipleText(f"p{number}", f"P{number}", "Text.") for number in range(4)])
    near = near_pairs([one.text for one in prompts])
    cluster_of = clusters(len(prompts), near)
    shared, matrix = leaks(data, cluster_of)
    measured = Measured(
        malformed=[],
        near=near,
        clusters=cluster_of,
        leaks=shared,
        leak_matrix=matrix,
        reused=0,
        coverage={name: dict(found) for name, found in coverage(data).items()},
        openings=openings(data),
        types=types(data),
        diversity=Diversity(0.0, {}, {}),
        lengths=lengths(data),
    )
    found = {gate.name: gate for gate in gates(data, measured, audit or targets(SETTINGS))}
    return Found(data, measured, found, [], [row.id for row in rows.pairs])


def test_targets_are_never_looser_than_the_recipe() -> None:
    strict = SETTINGS.model_copy(update={"length_only": 0.55, "opening": 0.01})
    assert targets(strict).length_only == 0.55
    assert targets(strict).opening == 0.01
    assert targets(SETTINGS).length_only == 0.60
    assert targets(SETTINGS).malformed == 0.0


def test_only_as_many_rows_are_asked_about_as_the_target_needs_and_those_that_differ_most() -> None:
    rows = some_rows([(40 + number % 9, 30) for number in range(30)] + [(30, 40)] * 10)
    found = look(rows)
    assert found.failing >= {"length_only"}
    asked = choose(rows, found, is_last=False)
    over = 0.75 - 0.60
    assert 2 * over * 40 <= len(asked) <= 2 * (over + 0.05) * 40
    differences = {row.id: len(row.answer) - len(row.other) for row in rows.pairs}
    left_out = [differences[row_id] for row_id in differences if row_id not in {task.row_id for task in asked}]
    assert min(differences[task.row_id] for task in asked) >= max(left_out)


@settings(max_examples=40)
@given(longer=st.integers(25, 36), seed=st.integers(0, 5))
def test_giving_up_brings_length_to_its_target_with_the_fewest_rows(longer: int, seed: int) -> None:
    rows = some_rows([(40, 24 + seed)] * longer + [(24 + seed, 40)] * (40 - longer))
    only_length = AuditSettings(length_only=0.60, opening=1.0, prompt_blind=1.0, length_ratio=9.0)
    found = look(rows, only_length)
    assert found.failing == {"length_only"}
    assert give_up(rows, found, most=40) == 40 - len(rows.pairs)
    after = [len(row.answer) > len(row.other) for row in rows.pairs]
    assert sum(after) / len(after) <= 0.60
    assert (sum(after) + 1) / (len(after) + 1) > 0.60, "one row fewer would have done"


def test_no_more_pairs_are_given_up_than_allowed_and_each_principle_keeps_a_row() -> None:
    rows = some_rows([(40, 20)] * 40)
    assert give_up(rows, look(rows), most=8) == 8
    assert {row.principle_id for row in rows.pairs} == {"p0", "p1", "p2", "p3"}
    assert all(one.drop_reason.startswith("gave_up_") for one in rows.dropped)


def test_of_prompts_that_say_the_same_the_held_out_one_stays() -> None:
    text = write_prompt("twice")
    prompts = [a_prompt(0, "sft", text), a_prompt(1, "held_out", text + "!"), a_prompt(2, "dpo"), a_prompt(3, "sft")]
    rows = Rows({one.id: one for one in prompts}, {one.id: row_of(a_chain(one, "Yes.", "No.")) for one in prompts})
    drop_copies(rows, look(rows))
    assert list(rows.prompts) == [prompts[1].id, prompts[2].id, prompts[3].id]
    assert rows.dropped[0].drop_reason == "gave_up_duplicates"
    assert rows.rows[prompts[1].id].split == "held_out"


@pytest.mark.parametrize(
    ("split", "parts"), [("sft", (True, False)), ("dpo", (False, True)), ("held_out", (True, True))]
)
def test_a_moved_row_has_what_its_new_split_needs(split: Split, parts: tuple[bool, bool]) -> None:
    prompt = a_prompt(0, "dpo" if split == "sft" else "sft")
    rows = Rows({prompt.id: prompt}, {prompt.id: row_of(a_chain(prompt, "Yes, do.", "No."))})
    rows.move(prompt.id, split)
    row = rows.rows[prompt.id]
    assert (row.example is not None, row.pair is not None) == parts
    assert row.revision
    assert {rows.prompts[prompt.id].split, row.split, row.revision.split} == {split}


def test_a_row_gets_the_prompt_and_the_split_of_the_ledger() -> None:
    prompt = a_prompt(0, "sft")
    row = row_of(a_chain(prompt, "Yes.", "No."))
    assert row.example
    row = replace(row, example=row.example.model_copy(update={"prompt": "Red team prompt: " + prompt.prompt}))
    rows = Rows({prompt.id: prompt.model_copy(update={"split": "held_out"})}, {prompt.id: row})
    rows.straighten()
    found = rows.rows[prompt.id]
    assert found.split == "held_out"
    assert found.record.prompt == prompt.prompt


def flipped(prompt: RedTeamPrompt, answer: str) -> Dropped:
    record = a_chain(prompt, answer, "No.").model_dump(mode="json")
    return Dropped(id=prompt.id, principle_id=prompt.principle_id, drop_reason=FLIPPED, detail="", record=record)


class SureJudge:
    """Grades every revision as the better one."""

    async def alone(self, prompt: Revision, principle: Principle, first: Named, second: Named, lane: int) -> Comparison:
        return Comparison(
            id=prompt.id, principle_id=principle.id, first=first.name, second=second.name, first_probability=0.9,
            shown_first=None, shown_second=None, verdict="first", method="alone", model="j", prompt_version="1",
        )  # fmt: skip


def brought_back(rows: Rows) -> set[str]:
    judge = cast(Judge, SureJudge())
    return asyncio.run(bring_back(rows, judge, load_constitution("south_africa"), lambda *_: None))


def test_a_chain_comes_back_into_the_split_that_the_ledger_has_by_now() -> None:
    prompt = a_prompt(0, "dpo")
    rows = Rows({prompt.id: prompt}, {}, dropped=[flipped(prompt, "Yes.")])
    rows.move(prompt.id, "held_out")
    assert brought_back(rows) == {prompt.id}
    row = rows.rows[prompt.id]
    assert row.revision
    assert (row.split, row.revision.split) == ("held_out", "held_out")
    assert row.example
    assert row.pair
    assert row.pair.preference_probability == 0.9
    assert not rows.dropped


def test_of_revisions_that_say_the_same_one_is_kept_also_among_those_that_come_back() -> None:
    prompts = [a_prompt(number) for number in range(4)]
    kept = {prompts[0].id: row_of(a_chain(prompts[0], "Yes, do.", "No."))}
    dropped = [flipped(prompts[1], "yes,  DO."), flipped(prompts[2], "Ask."), flipped(prompts[3], "ask.")]
    rows = Rows({one.id: one for one in prompts}, kept, dropped=dropped)
    assert list(flipped_rows(rows)) == [prompts[2].id, prompts[3].id]
    assert brought_back(rows) == {prompts[2].id}
    assert list(rows.rows) == [prompts[0].id, prompts[2].id]
    assert [one.id for one in rows.dropped] == [prompts[1].id, prompts[3].id]


def test_a_changed_text_has_no_probability_until_it_was_judged_and_then_the_new_one() -> None:
    chain = a_chain(a_prompt(0, "held_out"), "Yes.", "No.").model_copy(update={"preference_probability": 0.7})
    row = row_of(chain)
    assert probabilities(row) == (0.7, 0.7)
    rewritten = row.rewritten("Yes, do.", "t")
    assert probabilities(rewritten) == (None, None)
    assert probabilities(rewritten.judged(0.8)) == (0.8, 0.8)
    edited = row.edited("Never.", "t")
    assert probabilities(edited) == (None, 0.7), "the chain's own two texts are as they were"
    assert probabilities(edited.judged(0.6)) == (0.6, 0.7)


def probabilities(row: Row) -> tuple[float | None, float | None]:
    """Of the pair and of the chain."""
    assert row.pair
    assert row.revision
    return row.pair.preference_probability, row.revision.preference_probability


def test_giving_up_many_rows_takes_no_look_at_all_rows_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "looks", 0)
    template = row_of(a_chain(a_prompt(0), "Yes.", "No."))
    every = {f"r{number}": replace(template, id=f"r{number}") for number in range(2_000)}
    rows = Rows({}, Watched(every))
    gate = Gate("opening", 1.0, 0.1, "red", "says", "fix")
    found = replace(look(some_rows([(9, 9)])), gates={"opening": gate})
    monkeypatch.setattr(repair_drop, "SHARES", {"opening": lambda rows, _: list(rows.rows.values())})
    assert give_up(rows, found, most=2_000) == 1_999
    assert Watched.looks < 10
    assert len(rows.rows) == 1, "its principle's last row"


class Watched(dict[str, Row]):
    """Counts how often somebody looks at all rows."""

    looks = 0

    def __iter__(self) -> Iterator[str]:
        Watched.looks += 1
        return super().__iter__()

    def values(self) -> dict_values[str, Row]:
        Watched.looks += 1
        return super().values()

    def items(self) -> dict_items[str, Row]:
        Watched.looks += 1
        return super().items()


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3, unique=True), max_size=8))
def test_sets_with_a_member_in_common_become_one(sets: list[list[str]]) -> None:
    joined = _joined(sets)
    names = [name for one in joined for name in one]
    assert sorted(names) == sorted({name for one in sets for name in one})
    for one in sets:
        assert sum(set(one) <= set(whole) for whole in joined) == 1


@pytest.fixture
def stubborn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedRun]:
    """A refusing teacher that never does as it is asked."""
    monkeypatch.setattr(teachers, "STUBBORN", 1.0)
    with scripted_run(tmp_path, "refusing", prompts=4) as run:
        assert run.cai("generate") == 0
        yield run


def test_where_a_gate_of_the_recipe_cannot_be_held_the_files_are_there_and_the_code_is_65(
    stubborn: ScriptedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stubborn.cai("repair") == 65
    said = capsys.readouterr().err
    assert "refusal_only is above its target" in said
    assert "at most 20% of the pairs" in said
    manifest = stubborn.manifest("repair")
    assert "refusal_only" in manifest["measures"]["failed_gates"]
    assert stubborn.pairs("repair") >= 0.8 * stubborn.pairs("generate") - 1
    assert (stubborn.context.folder / "repair" / "data" / "train_prefs.parquet").exists()
    asked = len(stubborn.server.history)
    assert stubborn.cai("repair") == 65, "already finished is no pass"
    assert len(stubborn.server.history) == asked
