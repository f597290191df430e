"""`cai publish logs` runs the trackers' own programs; stand-ins for them write down how they were called."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.common.errors import ConfigError, UnavailableError
from jobs.common.recipe import load_recipe
from jobs.common.stage import RunContext
from jobs.publish import logs
from jobs.publish.logs import publish_logs

PROGRAM = """
import json, os, sys
with open(os.path.join({folder!r}, "calls.jsonl"), "a") as file:
    file.write(json.dumps([sys.argv[1:], dict(os.environ), sys.stdin.read()]) + "\\n")
open("debug.log", "w").close()
if os.environ.get("LANG") == "fail":
    print("Traceback", flush=True)
    sys.exit("no route to host for " + (os.environ.get("WANDB_API_KEY") or os.environ["HF_TOKEN"]))
if os.environ.get("LANG") == "hang":
    import time
    time.sleep(60)
"""


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    return RunContext(load_recipe("demo"), "demo", tmp_path / "runs")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which stand-ins for both trackers are installed, and no key is set."""
    packages = tmp_path / "packages"
    for program in (packages / "wandb" / "__main__.py", packages / "trackio" / "cli.py"):
        program.parent.mkdir(parents=True)
        (program.parent / "__init__.py").touch()
        program.write_text(PROGRAM.format(folder=str(tmp_path)))
    monkeypatch.syspath_prepend(str(packages))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages), "WANDB_MODE": "disabled", "OPENAI_API_KEY": "sk"}


def trained(context: RunContext, stage: str, tracker: str, finished: bool = True) -> Path:
    """A stage with a tracker's files."""
    folder = context.folder / stage
    (folder / tracker / "offline-run-20261127_1-x").mkdir(parents=True)
    if finished:
        (folder / "manifest.json").write_text("{}")
    return folder / tracker


def calls(context: RunContext) -> list[tuple[list[str], dict[str, str], str]]:
    path = context.runs.parent / "calls.jsonl"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def test_wandb_gets_the_offline_runs_of_finished_stages_and_the_key_by_its_environment(
    context: RunContext,
    environment: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    context = RunContext(context.recipe, context.run, Path("runs"))
    sft, dpo = trained(context, "sft", "wandb"), trained(context, "dpo", "wandb", finished=False)
    (tmp_path / "key").write_text("secret-key\n")

    publish_logs(context, environment | {"WANDB_API_KEY_FILE": str(tmp_path / "key")})

    [(arguments, seen, asked)] = calls(context)
    assert arguments == ["sync", str(sft.resolve() / "offline-run-20261127_1-x")]
    assert not (tmp_path / "debug.log").exists(), "a program's own log stays out of the working folder"
    assert (seen["WANDB_API_KEY"], asked) == ("secret-key", "")
    assert "WANDB_MODE" not in seen, "it would keep wandb from sending"
    assert "OPENAI_API_KEY" not in seen
    said = capsys.readouterr().err
    assert "dpo has not finished; its log stays here" in said
    assert "the wandb log of sft is sent" in said
    assert "secret-key" not in said
    assert dpo.is_dir()


def test_trackio_sends_each_stage_as_its_own_project_to_a_private_space(
    context: RunContext, environment: dict[str, str]
) -> None:
    trained(context, "sft", "trackio")
    trained(context, "dpo", "trackio")

    publish_logs(context, environment | {"TRACKIO_SPACE_ID": "me/curves", "HF_WRITE_TOKEN": "hf_secret"})

    found = [(arguments, seen["TRACKIO_DIR"], seen["HF_TOKEN"]) for arguments, seen, _ in calls(context)]
    assert found == [
        (
            ["sync", "--project", f"demo-{stage}", "--space-id", "me/curves", "--private", "--force"],
            str((context.folder / stage / "trackio").resolve()),
            "hf_secret",
        )
        for stage in ("sft", "dpo")
    ]


@pytest.mark.parametrize(
    ("tracker", "given", "message"),
    [
        ("wandb", {}, "No W&B key: set WANDB_API_KEY, or WANDB_API_KEY_FILE"),
        ("wandb", {"WANDB_API_KEY_FILE": "/dev/null"}, "No W&B key"),
        ("wandb", {"WANDB_API_KEY_FILE": "/nowhere"}, r"WANDB_API_KEY_FILE: cannot read /nowhere"),
        ("trackio", {"HF_WRITE_TOKEN": "hf_x"}, r"TRACKIO_SPACE_ID: found ''. Expected the Space"),
        ("trackio", {"HF_WRITE_TOKEN": "hf_x", "TRACKIO_SPACE_ID": "--help"}, "TRACKIO_SPACE_ID: found '--help'"),
        ("trackio", {"TRACKIO_SPACE_ID": "me/curves", "HF_TOKEN": "read"}, "No write token: set HF_WRITE_TOKEN"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_sent(
    context: RunContext, environment: dict[str, str], tracker: str, given: dict[str, str], message: str
) -> None:
    trained(context, "sft", tracker)

    with pytest.raises(ConfigError, match=message):
        publish_logs(context, environment | given)

    assert calls(context) == []


def test_a_second_log_that_cannot_be_sent_keeps_the_first_here_too(
    context: RunContext, environment: dict[str, str]
) -> None:
    trained(context, "sft", "wandb")
    trained(context, "dpo", "trackio")

    with pytest.raises(ConfigError, match="TRACKIO_SPACE_ID"):
        publish_logs(context, environment | {"WANDB_API_KEY": "k"})

    assert calls(context) == []


def test_a_tracker_that_is_not_installed_is_named(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(context, "sft", "wandb")
    monkeypatch.setattr(logs, "find_spec", lambda name: None)

    with pytest.raises(ConfigError, match="Run: pip install wandb"):
        publish_logs(context, {"WANDB_API_KEY": "k"})


def test_a_failed_sending_tells_the_programs_last_line_without_the_key(
    context: RunContext, environment: dict[str, str]
) -> None:
    trained(context, "sft", "wandb")

    with pytest.raises(UnavailableError) as raised:
        publish_logs(context, environment | {"WANDB_API_KEY": "secret-key", "LANG": "fail"})

    assert str(raised.value).startswith("wandb: no route to host for *** (exit 1).")


def test_an_address_that_never_answers_is_given_up(
    context: RunContext, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(context, "sft", "wandb")
    monkeypatch.setattr(logs, "PATIENCE_S", 2.0)

    with pytest.raises(UnavailableError, match="wandb: no answer for"):
        publish_logs(context, environment | {"WANDB_API_KEY": "k", "LANG": "hang"})


def test_tensorboards_files_need_no_sending(context: RunContext, capsys: pytest.CaptureFixture[str]) -> None:
    trained(context, "sft", "tensorboard")

    publish_logs(context, {})

    assert f"tensorboard --logdir {context.folder}); nothing to send" in capsys.readouterr().err


def test_a_run_without_training_names_the_command(context: RunContext) -> None:
    with pytest.raises(ConfigError, match=r"nothing is trained yet. Run: cai sft --run demo"):
        publish_logs(context, {})
    trained(context, "sft", "wandb", finished=False)
    with pytest.raises(ConfigError, match=r"sft has not finished. Run: cai sft --run demo"):
        publish_logs(context, {})


def test_a_stage_that_logged_nowhere_says_so_on_the_command_line(
    context: RunContext, capsys: pytest.CaptureFixture[str]
) -> None:
    (context.folder / "sft").mkdir()
    (context.folder / "sft" / "manifest.json").write_text("{}")

    status = main(["publish", "logs", "--recipe", "demo", "--run", "demo", "--runs", str(context.runs)])

    assert status == 78
    assert "sft left no tracker's files" in capsys.readouterr().err
