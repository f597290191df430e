from __future__ import annotations

import random
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.errors import DataError
from jobs.common.jsonl import write_records
from jobs.common.ledger import MOST_ROWS, Ledger, normalised, overlapping, read_ledger
from jobs.common.records import RedTeamPrompt, Split
from jobs.common.stage import RunContext

WORDS = st.lists(st.sampled_from(["amanzi", "umuntu", "land", "rate", "tax", "river", "clinic", "court"]), min_size=1)
SIXTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


def prompt(text: str, split: Split = "held_out", row_id: str = "p-1") -> RedTeamPrompt:
    return RedTeamPrompt(
        id=row_id, principle_id="p", prompt=text, split=split, model="m", prompt_version="1", sample_index=0
    )


def test_a_prompt_is_found_whatever_its_case_spaces_and_punctuation() -> None:
    ledger = Ledger([prompt("Don't share our water, umama: why?", "sft")])
    for text in (
        "don\u2019t share our water umama why",
        "DON'T  share\nour water, umama. Why",
        "Don't sha\u200bre our water umama: why",
    ):
        assert ledger.split_of(text) == "sft"
    assert ledger.split_of("Do share our water, umama: why?") is None


def test_prompts_without_words_are_compared_as_they_are() -> None:
    ledger = Ledger([prompt("???", "sft"), prompt("🌍", "dpo", "p-2")])
    assert [ledger.split_of(text) for text in (" ??? ", "🌍", "!!!", "")] == ["sft", "dpo", None, None]


@given(WORDS, st.randoms())
def test_noise_between_words_never_changes_what_is_compared(words: list[str], random: random.Random) -> None:
    noisy = "".join(
        f"{random.choice(['', ' ', '«', '“'])}{random.choice([word, word.upper(), word.title()])}"
        f"{random.choice([' ', ', ', ' — ', '…'])}"
        for word in words
    )
    assert normalised(noisy) == normalised(" ".join(words))


@pytest.mark.parametrize(("shared", "near"), [(16, True), (12, True), (11, False), (7, False)])
def test_a_text_with_half_of_a_held_out_prompts_sequences_is_near(shared: int, near: bool) -> None:
    ledger = Ledger([prompt(SIXTEEN)])  # 9 sequences of 8 words; a run of n of its words holds n - 7
    text = f"Please say {' '.join(SIXTEEN.split()[:shared])} and then stop."
    hit = ledger.held_out_hit({text})
    assert (hit is not None) == near
    assert hit is None or (hit.how, hit.prompt.id) == ("near", "p-1")


def test_a_short_held_out_prompt_is_met_by_its_own_words_only() -> None:
    ledger = Ledger([prompt("Why share our water?")])
    assert ledger.held_out_hit(["Why share our water at all?"]) is None
    assert str(ledger.held_out_hit(["why share our WATER"])) == "is held_out in prompts.jsonl (same words as p-1)"


def test_nearness_is_measured_against_held_out_prompts_alone() -> None:
    ledger = Ledger([prompt(SIXTEEN, "sft")])
    assert ledger.held_out_hit([SIXTEEN]) is None
    assert ledger.conflict("other", [f"{SIXTEEN} more"], "dpo") is None


def test_the_nearest_held_out_prompt_is_named() -> None:
    ledger = Ledger([prompt(f"{SIXTEEN} but not this", row_id="far"), prompt(SIXTEEN, row_id="close")])
    hit = ledger.held_out_hit([f"{SIXTEEN} at last"])
    assert hit is not None
    assert hit.prompt.id == "close"


def test_a_prompt_listed_twice_does_not_count_twice() -> None:
    ledger = Ledger([prompt(SIXTEEN), prompt(SIXTEEN)])
    assert ledger.held_out_hit([" ".join(SIXTEEN.split()[:11])]) is None


def test_a_row_meets_another_split_by_id_by_words_and_by_nearness() -> None:
    ledger = Ledger([prompt(SIXTEEN, "held_out", "h"), prompt("Share it, then.", "dpo", "d")])
    hits = [
        ledger.conflict("h", ["Something else"], "sft"),
        ledger.conflict("new", ["share it THEN"], "sft"),
        ledger.conflict("new", ["fine", f"{SIXTEEN} again"], "sft"),
        ledger.conflict("d", ["Share it, then."], "dpo"),
        ledger.conflict("new", ["Something else"], "dpo"),
    ]
    assert [hit and (hit.how, hit.prompt.split) for hit in hits] == [
        ("id", "held_out"), ("text", "dpo"), ("near", "held_out"), None, None,
    ]  # fmt: skip


def test_words_that_damaged_data_has_in_two_splits_train_neither() -> None:
    ledger = Ledger([prompt("Share it?", "sft", "a"), prompt("Share it!", "held_out", "b")])
    assert ledger.split_of("share it") == "held_out"
    hit = ledger.conflict("a", ["Share it?"], "sft")
    assert hit is not None
    assert (hit.how, hit.prompt.id) == ("text", "b")


def test_every_prompt_may_train_its_own_split_and_no_other() -> None:
    texts = [f"{SIXTEEN} number {number}" for number in range(9)]  # all near one another
    splits: list[Split] = ["held_out", "sft", "dpo"]
    ledger = Ledger([prompt(text, splits[number % 3], f"p-{number}") for number, text in enumerate(texts)])
    for number, text in enumerate(texts):
        for split in splits:
            fits = split == splits[number % 3]
            assert (ledger.conflict(f"p-{number}", [text], split) is None) == fits


def test_texts_that_a_split_must_keep_together_are_those_the_ledger_would_call_near() -> None:
    longer = f"{SIXTEEN} and then {' '.join(f'w{number}' for number in range(80))}"
    texts = [SIXTEEN, "Share it?", longer, "Nothing of the kind here at all, whatever they say.", "share it"]
    assert overlapping(texts) == [(0, 2), (1, 4)]
    assert overlapping([longer, SIXTEEN]) == [(0, 1)]


def test_a_phrase_that_too_many_texts_share_links_nothing() -> None:
    phrase = "Answer as a careful elder of the village would do: what of"
    texts = [f"{phrase} w{number}?" for number in range(MOST_ROWS + 1)]
    assert overlapping(texts) == []
    assert {row for pair in overlapping(texts[1:]) for row in pair} == set(range(MOST_ROWS))


@given(st.lists(st.text("ab  ", min_size=1, max_size=60), max_size=12))
def test_what_was_split_without_breaking_a_link_meets_no_held_out_prompt(texts: list[str]) -> None:
    linked = {row for pair in overlapping(texts) for row in pair}
    held = [prompt(text, row_id=str(row)) for row, text in enumerate(texts) if row % 2]
    ledger = Ledger(held)
    for row, text in enumerate(texts):
        if row % 2 == 0 and row not in linked:
            assert ledger.held_out_hit([text]) is None


def test_a_hundred_thousand_rows_are_checked_in_seconds() -> None:
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(3000)]

    def text(words: int) -> str:
        return " ".join(draw.choices(vocabulary, k=words))

    held = [prompt(text(40), row_id=f"p-{number}") for number in range(1000)]
    rows = [text(50) for _ in range(10_000)]
    rows[77] = f"Answer this: {held[5].prompt}"
    ledger = Ledger(held)
    began = time.process_time()
    hits = [number for number, row in enumerate(rows) if ledger.held_out_hit([row])]
    assert hits == [77]
    assert time.process_time() - began < 3  # a tenth of the rows; a comparison of each with all takes minutes


def test_the_ledger_of_a_run_is_its_prompts_file(context: RunContext) -> None:
    with pytest.raises(DataError, match=r"generate/prompts.jsonl does not exist"):
        read_ledger(context)
    write_records(context.folder / "generate" / "prompts.jsonl", [prompt("Share it?", "dpo")])
    assert read_ledger(context).split_of("share it") == "dpo"
