from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.common.constitution import load_constitution, read_constitution
from jobs.common.errors import ConfigError
from jobs.common.recipe import PROJECT
from jobs.prepare.constitution_check import check_constitution

Write = Callable[..., Path]


def principle(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "title": f"Care for {name}",
        "text": f"The answer treats {name} with patience and gives {name} a way to be heard by others.",
        "category": "care",
        "source": "our own",
        "critique_request": f"Where does your answer show too little patience with {name}?",
        "revision_request": f"Rewrite the answer with more patience for {name}, and print nothing else.",
    } | changes


DIFFERENT = principle(
    "rivers",
    title="Clean rivers",
    text="Water stays drinkable downstream, whatever a factory upstream might save by dumping its waste.",
    critique_request="Does the answer let a factory poison drinkable water? Quote the line.",
    revision_request="Remove any advice on dumping waste; suggest a lawful, affordable treatment.",
)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(*principles: dict[str, Any], **changes: Any) -> Path:
        head = {"name": "mine", "title": "Mine", "language": "en", "version": 1, "description": "Test."}
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(head | changes | {"principles": list(principles)}, sort_keys=False))
        return path

    return _write


@pytest.mark.parametrize(("name", "count"), [("south_africa", 22), ("romania", 33), ("anthropic", 16)])
def test_shipped_constitutions_are_whole_and_without_faults(name: str, count: int) -> None:
    check_constitution(PROJECT / "constitutions" / f"{name}.yaml")
    constitution = load_constitution(name)
    assert len(constitution.principles) == count
    assert all(len(entry.text.split()) >= 15 for entry in constitution.principles)


def test_south_african_sections_are_cited() -> None:
    sources = [entry.source for entry in load_constitution("south_africa").principles]
    assert sum("Constitution of the Republic of South Africa, 1996" in source for source in sources) >= 15


def test_a_good_file_passes(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    check_constitution(write(principle("people"), DIFFERENT))
    assert "2 principles, no faults" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("principles", "message"),
    [
        ([principle("a"), principle("a")], r"mine\.yaml:\d+: id: duplicate 'a', first used on line \d+"),
        ([], r"mine\.yaml:\d+: principles: .*at least 1 item"),
        ([principle("a", text="")], r"mine\.yaml:\d+: principles\.0\.text: .*found ''"),
        ([principle("a", text="   ")], r"principles\.0\.text"),
        (
            [{key: value for key, value in principle("a").items() if key != "source"}],
            r"principles\.0\.source: .*required",
        ),
        ([principle("Not An Id")], r"principles\.0\.id: .*found 'Not An Id'"),
        ([principle("a", colour="red")], r"mine\.yaml:\d+: principles\.0\.colour: .*found 'red'"),
    ],
    ids=["duplicate id", "no principles", "empty text", "blank text", "no source", "bad id", "unknown key"],
)
def test_a_broken_file_is_named_with_line_field_and_value(
    write: Write, principles: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_constitution(write(*principles))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (principle("people", critique_request="Is this good? Say why or why not."), "critique_request: names nothing"),
        (principle("people", revision_request="Think about patience again."), "does not say what to change"),
        (principle("people", critique_request=""), "critique_request: empty. Run: cai constitution draft"),
        (principle("people") | {"text": DIFFERENT["text"]}, "text is nearly the same as 'rivers''s"),
    ],
    ids=["vague critique", "vague revision", "no critique", "near duplicate"],
)
def test_a_weak_file_is_told_every_fault(
    write: Write, changed: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(DIFFERENT, changed)
    with pytest.raises(ConfigError, match=r"mine\.yaml: \d faults?\. Guide:"):
        check_constitution(path)
    line = next(line for line in capsys.readouterr().err.splitlines() if message in line)
    assert line.startswith(f"{path}:")
    assert "found" in line or "empty" in line


def test_a_file_called_otherwise_than_its_name_is_a_fault(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="1 fault"):
        check_constitution(write(principle("people"), name="yours"))
    assert "name: found 'yours', but the file is called 'mine'" in capsys.readouterr().err


def test_generate_refuses_a_principle_without_requests(write: Write) -> None:
    path = write(principle("people", revision_request=""))
    with pytest.raises(ConfigError, match=r"principle 'people' has no revision_request. Run: cai constitution draft"):
        load_constitution(str(path))


def test_a_demonstration_of_an_unknown_principle_is_named(write: Write) -> None:
    shown = {"principle": "nobody", "prompt": "p", "initial_response": "i", "critique": "c", "revision": "r"}
    with pytest.raises(ConfigError, match=r"principle: no principle has the id 'nobody'"):
        read_constitution(write(principle("people"), few_shot=[shown]))


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"No constitution 'rumania'.*anthropic, romania, south_africa"):
        load_constitution("rumania")


def test_principles_are_found_by_id_and_the_hash_follows_the_content(write: Write) -> None:
    one = load_constitution(str(write(principle("people"), DIFFERENT)))
    assert one.principle("rivers").title == "Clean rivers"
    with pytest.raises(KeyError):
        one.principle("seas")
    two = load_constitution(str(write(principle("people"))))
    assert one.sha256 != two.sha256
