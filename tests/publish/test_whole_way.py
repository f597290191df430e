"""Generated, audited and published: the card shows what the real stages wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from jobs.__main__ import main
from tests.fakes.openai_server import FakeServer
from tests.generate.world import KEY, World, finish_fetch, recipe_text, write_constitution


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def world(tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_constitution(tmp_path / "tiny.yaml")
    text = recipe_text(tmp_path / "tiny.yaml", server.url) + "audit: {on_failure: report}\n"
    (tmp_path / "tiny-recipe.yaml").write_text(text, encoding="utf-8")
    found = World(tmp_path, server)
    finish_fetch(found.context)
    return found


def test_what_generate_and_audit_wrote_is_what_the_card_shows(world: World) -> None:
    common = ["--recipe", world.recipe, "--run", "tiny", "--runs", str(world.runs)]
    assert world.generate() == 0
    assert main(["audit", *common]) == 0
    assert main(["publish", "data", *common, "--licence", "cc-by-4.0", "--dry-run"]) == 0
    folder = world.runs / "tiny" / "publish" / "data"
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert [config["config_name"] for config in yaml.safe_load(head)["configs"]] == ["sft", "prefs"]
    for line in ("## Quality gates", "| length only | ", "| prompt blind | ", "| mean words of chosen and rejected | "):
        assert line in text
    assert "`fake-teacher` at a server in a private network" in text
    assert "127.0.0.1" not in text + (folder / "manifest.json").read_text(encoding="utf-8")
    assert KEY not in "".join(path.read_text(encoding="utf-8", errors="replace") for path in folder.rglob("*.*"))
