"""The real embedded server with its real weights, small."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from jobs.common.errors import ConfigError
from jobs.common.settings import Recipe
from jobs.generate.embedded import Slots, serve
from jobs.generate.opening import context_tokens
from jobs.prepare.embedded_weights import place_embedded_gguf
from tests.generate.world import World, finish_fetch, write_constitution

RECIPE = """
constitution: {constitution}
teacher: {{endpoint: embedded, concurrency: 1}}
generate:
  prompts_per_principle: 2
  prompts_per_request: 1
  prompt_tokens: 36
  response_tokens: 32
  critique_tokens: 28
  held_out_fraction: 0.34
  benign_twins: false
  balance: false
  max_revisions: 1
judge: {{rule: "off"}}
"""


@pytest.fixture
def embedded_world(tmp_path: Path, server: object) -> World:
    write_constitution(tmp_path / "tiny.yaml")
    (tmp_path / "tiny-recipe.yaml").write_text(RECIPE.format(constitution=tmp_path / "tiny.yaml"), encoding="utf-8")
    return World(tmp_path, server)  # type: ignore[arg-type]


def test_a_real_run_needs_no_key_and_says_what_a_small_teacher_is_for(
    embedded_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    gguf = place_embedded_gguf(embedded_world.context.models)
    finish_fetch(embedded_world.context, gguf.relative_to(embedded_world.runs.resolve()).as_posix())
    code = embedded_world.generate()
    shown = capsys.readouterr().err
    assert code == 0, shown
    assert "shows the machinery, not quality" in shown
    assert "cai generate --recipe smollm2-135m" in shown
    manifest = embedded_world.manifest()
    assert manifest["counts"]["prompts"] == 6
    assert manifest["measures"]["teacher_endpoint"].startswith("embedded:")
    assert manifest["cost_usd"] == 0.0
    assert manifest["tokens"]["new_reply_tokens"] > 30
    asked = sum(bool(line) for line in (embedded_world.runs / "journal" / "replies.jsonl").read_bytes().split(b"\n"))
    assert embedded_world.generate("--redo") == 0
    again = (embedded_world.runs / "journal" / "replies.jsonl").read_bytes().split(b"\n")
    assert sum(bool(line) for line in again) == asked


def test_the_server_takes_a_schema_and_ends_with_the_block(tmp_path: Path) -> None:
    gguf = place_embedded_gguf(tmp_path)
    with serve(gguf, Slots(parallel=2, context_tokens=512), "again") as served:
        urls = served.urls
        assert served.slots == 2
        assert all(url.startswith("http://127.0.0.1:") for url in urls)
        schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
        body = {
            "messages": [{"role": "user", "content": "Is water wet?"}],
            "max_tokens": 24,
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        }
        request = urllib.request.Request(
            f"{urls[0]}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as reply:
            text = json.load(reply)["choices"][0]["message"]["content"]
        assert isinstance(json.loads(text)["yes"], bool)
    with pytest.raises(OSError, match=r"refused|reset"):
        urllib.request.urlopen(f"{urls[0]}/models", timeout=2)


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF no more")
    message = r"x\.gguf cannot be served: .* Run: again$"
    with pytest.raises(ConfigError, match=message), serve(tmp_path / "x.gguf", Slots(1, 512), "again"):
        pass


def test_missing_weights_name_fetch(embedded_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    finish_fetch(embedded_world.context, "models/gone.gguf")
    assert embedded_world.generate() == 78
    advice = capsys.readouterr().err
    assert "Run: cai fetch --run tiny" in advice
    assert "--redo" in advice


def test_the_context_holds_the_longest_chat() -> None:
    recipe = Recipe()
    wanted = 2 * recipe.generate.response_tokens + recipe.generate.critique_tokens
    assert context_tokens(recipe) > wanted + 1000
    assert context_tokens(recipe) % 256 == 0
