"""The page: whole, offline, escaped, small, and true to the measures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.audit.blocks import Transfer
from jobs.audit.browse import browse, safe_json
from jobs.audit.cards import cards
from jobs.audit.figures import MOST, figures, write_figures
from jobs.audit.page import render, write_page
from jobs.audit.section_openings import trace
from jobs.measure.data import Data, Pair, Prompt
from jobs.measure.findings import Malformed
from jobs.measure.measured import Gate
from tests.audit.made import GATES, made_data, made_measured, made_view

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    "]]></style><b>",
    "http://evil.example/x.png \u2028 \x00 \ud800 &amp;",
)
TITLES = (
    "From prompts to rows", "Coverage", "Length and shortcuts", "Openings", "Duplicates", "Leaks between splits",
    "Malformed rows", "What answers do", "Principles told by their prompts", "Cultural grounding", "Label audit",
    "Rows", "Datasheet",
)  # fmt: skip


class _Reader(HTMLParser):
    """Tags, attributes and visible texts as a browser's parser splits them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in {"script", "style"}:
            self._script = dict(attrs).get("id") or tag
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style"}:
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script] += data
        else:
            self.texts.append(data)

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.texts).split())


def hostile_data(text: str) -> Data:
    """A dataset whose every text, id and name is hostile."""
    data = made_data(6)
    return replace(
        data,
        name=text,
        prompts=[Prompt(text, text, text, one.split, answer=text) for one in data.prompts],
        examples=[replace(one, id=text, prompt=text, completion=text, initial=text) for one in data.examples],
        pairs=[Pair(text, text, text, text, text, split=text, language=text) for _ in data.pairs],
        principles=[replace(one, id=text, title=text, text=text) for one in data.principles],
        demonstrations=[text],
        dropped={text: 1},
        datasheet={text: {text: text}, "licence": text},
        language=text,
    )


def hostile_view(text: str) -> Any:
    data = hostile_data(text)
    measured = made_measured(data)
    lengths, leak = measured.lengths, measured.leaks[0]
    assert lengths is not None
    return made_view(
        data,
        tuple(replace(gate, says=text, fix=text) for gate in GATES),
        malformed=[Malformed("pairs", 0, text, text)],
        leaks=[replace(leak, first_split=text, first=text, prompt=text)],
        coverage={text: {"prompts": 1}},
        openings=replace(measured.openings, top={text: [(text, 1)]}, entropy_bits={text: 1.0}, largest=text),
        lengths=replace(lengths, by_principle={text: 1.0}),
        types=replace(measured.types, by_field={text: {"complies": 1}}),
        diversity=replace(measured.diversity, vendi_by_principle={text: 1.0}),
        notes=[text],
    )


def test_every_section_of_the_report_is_there_with_a_verdict_in_words() -> None:
    page = _Reader(render(made_view())).shown
    for number, title in enumerate(TITLES, start=1):
        assert f"{number} {title}" in page
    for said in (
        "3 of 6 gates fail: malformed, length only, length ratio.",
        "Chosen is longer in 100 % of 12 pairs.",
        "1 principle of 3 without a training row: Thrift.",
        "The data teaches over-refusal: 25.0 % of 4 legitimate requests (benign twins) are declined.",
        "1 of 2 principles have no chosen answer that names anything of the country: Honesty.",
        "demonstration 1: “A careful answer to begin with, as shown.”",
        "the revised response",
    ):
        assert said in page


def test_a_light_is_told_by_shape_and_word_as_well_as_by_colour() -> None:
    page = _Reader(render(made_view())).shown
    for word in ("■ red", "▲ amber", "● green", "○ not measured"):
        assert word in page


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str, tmp_path: Path) -> None:
    write_page(tmp_path / "audit.html", hostile_view(text))
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    plain, hostile = _Reader(render(made_view(made_data(6)))), _Reader(html)
    allowed = {(tag, name) for tag, attributes in plain.tags for name in attributes}
    found = {(tag, name) for tag, attributes in hostile.tags for name in attributes}
    assert found <= allowed, "no tag or attribute but our own"
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in plain.tags} | {"caption"}
    rows = json.loads(hostile.scripts["row-data"])
    assert rows[0]["texts"]["prompt"] == text.encode("utf-8", "replace").decode()
    assert len(json.loads(hostile.scripts["label-data"])) == 3
    assert hostile.scripts["script"] == plain.scripts["script"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_the_figures_is_valid_json(text: str, tmp_path: Path) -> None:
    write_figures(tmp_path / "measures.json", hostile_view(text))
    assert json.loads((tmp_path / "measures.json").read_bytes())["gates"][0]["says"] == text.replace("\ud800", "?")


def test_the_page_asks_no_network_and_forbids_it() -> None:
    view = made_view(replace(made_data(), name="see http://data.example/a and https://data.example/b"))
    reader = _Reader(render(view))
    loading = {"src", "href", "action", "data", "srcset", "poster", "xlink:href"}
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", "the policy would refuse it"
            if name in loading:
                assert (value or "").startswith(("#", "data:,")), (tag, name, value)
    assert not re.search(r"url\(|@import|https?:", reader.scripts["style"] + reader.scripts["script"])
    policy = next(attributes["content"] for _, attributes in reader.tags if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_the_policy_names_the_very_script_and_style() -> None:
    import base64
    import hashlib

    reader = _Reader(render(made_view()))
    policy = next(str(attributes["content"]) for _, attributes in reader.tags if "http-equiv" in attributes)
    for name in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(reader.scripts[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_in_the_page_says_the_same_and_cannot_end_its_element(value: Any) -> None:
    text = safe_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_a_hundred_thousand_pairs_fit_in_five_megabytes_and_the_page_says_how_many_are_shown(tmp_path: Path) -> None:
    answer = "A rather long answer with <b>markup</b> & quotes, as people write it. " * 12
    pairs = [Pair(f"p{n}", f"principle-{n % 33}", f"{n} {answer}", answer, answer[:300]) for n in range(100_000)]
    data = Data("large", [Prompt(one.id, one.principle_id, one.prompt, "dpo") for one in pairs], [], pairs)
    fault = [Malformed("pairs", n, "meta_talk", answer) for n in range(0, 100_000, 2)]
    view = made_view(data, malformed=fault, near=made_view().measured.near * 5_000)
    write_page(tmp_path / "audit.html", view)
    assert (tmp_path / "audit.html").stat().st_size < 5_000_000
    reader = _Reader((tmp_path / "audit.html").read_text(encoding="utf-8"))
    rows = json.loads(reader.scripts["row-data"])
    assert f"{len(rows):,} of 100,000 rows are in this page" in reader.shown
    assert "49,800 more are in measures.json." in reader.shown
    by_principle = [sum(row["principle"] == f"principle-{n}" for row in rows) for n in range(33)]
    assert min(by_principle) >= 12
    write_figures(tmp_path / "measures.json", view)
    found = json.loads((tmp_path / "measures.json").read_bytes())
    assert (found["counts"]["malformed"], len(found["measured"]["malformed"])) == (50_000, MOST)


def test_every_row_is_in_the_page_where_they_fit_and_links_lead_to_rows_that_are() -> None:
    reader = _Reader(render(made_view()))
    rows = json.loads(reader.scripts["row-data"])
    assert len(rows) == 24
    keys = {row["key"] for row in rows}
    links = [
        str(attributes["href"]) for tag, attributes in reader.tags if tag == "a" and "#row=" in str(attributes["href"])
    ]
    assert links == ["#row=pairs-0", "#row=examples-1"]
    assert {link.removeprefix("#row=") for link in links} <= keys
    assert next(row for row in rows if row["key"] == "pairs-0")["faults"] == ["meta_talk"]


def test_a_row_over_the_budget_is_left_out_and_counted() -> None:
    view = made_view()
    found = browse(view, [], budget=1_000)
    assert 0 < found.shown < found.total == 24
    assert len(found.json.encode()) <= 1_000


def test_the_label_audit_hides_which_side_was_chosen_and_shuffles_it() -> None:
    data = made_data(80)
    reader = _Reader(render(made_view(data)))
    shown = json.loads(reader.scripts["label-data"])
    assert len(shown) == 30
    by_id = {pair.id: pair for pair in data.pairs}
    for one in shown:
        chosen = one["a"] if one["label"] == "A" else one["b"]
        assert chosen == by_id[one["id"]].chosen
    assert 3 < sum(one["label"] == "A" for one in shown) < 27


def test_the_same_data_gives_the_same_page() -> None:
    assert render(made_view()) == render(made_view())


def test_a_source_with_nothing_but_prompts_has_a_page_that_says_so() -> None:
    data = replace(made_data(), examples=[], pairs=[], principles=[])
    view = made_view(data, (), lengths=None, blind=None, identified=None, grounding=None, malformed=[])
    page = _Reader(render(view)).shown
    for said in ("There is no row to train on.", "There are no pairs to label.", "Nothing could be measured."):
        assert said in page


def test_an_opening_is_traced_to_the_demonstration_that_has_it_whatever_case_and_marks() -> None:
    shown = ["Something else.", "Say: “I cannot assist with that,” and stop."]
    assert trace("i cannot assist with that", shown).startswith("demonstration 2:")
    assert trace("cannot assist with thatch", shown) == ""
    assert trace("", shown) == ""


def test_figures_name_every_gate_and_hold_no_number_for_each_pair() -> None:
    found = figures(made_view())
    assert [gate["name"] for gate in found["gates"]] == [gate.name for gate in GATES]
    assert found["measured"]["leak_matrix"] == {"sft ∩ dpo": 1, "sft ∩ held_out": 0}
    assert "margins" not in found["measured"]["blind"]
    json.dumps(found)


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ((Gate("leaks", 2, 0, "red", "two", "x"),), "1 of 1 gates fails: leaks."),
        ((Gate("leaks", 2, 0, "amber", "two", "x"),), "No gate fails; 1 would with 30 rows or more behind it."),
        (
            (Gate("leaks", 0, 0, "green", "none", ""), Gate("opening", None, 0.1, "grey", "", "")),
            "1 could not be measured",
        ),
    ],
)
def test_the_lead_says_what_the_gates_say(gates: tuple[Gate, ...], said: str) -> None:
    assert said in _Reader(render(made_view(gates=gates))).shown


def test_a_fix_that_gates_share_stands_once_above_the_cards_and_another_in_its_card() -> None:
    page = _Reader(render(made_view(gates=(*GATES, Gate("splits", 2, 0, "red", "two", "split again"))))).shown
    assert page.count("cai repair --run made") == 1
    assert "Fix for malformed, leaks, length only, length ratio: cai repair --run made" in page
    assert "Fix: split again" in page


def test_a_share_has_its_interval_on_its_card_and_a_ratio_has_none() -> None:
    shown = {card.gate.name: (card.value, card.interval) for card in cards(made_view())}
    assert shown["length_only"] == ("100 %", "(95\N{EN DASH}100)")
    assert shown["length_ratio"] == ("\N{MULTIPLICATION SIGN}2.75", "")
    assert shown["prompt_blind"][1] == ""


@pytest.mark.parametrize(("light", "listed"), [("green", False), ("grey", False), ("amber", True), ("red", True)])
def test_words_are_listed_only_where_the_classifier_is_over_the_limit(light: Any, listed: bool) -> None:
    page = _Reader(render(made_view(gates=(Gate("prompt_blind", 1.0, 0.75, light, "", ""),)))).shown
    assert ("speaks for chosen" in page) is listed
    assert ("No word gives chosen away" in page) is not listed


def test_what_a_classifier_of_one_source_finds_in_another_is_shown_in_section_3() -> None:
    view = replace(made_view(), transfers=(Transfer("theirs", "mine", 0.625, 40),))
    assert "learned from tried on right pairs theirs mine 62.5 % 40" in _Reader(render(view)).shown
    assert figures(view)["transfers"][0]["accuracy"] == 0.625


def test_remarks_on_the_sources_stand_before_the_gates() -> None:
    page = _Reader(render(replace(made_view(), remarks=("9 of 10 rows could not be read: not JSON 9.",)))).shown
    assert page.index("9 of 10 rows could not be read") < page.index("limit")


def test_a_column_that_no_opening_is_traced_in_is_left_out() -> None:
    traced, other = made_view(), made_view(made_data(demonstrations=["Other words."]))
    assert "stands in" in _Reader(render(traced)).texts
    assert "stands in" not in _Reader(render(other)).texts


@pytest.mark.parametrize(("rows", "tall"), [(40, False), (41, True)])
def test_only_a_long_table_scrolls_in_its_box(rows: int, tall: bool) -> None:
    coverage = {f"principle-{number}": {"prompts": 1, "sft": 1} for number in range(rows)}
    html = render(made_view(coverage=coverage))
    assert ('class="scroll tall"' in html) is tall
