"""`cai constitution check FILE --teacher`: finds each fault, has nothing to say of a sound file, pays nothing twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.__main__ import main
from jobs.generate.lint_ask import read_letter
from jobs.generate.lint_checks import copies
from tests.fakes.openai_server import Answer, FakeServer
from tests.generate.world import World, error_line

TEXTS = {
    "rivers": "Water stays drinkable downstream, and the answer tells a factory how to clean its waste.",
    "elders": "Grandparents are asked for counsel, and the answer gives them time and a chair.",
    "savings": "Money is kept for the winter, and the answer names one purchase that can wait.",
    "songs": "Old tunes are sung again, and the answer names who taught them.",
    "bridges": "Engineers inspect every bolt before a road opens, and the answer explains the delay.",
}


class Teacher:
    """A teacher who understands everything, but for the principles named here."""

    def __init__(self) -> None:
        self.same: set[str] = set()
        self.contrary: set[str] = set()
        self.blurred = ""
        """Whose two answers it cannot tell apart."""
        self.unseen = ""
        """Of which it says that no answer shows it."""
        self.misread = ""
        """Which it paraphrases as another principle."""
        self.copied = ""
        """Which it repeats word for word."""

    def __call__(self, body: dict[str, Any]) -> str | Answer:
        last = body["messages"][-1]["content"]
        named = next((name for name, text in TEXTS.items() if text in last), "")
        if "These two principles" in last:
            return self._letter(last, self._relation(last))
        if "Which of these principles" in last:
            return self._letter(last, TEXTS[re.findall(r"words: \"Of (\w+),", last)[0]])
        if "Which answer follows" in last:
            return self._follows(last, named)
        if "Can the reader tell" in last:
            return self._letter(last, "no" if named == self.unseen else "yes")
        if "Write three texts" in last:
            return f"1. What of {named}?\n2. This keeps {named}.\n3. This spoils {named}."
        if "Say in one or two sentences" in last:
            return (
                TEXTS[named] if named == self.copied else f"Of {self._understood(named)}, the reader hears good things."
            )
        if "Write its text anew" in last:
            return f"The answer is kind to {named}. It harms none."
        assert "Describe in one sentence" in last
        return "Somebody asks whether to drain the river for the bridge."

    def _understood(self, named: str) -> str:
        return "songs" if named == self.misread else named

    def _relation(self, last: str) -> str:
        pair = {name for name, text in TEXTS.items() if text in last}
        if pair == self.same:
            return "say the same thing"
        return "contradict each other" if pair == self.contrary else "are different and fit together"

    def _follows(self, last: str, named: str) -> str:
        if named == self.blurred:
            return "C"
        return "A" if last.index("This keeps") < last.index("This spoils") else "B"

    def _letter(self, last: str, option: str) -> str:
        found = re.search(rf"^([A-D])\. {re.escape(option)}$", last, re.MULTILINE)
        assert found, last
        return f"{found[1]}."


@pytest.fixture
def teacher(server: FakeServer) -> Teacher:
    server.respond = Teacher()
    return server.respond


def write(folder: Path, **texts: str) -> Path:
    principles = [
        {
            "id": name,
            "title": f"Care for {name}",
            "text": text,
            "category": "care",
            "source": "our own",
            "critique_request": f"Which {name} does your {name} answer forget about {name}?",
            "revision_request": f"Rewrite {name} with {name} for {name}.",
        }
        for name, text in texts.items()
    ]
    head = {"name": "mine", "title": "Mine", "language": "en", "version": 1, "description": "Test."}
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(head | {"principles": principles}, sort_keys=False), encoding="utf-8")
    return file


def check(world: World, file: Path, *more: str) -> int:
    arguments = ["--teacher", "--recipe", world.recipe, "--runs", str(world.runs), *more]
    return main(["constitution", "check", str(file), *arguments])


def rows(shown: str) -> dict[str, str]:
    """The table's rows, by principle, each as one line."""
    found: dict[str, str] = {}
    name = ""
    for line in shown.splitlines():
        if match := re.match(r"(\w+) ", line):
            name = match[1]
        found[name] = " ".join(f"{found.get(name, '')} {line}".split())
    return found


def test_a_sound_constitution_gives_no_remark_and_says_what_it_cost(
    world: World, teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(world, write(world.folder, **TEXTS)) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no remarks; " in captured.err
    assert "lost its way" not in captured.err
    assert re.search(
        r"asking fake-teacher about 5 principles and the \d of 10 pairs|most related of 10 pairs", captured.err
    )
    asked = len(world.server.history)
    assert f"{asked} new requests and 0 from the journal, {10 * asked} new tokens in, {5 * asked} out" in captured.err


def test_a_second_look_pays_nothing(world: World, teacher: Teacher, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(world.folder, **TEXTS)
    assert check(world, file) == 0
    asked = len(world.server.history)
    assert check(world, file) == 0
    assert len(world.server.history) == asked
    assert f"0 new requests and {asked} from the journal" in capsys.readouterr().err


def test_only_what_a_changed_principle_touches_is_asked_again(world: World, teacher: Teacher) -> None:
    check(world, write(world.folder, **TEXTS))
    asked = len(world.server.history)
    check(world, write(world.folder, **TEXTS | {"songs": TEXTS["songs"] + " Slowly."}))
    assert 0 < len(world.server.history) - asked < asked


def test_two_principles_that_say_the_same_are_named_once(
    world: World, teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher.same = {"rivers", "elders"}
    assert check(world, write(world.folder, rivers=TEXTS["rivers"], elders=TEXTS["elders"])) == 0
    found = rows(capsys.readouterr().out)
    assert "duplicate like rivers" in found["elders"]
    assert "rivers" not in found


def test_a_contradiction_comes_with_a_message_that_shows_it(
    world: World, teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher.contrary = {"rivers", "bridges"}
    assert check(world, write(world.folder, rivers=TEXTS["rivers"], bridges=TEXTS["bridges"])) == 0
    captured = capsys.readouterr()
    row = rows(captured.out)["bridges"]
    assert {"contradiction", "rivers:", "Somebody", "drain"} <= set(row.split())
    assert "1 remark;" in captured.err


@pytest.mark.parametrize(("attribute", "seen"), [("blurred", "cannot tell"), ("unseen", "no answer can show it")])
def test_a_principle_that_no_answer_shows_is_untestable(
    attribute: str, seen: str, world: World, teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    setattr(teacher, attribute, "savings")
    assert check(world, write(world.folder, **TEXTS)) == 0
    found = rows(capsys.readouterr().out)
    assert "untestable" in found["savings"]
    assert set(seen.split()) <= set(found["savings"].replace('"', " ").split())
    assert set(found) & set(TEXTS) == {"savings"}


@pytest.mark.parametrize(("attribute", "seen"), [("misread", "taken for songs"), ("copied", "only repeats the text")])
def test_a_principle_the_teacher_cannot_say_in_other_words_is_named(
    attribute: str, seen: str, world: World, teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    setattr(teacher, attribute, "elders")
    assert check(world, write(world.folder, **TEXTS)) == 0
    found = rows(capsys.readouterr().out)
    assert set(found) & set(TEXTS) == {"elders"}
    assert set(seen.split()) <= set(found["elders"].split())


def test_a_negative_text_gets_a_positive_proposal(
    world: World, teacher: Teacher, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TEXTS, "silence", "The answer does not gossip. It never fills the gap with noise.")
    assert check(world, write(world.folder, **TEXTS)) == 0
    row = rows(capsys.readouterr().out)["silence"]
    assert "negative framing" in row
    assert {"Such", "as:", "kind"} <= set(row.split())


def test_without_a_teacher_the_texts_alone_are_remarked_on_and_nothing_is_asked(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    again = "Water stays drinkable far downstream, so the answer tells factories to clean their waste."
    file = write(world.folder, rivers=TEXTS["rivers"], streams=again, silence="The answer does not gossip.")
    assert main(["constitution", "check", str(file)]) == 0
    shown = capsys.readouterr().err
    assert re.search(r"mine\.yaml:\d+: principle 'streams': remark: duplicate, like rivers: TF-IDF cosine", shown)
    assert re.search(r"mine\.yaml:\d+: principle 'silence': remark: negative framing, 1 of 1 sentences", shown)
    assert "no faults, 2 remarks." in shown
    assert world.server.history == []


def test_a_fault_of_form_stops_before_anything_is_asked(world: World, teacher: Teacher) -> None:
    file = write(world.folder, **TEXTS)
    file.write_text(file.read_text(encoding="utf-8").replace("name: mine", "name: yours"), encoding="utf-8")
    assert check(world, file) == 78
    assert world.server.history == []


def test_a_teacher_that_always_says_a_finds_no_duplicates_and_nothing_testable(
    world: World, teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    def first_letter(body: dict[str, Any]) -> str | Answer:
        found = teacher(body)
        return "A" if isinstance(found, str) and read_letter(found, 4) else found

    world.server.respond = first_letter
    assert check(world, write(world.folder, **TEXTS)) == 0
    captured = capsys.readouterr()
    shown = captured.out
    assert "lost its way with 5 of 5 principles, which tells more of this teacher than of them" in captured.err
    assert "duplicate" not in shown
    assert "contradiction" not in shown
    assert shown.count("untestable") == len(TEXTS)


def test_what_the_endpoint_refuses_is_named_and_the_rest_is_checked(
    world: World, teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    def prudish(body: dict[str, Any]) -> str | Answer:
        last = body["messages"][-1]["content"]
        if "Write three texts" in last and TEXTS["songs"] in last:
            return Answer(status=400, error={"message": "flagged", "code": "content_policy_violation"})
        return teacher(body)

    world.server.respond = prudish
    assert check(world, write(world.folder, **TEXTS)) == 0
    found = rows(capsys.readouterr().out)
    assert "not checked" in found["songs"]
    assert set(found) & set(TEXTS) == {"songs"}


def test_the_budget_of_the_recipe_holds(world: World, teacher: Teacher, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(world.folder, **TEXTS)
    assert check(world, file, "--set", "budget_tokens=1500") == 75
    line = error_line(capsys)
    assert "budget_tokens 1500 is reached" in line
    assert f"cai constitution check {file} --teacher" in line
    assert check(world, file) == 0


def test_a_refused_key_is_one_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.respond = lambda _: Answer(status=401, error={"message": "no"})
    assert check(world, write(world.folder, **TEXTS)) == 69
    assert "401" in error_line(capsys)


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("A", "A"), ("b", "B"), ("B.", "B"), ("(C)", "C"), ("**D**", "D"), ("Answer: B", "B"),
        ("The answer is A.", "A"), ("B say the same thing", "B"), ("A. yes", "A"), ("Option C", "C"),
        ("A message could", None), ("Both", None), ("E", None), ("", None), ("I cannot say", None),
    ],
)  # fmt: skip
def test_one_letter_is_read_from_what_models_write(reply: str, letter: str | None) -> None:
    assert read_letter(reply, 4) == letter


@given(st.text(), st.integers(2, 4))
def test_a_letter_is_always_one_that_was_offered(reply: str, options: int) -> None:
    assert read_letter(reply, options) in {None, *"ABCD"[:options]}


def test_a_repeated_text_is_a_copy_and_a_paraphrase_is_none() -> None:
    assert copies(TEXTS["rivers"], TEXTS["rivers"])
    assert not copies("It keeps streams clean for people who live further down.", TEXTS["rivers"])
