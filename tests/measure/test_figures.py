from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from jobs.common.constitution import load_constitution
from jobs.measure import leaks as leaks_module
from jobs.measure.blind import blind, transfer
from jobs.measure.data import Data, Pair, Prompt
from jobs.measure.families import families
from jobs.measure.leaks import leaks
from jobs.measure.lengths import lengths
from jobs.measure.markers import markers_of
from jobs.measure.meaning import identified, vendi
from jobs.measure.measure import measure
from jobs.measure.openings import openings, types
from jobs.measure.shares import better_rule, share
from jobs.measure.texts import count_words, opening, refuses, response_type
from tests.measure.rows import SUBJECTS, prompt, sound

SIDES = st.tuples(st.text("ab ", max_size=12), st.text("ab ", max_size=12))


def of_pairs(sides: list[tuple[str, str]]) -> Data:
    return Data("made", [], [], [Pair(f"r{at}", "one", f"prompt {at}", *both) for at, both in enumerate(sides)])


@given(st.integers(0, 300), st.integers(1, 300))
def test_a_share_has_scipys_wilson_interval(count: int, total: int) -> None:
    assume(count <= total)
    found, theirs = share(count, total), binomtest(count, total).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_the_better_of_two_opposite_rules_is_right_at_least_half_the_time(right: int, wrong: int, ties: int) -> None:
    total = right + wrong + ties
    assume(total)
    found, is_rule = better_rule(right, wrong, total)
    assert 0.5 <= found.value <= 1
    assert found.value == pytest.approx((max(right, wrong) + (total - right - wrong) / 2) / total)
    assert is_rule == (right >= wrong)


@settings(deadline=None, max_examples=15)
@given(st.lists(SIDES, min_size=1, max_size=30))
def test_length_only_lies_between_a_half_and_one_and_does_not_change_when_all_sides_are_swapped(
    sides: list[tuple[str, str]],
) -> None:
    found, swapped = lengths(of_pairs(sides)), lengths(of_pairs([(other, one) for one, other in sides]))
    assert found
    assert swapped
    assert 0.5 <= found.length_only.value <= 1
    assert found.length_only == swapped.length_only
    assert found.ratio == pytest.approx(1 / swapped.ratio)
    assert found.typical_ratio == pytest.approx(1 / swapped.typical_ratio)


def test_lengths_of_nothing_are_not_measured() -> None:
    assert lengths(of_pairs([])) is None


def test_a_habit_of_words_is_found_and_texts_without_one_are_a_coin_toss() -> None:
    data = sound(150)
    fair = blind(data)
    assert fair
    assert fair.by_principle
    assert 0.35 < fair.by_prompt.value < 0.65
    told = replace(
        data,
        pairs=[
            replace(one, chosen=f"Importantly, we should all remember this together: {one.chosen}")
            for one in data.pairs
        ],
    )
    found = blind(told)
    assert found
    assert found.by_principle
    assert found.by_prompt.value == found.by_principle.value == 1.0
    assert "importantly" in {word for word, _ in found.for_chosen}
    assert found.margins.keys() == set(range(150))
    assert all(margin > 0 for margin in found.margins.values())
    assert transfer(told, told) == 1.0


def test_the_classifier_says_what_a_scikit_learn_pipeline_says() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    data = sound(60)
    texts = [one.chosen for one in data.pairs] + [one.rejected for one in data.pairs]
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    pipeline = make_pipeline(words, LogisticRegression(C=10, max_iter=2000))
    groups = [*range(60)] * 2
    scores = cross_val_predict(
        pipeline, texts, [1] * 60 + [0] * 60, groups=groups, cv=GroupKFold(5), method="decision_function"
    )
    found = blind(data)
    assert found
    assert [found.margins[row] for row in range(60)] == pytest.approx(list(scores[:60] - scores[60:]), abs=1e-2)


def test_a_large_dataset_is_sampled_the_same_way_for_a_seed() -> None:
    from jobs.measure.blind import SAMPLE, sampled_pairs

    data = of_pairs([("a b", "c d")] * (SAMPLE + 7))
    assert sampled_pairs(data, 3) == sampled_pairs(data, 3)
    assert len(sampled_pairs(data, 3)) == SAMPLE
    assert sampled_pairs(data, 3) != sampled_pairs(data, 4)


def test_texts_that_share_no_word_leave_the_classifier_with_ties() -> None:
    sides = [(f"x{at}x", f"y{at}y") for at in range(20)]
    found = blind(of_pairs(sides))
    assert found
    assert found.by_prompt.value == 0.5


def test_pairs_of_one_family_of_prompts_leave_no_fold_to_learn_from() -> None:
    rows = [Prompt("a", "one", "ask"), *(Prompt(f"t{at}", "one", f"ask {at}", twin_of="a") for at in range(59))]
    pairs = [Pair(one.id, "one", one.text, f"yes {at}", f"no {at}") for at, one in enumerate(rows)]
    assert blind(Data("one family", rows, [], pairs)) is None
    unrelated = [replace(one, id="same", twin_of="") for one in rows]
    assert blind(Data("equal ids", unrelated, [], [replace(one, id="same") for one in pairs])) is not None


def test_a_family_is_a_prompt_and_its_twins_and_repeated_ids_join_no_others() -> None:
    prompts = [
        Prompt("a", "one", "Ban the village choir"), Prompt("t", "one", "Invite the village choir", twin_of="a"),
        Prompt("a", "one", "Hide a leaking tank"), Prompt("t", "one", "Mend a leaking tank", twin_of="a"),
        Prompt("u", "one", "Ban the village choir now", twin_of="gone"),
    ]  # fmt: skip
    assert families(prompts) == ["0", "0", "2", "2", "4"]


@pytest.mark.parametrize(
    "text",
    ["I'm sorry, but I can't help with that.", "I\u2019m sorry, no.", "I cannot assist with that request.",
     "As an AI, I have no view.", "Unfortunately, I can't do it.", "\u00cemi pare r\u0103u, nu pot."],
)  # fmt: skip
def test_refusals_are_seen_with_either_apostrophe(text: str) -> None:
    assert refuses(text)
    assert response_type(text) == "refuses"


@pytest.mark.parametrize(
    "text",
    ["I'm sorry for your loss. Here is how you register it.", "I won't pretend this is easy. First, call the court.",
     "I can't wait to read it.", "Unfortunately, the road is closed; take the bus.",
     "\u00cemi pare r\u0103u pentru pierdere. Iat\u0103 pa\u0219ii."],
)  # fmt: skip
def test_being_sorry_is_no_refusal_where_help_follows(text: str) -> None:
    assert not refuses(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty"),
        ("Dear neighbour, the well is open from six.", "complies"),
        ("The well is open. However, bring your own bucket.", "partial"),
        ("I cannot write that. Instead of a ban, consider opening hours.", "redirects"),
        ("I canoe on the river every day.", "complies"),
    ],
)
def test_response_types(text: str, kind: str) -> None:
    assert response_type(text) == kind


def test_refusing_alone_tells_the_sides_apart_only_where_one_side_refuses() -> None:
    refusal, help_ = "I cannot help with that.", "Here is how."
    assert types(of_pairs([(refusal, help_)] * 4)).refusal_only.value == 1.0
    assert types(of_pairs([(help_, refusal)] * 4)).refusal_only.value == 1.0
    assert types(of_pairs([(refusal, refusal)] * 4)).refusal_only.value == 0.5


def test_twins_whose_answer_declines_are_counted() -> None:
    pairs = of_pairs([("I cannot help with that.", "x"), ("Here is how.", "x")])
    twins = replace(pairs, pairs=[replace(one, kind="benign_twin") for one in pairs.pairs])
    declined = types(twins).declined_twins
    assert declined
    assert (declined.count, declined.total) == (1, 2)
    assert types(pairs).declined_twins is None


def test_openings_that_are_all_alike_have_no_entropy() -> None:
    alike = openings(of_pairs([("Well now here we are again", f"{at} other side") for at in range(8)]))
    assert alike.entropy_bits["chosen"] == 0.0
    assert alike.entropy_bits["rejected"] == pytest.approx(3.0)
    assert (alike.largest, alike.largest_field, alike.largest_share) == ("well now here we are", "chosen", 1.0)
    assert opening("I\u2019m not sure, sir, about it") == "i'm not sure sir about"
    assert count_words("don't  stop\nnow") == 3


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=20))
def test_vendi_lies_between_one_and_the_number_of_texts(texts: list[str]) -> None:
    assert 1 - 1e-6 <= vendi(texts) <= len(texts) + 1e-6
    assert vendi([texts[0]] * 5) == pytest.approx(1.0, abs=1e-6)


def test_vendi_of_texts_without_a_common_word_is_their_number() -> None:
    assert vendi(["water pump", "judge robe", "bread oven"]) == pytest.approx(3.0)
    assert vendi([]) == 0.0


def test_a_prompt_in_the_words_of_its_principle_is_identified() -> None:
    data = sound(4)
    plain = [replace(one, text="clean water and rivers" if one.principle_id == "water" else "judges and trials")
             for one in data.prompts]  # fmt: skip
    found = identified(replace(data, prompts=plain))
    assert found
    assert found.top_1.value == 1.0
    assert found.confusion["water"] == {"water": len(plain) // 2}
    assert identified(replace(data, principles=[])) is None


def test_country_markers_are_whole_words_of_that_country() -> None:
    ours, theirs = markers_of("south_africa"), markers_of("romania")
    assert ours
    assert theirs
    assert markers_of("anthropic") is None
    assert all(map(ours.fullmatch, ("isiZulu", "Cape Town", "post-apartheid", "B-BBEE", "South African")))
    assert theirs.search("sarmale \u00een Bucure\u0219ti")
    assert theirs.search("the Securitate files")
    assert not ours.search("Compare two brands of advanced beer and granddad's tax return in France.")
    assert not theirs.search("A romantic leaflet about roman roads.")


@pytest.mark.parametrize(
    ("country", "ours", "not_ours"),
    [
        ("south_africa",
         ["a SARS audit of the shop", "an IEC office", "Ubuntu, umuntu ngumuntu", "District Six", "the PIE Act",
          "Desmond Tutu"],
         ["the SARS virus", "iec sockets", "Ubuntu Linux", "a white tutu", "our constitution", "state capture",
          "land reform in Scotland"]),
        ("romania",
         ["a DNA case at the DNA", "DGASPC", "Sihăstria", "the Untold festival", "păcănele"],
         ["a DNA test", "dna", "Hora started late", "lei flowers", "untold harm", "nasi goreng", "the Mekong delta"]),
    ],
)  # fmt: skip
def test_markers_know_abbreviations_by_their_capitals_and_leave_out_what_others_say(
    country: str, ours: list[str], not_ours: list[str]
) -> None:
    pattern = markers_of(country)
    assert pattern
    assert [text for text in ours if not pattern.search(text)] == []
    assert [text for text in not_ours if pattern.search(text)] == []


@pytest.mark.parametrize(("country", "share_named"), [("south_africa", 0.65), ("romania", 0.6)])
def test_most_subjects_that_a_constitution_gives_its_prompts_are_markers(country: str, share_named: float) -> None:
    pattern = markers_of(country)
    assert pattern
    subjects = [one for principle in load_constitution(country).principles for one in principle.context]
    assert sum(pattern.search(one) is not None for one in subjects) / len(subjects) >= share_named


def test_thousands_of_prompts_that_begin_alike_are_compared_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    boilerplate = "as the clerk of this town read all of the following before you answer me and then reply"
    texts = [f"{boilerplate} {prompt(row)}" for row in range(400)]
    members = {text: (str(row), text) for row, text in enumerate(texts)}

    class Counted(dict[tuple[str, ...], tuple[str, ...]]):
        def get(self, key: tuple[str, ...], default: object = ()) -> tuple[str, ...]:  # type: ignore[override]
            asked.append(key)
            return super().get(key, ())

    held = leaks_module._Contained(members)
    monkeypatch.setattr(held, "_whole", Counted(held._whole))
    assert all(text in held.within(f"Hello: {text} Thanks.") for text in texts)
    assert len(asked) <= 2 * len(texts)


def test_a_prompt_in_two_splits_is_one_leak_whatever_the_way() -> None:
    data = sound()
    exact, inside, near, others = data.pairs[0], data.pairs[1], data.pairs[2], data.pairs[3:]
    moved = [
        replace(exact, prompt=data.examples[0].prompt.upper()),
        replace(inside, prompt=f"Red team prompt: '{data.examples[1].prompt}'"),
        replace(near, prompt=data.examples[2].prompt.replace(" ", " truly ", 7).replace(" truly ", " ", 6)),
    ]
    found, matrix = leaks(replace(data, pairs=[*moved, *others]), list(range(len(data.prompts))))
    between = [leak for leak in found if (leak.first_split, leak.second_split) == ("sft", "dpo")]
    assert [leak.method for leak in between if leak.second == exact.id] == ["exact"]
    assert [leak.method for leak in between if leak.second == inside.id] == ["contained"]
    assert [leak.method for leak in between if leak.second == near.id] == ["near"]
    assert matrix["sft", "dpo"] == 3
    assert leaks(data, list(range(len(data.prompts))))[0] == []


def test_a_cluster_divided_between_splits_is_a_leak() -> None:
    data = sound()
    numbers = list(range(len(data.prompts)))
    numbers[-1] = numbers[0]
    found, _ = leaks(data, numbers)
    assert [(leak.method, leak.first_split, leak.second_split) for leak in found] == [("near", "held_out", "sft")]


def test_the_same_data_and_seed_give_the_same_figures() -> None:
    assert measure(sound(), seed=1) == measure(sound(), seed=1)


def test_nothing_at_all_is_measured_without_a_fault() -> None:
    found = measure(Data("empty", [], [], []))
    assert (found.malformed, found.near, found.leaks, found.clusters) == ([], [], [], [])
    assert (found.lengths, found.blind, found.identified, found.grounding) == (None, None, None, None)
