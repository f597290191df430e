"""The launcher: what it refuses to start, and where its processes meet."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.train import launch

DDP = Path(__file__).resolve().parents[2] / "recipes" / "accelerate" / "ddp.yaml"


def changed(folder: Path, **changes: object) -> str:
    """A configuration like ours but for these keys; None takes one out."""
    values = yaml.safe_load(DDP.read_text()) | changes
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_processes": 0}, "num_processes is 0, expected 1 or more"),
        ({"num_processes": None}, "accelerate cannot use it (You need to manually pass in `--num_processes`"),
        ({"num_processes": "two"}, "accelerate cannot use it (invalid literal for int() with base 10: 'two')"),
        ({"distributed_type": None}, "accelerate cannot use it (A `distributed_type` must be specified"),
        ({"num_proceses": 2}, "had unknown keys (['num_proceses'])"),
    ],
    ids=["no process", "not said", "no number", "which kind", "unknown key"],
)
def test_a_configuration_that_starts_nothing_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    config = changed(tmp_path, **changes)

    assert launch.main([config, "sft"]) == 78

    said = capsys.readouterr().err
    assert said.startswith(f"{config}: ")
    assert message in said
    assert said.endswith("Take recipes/accelerate/ddp.yaml or fsdp.yaml and set num_processes.\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("text", ["distributed_type: [", "", "[1]", "\x00"], ids=["broken", "empty", "list", "binary"])
def test_a_file_that_is_no_configuration_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)

    assert launch.main([str(tmp_path / "config.yaml"), "dpo"]) == 78
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_shown_once_and_nothing_is_started(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.setattr(launch, "_start", pytest.fail)

    assert launch.main([str(DDP), "sft", option]) == 0
    assert capfd.readouterr().out.count("Usage: cai sft [OPTIONS]") == 1


def test_the_port_is_held_before_any_process_is_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[int] = []

    def start(command: list[str], environment: dict[str, str], rank: int) -> subprocess.Popen[bytes]:
        with socket.create_connection((environment["MASTER_ADDR"], int(environment["MASTER_PORT"])), timeout=60):
            met.append(rank)
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(launch, "_start", start)

    assert launch.main([str(DDP), "sft"]) == 0
    assert met == [0, 1]
