"""Fixtures of the tests of generate: a fake endpoint, and a tiny world where fetch has finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.fakes.openai_server import FakeServer
from tests.generate.world import KEY, World, finish_fetch, recipe_text, write_constitution

# A loaded machine must not turn a slow example into a failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def world(tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_constitution(tmp_path / "tiny.yaml")
    (tmp_path / "tiny-recipe.yaml").write_text(recipe_text(tmp_path / "tiny.yaml", server.url), encoding="utf-8")
    found = World(tmp_path, server)
    finish_fetch(found.context)
    return found
