"""From the real trainers on: export, chat and publish by their commands, one run, two templates."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from jobs.__main__ import main
from jobs.common.jsonl import read_json
from jobs.common.stage import RunContext
from jobs.train import dpo, sft

Runs = Callable[..., RunContext]


def command_line(context: RunContext) -> list[str]:
    recipe = context.runs / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(context.recipe.model_dump(mode="json")), encoding="utf-8")
    return ["--recipe", str(recipe), "--run", context.run, "--runs", str(context.runs)]


@pytest.mark.parametrize(("template", "quantization"), [("chatml", "nf4"), ("mistral", "none")])
def test_a_trained_run_is_exported_talked_to_and_published(
    tiny_run: Runs,
    template: str,
    quantization: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    held = {"quantization": quantization, "learning_rate": 1e-2}
    context = tiny_run(template, sft=held, dpo=held)
    common = command_line(context)
    sft.run(context)
    dpo.run(context)

    assert main(["export", *common, "--set", "export.gguf=true"]) == 0
    shown = read_json(context.folder / "export" / "manifest.json")["measures"]
    assert shown["kl_to_trained"] < 1e-9

    monkeypatch.setattr("sys.stdin", io.StringIO("Why share water?\n"))
    capsys.readouterr()
    assert main(["chat", context.run, "--compare", *common]) == 0
    assert "base" in capsys.readouterr().out

    assert main(["publish", "model", *common, "--licence", "apache-2.0", "--dry-run"]) == 0
    published = context.folder / "publish" / "model"
    names = {path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()}
    assert {"model.safetensors", "model.gguf", "sft-curves.png", "dpo/adapter_model.safetensors"} <= names
    text = (published / "README.md").read_text(encoding="utf-8")
    assert "| ubuntu | " in text
    assert f"{shown['kl_to_trained']:.2g} nats per token" in text
    assert str(Path(context.runs)) not in text
