"""Shared by every test: no telemetry, no hub, no settings of the user's shell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.common.recipe import load_recipe
from jobs.common.stage import RunContext

os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CAI_", "OPENAI_", "INITIAL_")) and name != "CAI_SEED_DATA":
            monkeypatch.delenv(name)


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    """A demo run in an empty folder."""
    return RunContext(recipe=load_recipe("demo"), run="demo", runs=tmp_path / "runs")
