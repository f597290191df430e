"""The command line: exit codes and one clear line, as design and README promise them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import STAGES, main
from jobs.common.recipe import PROJECT


def cai(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=PROJECT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_every_stage_in_the_order_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    positions = [shown.index(f"\n  {name} ") for name in STAGES]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["sfft"], 2, "No such command 'sfft'"),
        (["sft", "--recipe", "none"], 78, "Error: No recipe 'none' in recipes/."),
        (["sft", "--set", "dpo.betta=1"], 78, "Error: --set: unknown key 'dpo.betta'. Did you mean 'dpo.beta'?"),
        (["fetch", "--run", "../x"], 78, "Error: --run '../x': use letters, digits"),
        (["fetch", "--run", "models"], 78, "that name is taken by the folder runs/models"),
        (["constitution", "check", "nowhere.yaml"], 78, "Error: nowhere.yaml does not exist."),
        (["import"], 78, "Error: cai import: nothing to import."),
        (["publish", "data"], 2, "Missing option '--licence'"),
    ],
)
def test_a_mistake_is_one_line_and_its_exit_code(
    arguments: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert line in capsys.readouterr().err


def test_the_environment_says_what_the_options_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"CAI_RUNS": str(tmp_path), "CAI_RUN": "mine", "CAI_SET": "seed=3 dpo.beta=0.2"}.items():
        monkeypatch.setenv(name, value)
    assert main(["dpo"]) == 78
    assert f'No finished "fetch" stage in {tmp_path}/mine' in capsys.readouterr().err.replace("\n", "")


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_context: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("jobs.prepare.fetch.run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["fetch"])


def test_runs_that_is_a_file_is_named() -> None:
    done = cai("fetch", "--runs", "Makefile")
    assert done.returncode == 78
    assert "Cannot write Makefile/demo: Not a directory" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_stops_with_75_and_loses_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], check=True)
    try:
        done = cai("fetch", "--runs", str(tmp_path))
        assert done.returncode == 75, done.stderr
        assert "Disk full while writing" in done.stderr
        assert not list(tmp_path.rglob("manifest.json"))
        assert not list(tmp_path.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a read-only disk needs root")
def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(tmp_path)], check=True)
    try:
        done = cai("fetch", "--runs", str(tmp_path))
        assert done.returncode == 78, done.stderr
        assert "Cannot write" in done.stderr
        assert "Read-only file system" in done.stderr
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_with_its_exit_code_and_no_traceback(number: signal.Signals, code: int) -> None:
    script = (
        "import sys, time, jobs.__main__ as m, jobs.prepare.fetch as f\n"
        "def run(context):\n    print('ready', flush=True); time.sleep(600)\n"
        "f.run = run\nsys.exit(m.main(['fetch']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "same command to go on" in errors


def test_a_finished_stage_answers_in_under_a_second_of_work(tmp_path: Path) -> None:
    assert cai("fetch", "--runs", str(tmp_path)).returncode == 0
    children = os.times().children_user
    done = cai("fetch", "--runs", str(tmp_path))
    used = os.times().children_user - children
    assert "already finished" in done.stderr
    assert used < 1.0, f"{used} s of processor time"
