"""The South African files of the original authors, measured: the figures known of them must come out."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path
from statistics import median

import pytest

from jobs.audit.original_data import read_original
from jobs.common.constitution import load_constitution
from jobs.common.jsonl import read_json
from jobs.common.settings import AuditSettings
from jobs.measure.data import Data
from jobs.measure.gates import gates
from jobs.measure.markers import markers_of
from jobs.measure.measure import measure
from jobs.measure.measured import Lengths, Measured
from jobs.measure.minhash import proposed
from jobs.measure.texts import count_words

DECLINES = re.compile(
    r"^\W*(i['\u2019]?m (really |very |truly |so )?sorry\b|sorry\b|i apologi[sz]e\b"
    r"|i (cannot|can['\u2019]?t|can not|won['\u2019]?t|will not)\b|unfortunately,? i (can|am)\b|as an ai\b"
    r"|i ?(am|['\u2019]m) (unable|not able)\b)",
    re.IGNORECASE,
)
"""Declining as the known figures count it: whoever opens with an apology, even one that help follows."""

SEED = os.environ.get("CAI_SEED_DATA")
pytestmark = pytest.mark.skipif(not SEED, reason="CAI_SEED_DATA is not set")


@cache
def data() -> Data:
    return read_original(Path(str(SEED)) / "south_africa", load_constitution("south_africa"))


@cache
def measured() -> Measured:
    return measure(data())


def share_that_declines(texts: list[str]) -> float:
    return sum(DECLINES.search(text) is not None for text in texts) / len(texts)


def lengths() -> Lengths:
    found = measured().lengths
    assert found
    return found


def test_twenty_two_principles_have_ten_prompts_ten_rows_and_ten_pairs_each() -> None:
    assert len(measured().coverage) == 22
    assert {(row["prompts"], row["sft"], row["dpo"]) for row in measured().coverage.values()} == {(10, 10, 10)}
    assert len({pair.prompt for pair in data().pairs}) == 220


def test_prompts_have_12_to_36_words_and_none_repeats_another() -> None:
    words = [count_words(prompt.text) for prompt in data().prompts]
    assert (min(words), median(words), max(words)) == (12, 21.5, 36)
    assert [link for link in measured().near if link.method in ("exact", "tfidf")] == []
    # The bands propose one pair; its true Jaccard index is 0.29, so it is no duplicate.
    assert len(set(proposed([prompt.text for prompt in data().prompts]))) == 1
    assert measured().notes[0].startswith("Pairs of prompts that MinHash bands propose: 1;")
    assert measured().near == []


def test_every_correct_answer_refuses() -> None:
    assert measured().types.refusals["answer"].value == 1.0
    assert share_that_declines([prompt.answer for prompt in data().prompts]) == 1.0
    first = Counter(prompt.answer.lower().startswith("i cannot assist with that") for prompt in data().prompts)
    assert first[True] == 195


def test_36_supervised_prompts_drifted_and_nothing_else_is_named() -> None:
    drifted = [one for one in measured().malformed if one.reason == "prompt_drift"]
    assert Counter(one.detail.partition(":")[0] for one in drifted) == {
        "prefix": 24, "meta-prompt": 10, "punctuation": 2,
    }  # fmt: skip
    assert sum(one.detail.endswith("user prompt gone") for one in drifted) == 5
    assert len({one.row for one in drifted}) == 36
    assert measured().malformed == drifted


def test_initial_responses_are_the_invented_bad_answers() -> None:
    key = "initial responses that are the red-team file's invented bad answer"
    assert data().datasheet[key] == "219 of 220"


def test_revisions_are_four_times_as_long_and_some_refuse() -> None:
    assert lengths().completion_words == pytest.approx(85.8, abs=0.05)
    assert lengths().initial_words == pytest.approx(22.1, abs=0.05)
    longer = lengths().completion_longer
    assert longer
    assert longer.value == pytest.approx(0.991, abs=0.0005)
    assert share_that_declines([row.completion for row in data().examples]) == pytest.approx(0.109, abs=0.0005)
    assert measured().types.refusals["completion"].count == 23
    assert measured().notes[1].startswith("11 of 220 completions speak of a principle or a critique")


def test_the_longer_side_is_the_chosen_one() -> None:
    found = lengths()
    assert (round(found.chosen_words, 1), round(found.rejected_words, 1)) == (91.4, 66.7)
    assert found.ratio == pytest.approx(1.37, abs=0.005)
    assert found.longer_words.value == pytest.approx(0.977, abs=0.0005)
    assert found.wilcoxon_p == pytest.approx(4e-37, rel=0.1)
    assert (found.length_only.count, found.length_only.total, found.longer_is_chosen) == (217, 220, True)
    assert found.within_tenth == 9


def test_a_classifier_that_never_sees_the_prompt_finds_chosen() -> None:
    found = measured().blind
    assert found
    assert found.by_principle
    assert found.by_prompt.value == pytest.approx(0.995, abs=0.01)
    assert found.by_principle.value == pytest.approx(0.995, abs=0.01)
    assert {"instead", "inclusive"} <= {word for word, _ in found.for_chosen}
    assert {"could", "avoid", "without"} <= {word for word, _ in found.for_rejected}


def test_one_chosen_answer_in_twenty_refuses_and_no_rejected_one() -> None:
    assert share_that_declines([pair.chosen for pair in data().pairs]) == pytest.approx(0.05)
    assert measured().types.refusals["chosen"].count == 10
    assert share_that_declines([pair.rejected for pair in data().pairs]) == 0
    assert measured().types.refusals["rejected"].count == 0


def test_184_prompts_are_shared_word_for_word_and_215_once_templates_are_stripped() -> None:
    ways = Counter(leak.method for leak in measured().leaks)
    assert ways == {"exact": 184, "contained": 31}
    assert measured().leak_matrix == {("sft", "dpo"): 215}
    assert measured().reused == 0
    completions = {row.completion for row in data().examples}
    assert not completions & {pair.chosen for pair in data().pairs}
    assert not any(one.reason == "empty" for one in measured().malformed)


def test_few_texts_name_the_country() -> None:
    found = measured().grounding
    assert found
    assert found.prompts.value == pytest.approx(0.123, abs=0.0005)
    assert found.chosen.value == pytest.approx(0.223, abs=0.0005)
    assert len(found.principles_without) == 14
    pattern = markers_of("south_africa")
    assert pattern
    own = json.loads((Path(str(SEED)) / "constitutions" / "revised_sac.json").read_text(encoding="utf-8"))
    assert sum(not pattern.search(f"{one['title']} {one['description']}") for one in own) == 17


def test_the_lights_name_the_habits() -> None:
    lights = {gate.name: gate for gate in gates(data(), measured(), AuditSettings())}
    red = {name for name, gate in lights.items() if gate.light == "red"}
    assert red == {"malformed", "leaks", "length_only", "prompt_blind", "length_ratio"}
    assert lights["splits"].light == "amber"
    assert lights["malformed"].says.startswith("36 of 220 supervised rows")
    assert lights["leaks"].says.startswith("supervised rows and pairs share 215 prompts (184 exact, 31 contained)")
    assert "chosen is longer in 98.6 % of 220 pairs" in lights["length_only"].says


def test_one_file_alone_is_read_too() -> None:
    [path] = (Path(str(SEED)) / "south_africa").glob("pref_*.json")
    assert read_json(path)
    alone = read_original(path)
    assert (len(alone.prompts), len(alone.examples), len(alone.pairs)) == (0, 0, 220)
    assert {pair.principle_id for pair in alone.pairs} == {str(number) for number in range(22)}
