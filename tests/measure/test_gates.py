from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.common.constitution import load_constitution
from jobs.common.errors import DataError
from jobs.common.jsonl import write_records
from jobs.common.records import Dropped, PreferencePair, RedTeamPrompt, Revision, SftExample
from jobs.common.settings import AuditSettings
from jobs.measure.data import Data
from jobs.measure.gates import gates
from jobs.measure.measure import measure
from jobs.measure.measured import Gate
from jobs.measure.run_data import read_run
from tests.measure.rows import answer, sound

NAMES = ["malformed", "leaks", "duplicates", "length_only", "refusal_only", "prompt_blind", "length_ratio", "opening",
         "coverage", "splits"]  # fmt: skip


def lights(data: Data, settings: AuditSettings | None = None) -> dict[str, Gate]:
    return {gate.name: gate for gate in gates(data, measure(data), settings or AuditSettings())}


def test_sound_data_is_green_throughout() -> None:
    found = lights(sound())
    assert list(found) == NAMES
    assert {name: gate.light for name, gate in found.items()} == dict.fromkeys(NAMES, "green")
    assert all(gate.fix == "" and gate.says for gate in found.values())


def longer(data: Data) -> Data:
    return replace(
        data, pairs=[replace(one, chosen=f"{one.chosen} {answer(at, 3)}") for at, one in enumerate(data.pairs)]
    )


def refusing(data: Data) -> Data:
    return replace(data, pairs=[replace(one, chosen=f"I cannot assist with that. {one.chosen}") for one in data.pairs])


def repeating(data: Data) -> Data:
    again = [replace(one, id=f"{one.id}-again", text=f"{one.text} Please.") for one in data.prompts[:3]]
    return replace(data, prompts=[*data.prompts, *again])


def echoing(data: Data) -> Data:
    return replace(data, examples=[replace(one, completion=f"{one.prompt} {one.completion}") for one in data.examples])


def leaking(data: Data) -> Data:
    return replace(data, pairs=[replace(data.pairs[0], prompt=data.examples[0].prompt), *data.pairs[1:]])


def one_sided(data: Data) -> Data:
    kept = [one for one in data.prompts if one.principle_id == "water" or one.split == "held_out"]
    rows = [one for one in data.examples if one.principle_id == "water"]
    extra = [replace(data.prompts[-1], principle_id="courts", split="sft", id="extra", text="Judges robe hat. " * 3)]
    return replace(
        data, prompts=[*kept, *extra], examples=rows, pairs=[one for one in data.pairs if one.principle_id == "water"]
    )


def moved(data: Data) -> Data:
    return replace(data, examples=[replace(data.examples[0], split="dpo"), *data.examples[1:]])


@pytest.mark.parametrize(
    ("habit", "red", "says"),
    [
        (longer, "length_only", "chosen is longer in 100 % of 40 pairs"),
        (longer, "length_ratio", "words on average"),
        (refusing, "refusal_only", "100 % of the chosen and 0 % of the rejected"),
        (refusing, "prompt_blind", "finds chosen in 100 % of 40 pairs; words that give chosen away"),
        (refusing, "opening", "100 % of the chosen answers begin 'i cannot assist with that'"),
        (repeating, "duplicates", "3 of 93 prompts repeat another, by words"),
        (echoing, "malformed", "40 of 40 supervised rows hold what does not belong: echo 40"),
        (leaking, "leaks", "1 prompts stand in both training splits of the ledger (1 exact)"),
        (one_sided, "coverage", "1 of 2 principles have training rows; without: courts"),
        (moved, "splits", "1 rows stand in another split than the ledger's, such as p0"),
    ],
)
def test_each_habit_is_named_and_its_remedy_given(habit: Callable[[Data], Data], red: str, says: str) -> None:
    gate = lights(habit(sound()))[red]
    assert gate.light == "red"
    assert says in gate.says
    assert gate.fix
    if red not in ("coverage", "splits"):
        assert gate.fix == "cai repair --run sound"


def test_no_sentence_ends_in_a_full_stop_of_its_own() -> None:
    sources = [habit(sound()) for habit in (longer, leaking, one_sided, moved, from_files)]
    for gate in [gate for data in [*sources, replace(sources[2], datasheet={})] for gate in lights(data).values()]:
        assert not gate.says.endswith(".")
        assert not gate.fix.endswith((" ..", "again.", "cluster."))


def from_files(data: Data) -> Data:
    return replace(data, prompts=[replace(one, cluster="") for one in data.prompts], datasheet={})


def test_a_source_without_a_ledger_is_never_green_on_splits_nor_sent_to_generate() -> None:
    found = lights(from_files(one_sided(sound())))
    assert (found["splits"].light, found["splits"].value) == ("grey", None)
    assert found["splits"].says.startswith("no ledger; the files name train 41, test 10")
    assert not any("cai generate" in gate.fix or "generate." in gate.fix for gate in found.values())


def test_prompts_in_both_trainings_are_red_and_the_sentence_says_whether_a_ledger_promised_otherwise() -> None:
    gate = lights(from_files(leaking(sound())))["leaks"]
    assert gate.light == "red"
    assert gate.says.startswith("supervised rows and pairs share 1 prompts (1 exact): fine for training, not for a")
    held = replace(sound(), pairs=[replace(sound().pairs[0], prompt=sound().prompts[-1].text), *sound().pairs[1:]])
    gate = lights(held)["leaks"]
    assert (gate.light, gate.says) == ("red", "1 held-out prompts stand in training, too (1 exact)")


def test_coverage_is_not_measured_where_no_row_names_a_principle() -> None:
    data = sound()
    nameless = replace(
        data,
        prompts=[replace(one, principle_id="") for one in data.prompts],
        examples=[replace(one, principle_id="") for one in data.examples],
        pairs=[replace(one, principle_id="") for one in data.pairs],
    )
    gate = lights(nameless)["coverage"]
    assert (gate.light, gate.value, gate.fix) == ("grey", None, "")


def test_faulty_supervised_rows_are_not_hidden_by_many_prompts() -> None:
    data = sound()
    faulty = [replace(one, completion=f"{one.prompt} {one.completion}") for one in data.examples[:4]]
    gate = lights(replace(data, examples=[*faulty, *data.examples[4:]]))["malformed"]
    assert gate.value == 0.1
    assert gate.says.startswith("4 of 40 supervised rows")


def test_one_endless_answer_does_not_make_the_length_ratio_red() -> None:
    data = sound(400)
    endless = replace(data.pairs[0], chosen="word " * 20_000)
    gate = lights(replace(data, pairs=[endless, *data.pairs[1:]]))["length_ratio"]
    assert gate.light == "green"
    assert gate.value == pytest.approx(1.0, abs=0.05)


def test_under_thirty_rows_a_gate_only_warns() -> None:
    found = lights(longer(sound(20)))
    assert found["length_only"].light == "amber"
    assert found["length_only"].fix


def test_limits_come_from_the_settings() -> None:
    found = lights(longer(sound()), AuditSettings(length_only=1.0, length_ratio=4.0))
    assert (found["length_only"].light, found["length_ratio"].light) == ("green", "green")


def test_what_cannot_be_measured_is_grey_and_a_source_without_splits_is_amber() -> None:
    data = sound()
    bare = replace(
        data, pairs=[], principles=[], prompts=[replace(one, split="") for one in data.prompts], datasheet={}
    )
    found = lights(bare)
    grey = {name for name, gate in found.items() if gate.light == "grey"}
    assert grey == {"leaks", "length_only", "refusal_only", "prompt_blind", "length_ratio", "coverage"}
    assert all(found[name].value is None for name in grey)
    assert found["splits"].light == "amber"


def test_a_principle_that_is_held_out_whole_needs_no_training_rows() -> None:
    data = sound()
    held = [replace(one, split="held_out") if one.principle_id == "courts" else one for one in data.prompts]
    rows = [one for one in data.examples if one.principle_id == "water"]
    pairs = [one for one in data.pairs if one.principle_id == "water"]
    gate = lights(replace(data, prompts=held, examples=rows, pairs=pairs))["coverage"]
    assert (gate.light, gate.says) == ("green", "1 of 1 principles have training rows")


def write_run(folder: Path) -> None:
    shared = {"principle_id": "human_dignity", "model": "m", "prompt_version": "v"}
    prompts = {"a": "sft", "b": "dpo", "c": "held_out"}
    ledger = [
        RedTeamPrompt(id=name, prompt=f"prompt {name}", split=split, sample_index=0, **shared)  # type: ignore[arg-type]
        for name, split in prompts.items()
    ]
    chain = Revision(
        id="a", prompt="prompt a", split="sft", initial_response="first", critique_request="?", critique="bad",
        revision_request="?", revision="better", initial_model="s", **shared,
    )  # fmt: skip
    example = SftExample(id="a", prompt="prompt a", completion="better", **shared)
    pair = PreferencePair(
        id="b", prompt="prompt b", chosen="yes", rejected="no", rejected_model="s", preference_probability=0.8, **shared
    )
    write_records(folder / "prompts.jsonl", ledger)
    write_records(folder / "revisions.jsonl", [chain])
    write_records(folder / "sft.jsonl", [example])
    write_records(folder / "pairs.jsonl", [pair])
    write_records(folder / "held_out_pairs.jsonl", [pair.model_copy(update={"id": "c", "prompt": "prompt c"})])
    gone = Dropped(id="d", principle_id="human_dignity", drop_reason="unchanged", detail="", record={})
    write_records(folder / "dropped.jsonl", [gone])


def test_a_run_is_read_with_its_splits_chains_and_drops(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "generate"
    write_run(folder)
    found = read_run(folder, load_constitution("south_africa"))
    assert (found.name, found.datasheet["run"], found.constitution) == ("mine/generate", "mine", "south_africa")
    assert [one.split for one in found.prompts] == ["sft", "dpo", "held_out"]
    [row] = found.examples
    assert (row.source_prompt, row.initial, row.critique, row.completion) == ("prompt a", "first", "bad", "better")
    assert [(one.split, one.probability) for one in found.pairs] == [("dpo", 0.8), ("held_out", 0.8)]
    assert found.dropped == {"unchanged": 1}
    assert len(found.principles) == 22


def test_a_run_without_its_ledger_is_a_data_error(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "generate"
    write_run(folder)
    (folder / "prompts.jsonl").unlink()
    with pytest.raises(DataError, match=r"prompts\.jsonl does not exist"):
        read_run(folder, None)
