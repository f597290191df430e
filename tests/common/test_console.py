from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.common.console import StageProgress, say
from jobs.common.live import Live, Training
from jobs.common.recipe import PROJECT


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def saved(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    return found


def test_progress_json_holds_everything_a_program_wants(tmp_path: Path) -> None:
    clock, live = Clock(), Live(in_flight=3, limit=8, throttled=2, spent_usd=0.5)
    with StageProgress("generate", tmp_path, clock) as progress:
        progress.update("chains", 0, 40, live=lambda: live)
        clock.now += 10
        progress.update("chains", 10, 40, "2 batches", live=lambda: live)
        found = saved(tmp_path)
    assert found.pop("updated") == pytest.approx(time.time(), abs=60)
    assert found.pop("host")
    assert found == {
        "stage": "generate",
        "step": "chains",
        "done": 10,
        "total": 40,
        "figures": "2 batches",
        "training": None,
        "live": asdict(live),
        "eta_s": 30,
        "state": "running",
        "pid": os.getpid(),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_a_stage_that_is_stopped_leaves_its_last_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train() -> None:
        with StageProgress("sft", tmp_path, Clock()) as progress:
            for step in range(1, 8):
                progress.update("training", step, 20, f"loss {step}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    found = saved(tmp_path)
    assert (found["done"], found["figures"], found["state"], found["live"]) == (7, "loss 7", "stopped", None)
    assert capsys.readouterr().err.splitlines() == ["sft: training 1/20  loss 1", "sft: training 7/20  loss 7"]


def test_a_trainers_figures_are_one_line_for_people_and_numbers_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    with StageProgress("sft", tmp_path, clock) as progress:
        progress.update("training", 0, 500)
        clock.now += 20
        progress.update("training", 20, 500, Training(1.23456, 61_234.4, 0.4512, 13 * 2**30))
        found = saved(tmp_path)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "sft: training 20/500  loss 1.2346 · 61,234 tokens/s · MFU 45.1% · 13.0 GiB · ETA 8 min"
    )
    assert found["training"] == {
        "loss": 1.23456,
        "tokens_per_s": 61_234.4,
        "mfu": 0.4512,
        "gpu_memory_bytes": 13 * 2**30,
    }
    assert (found["figures"], found["eta_s"]) == ("loss 1.2346 · 61,234 tokens/s · MFU 45.1% · 13.0 GiB", 480)


def test_what_a_trainer_does_not_know_is_left_out_of_its_line() -> None:
    assert Training(2.0).line() == "loss 2.0000"
    assert Training(2.0, tokens_per_s=285.0).line() == "loss 2.0000 · 285 tokens/s"


def test_a_disk_that_fills_up_does_not_hide_the_error_that_stopped_the_stage(tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    folder.mkdir()

    def train() -> None:
        with StageProgress("sft", folder) as progress:
            progress.update("training", 1, 20)
            (folder / "progress.json").unlink()
            folder.rmdir()  # no file can be written here any more
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()


def test_plain_lines_come_every_10_s_and_every_60_s_where_nothing_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, shown = Clock(), []
    with StageProgress("generate", tmp_path, clock) as progress:
        for second in range(300):
            done = min(second, 100)
            progress.update("chains", done, 400, live=lambda: Live(in_flight=5, limit=9))
            if capsys.readouterr().err:
                shown.append(second)
            clock.now += 1.0
    assert shown == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 160, 220, 280]


def test_an_end_is_told_at_once_and_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress("generate", tmp_path, Clock()) as progress:
        for done in (0, 2, 3, 3, 3):
            progress.update("red-team prompts", done, 3)
        progress.update("chains", 0, 3)
        progress.update("chains", 3, 3)
        assert saved(tmp_path)["step"] == "chains"
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["generate: red-team prompts 0/3", "generate: red-team prompts 3/3", "generate: chains 3/3"]


def test_nothing_is_told_after_the_summary_of_a_stage_that_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StageProgress("sft", tmp_path, Clock()) as progress:
        progress.update("held-out batches", 2, 2)
        progress.update("training", 1, 1)
        progress.update("held-out batches", 1, 2)
        progress.update("held-out batches", 2, 2)
        say("sft: loss 2 → 1")
    assert capsys.readouterr().err.splitlines()[-1] == "sft: loss 2 → 1"
    assert saved(tmp_path)["step"] == "held-out batches"


def test_figures_are_asked_for_only_when_shown(tmp_path: Path) -> None:
    clock, asked = Clock(), []

    def live() -> Live:
        asked.append(clock.now)
        return Live()

    with StageProgress("generate", tmp_path, clock) as progress:
        for done in range(5000):
            progress.update("chains", done, 10_000, live=live)
            clock.now += 0.001
        assert len(asked) == 5


def test_an_update_that_shows_nothing_looks_at_the_clock_and_calls_nothing_else(tmp_path: Path) -> None:
    called: list[str] = []
    with StageProgress("generate", tmp_path, Clock()) as progress:
        progress.update("chains", 0, 10**6, live=Live)
        sys.setprofile(lambda frame, event, _: called.append(f"{event} {frame.f_code.co_name}"))
        try:
            progress.update("chains", 1, 10**6, live=Live)
        finally:
            sys.setprofile(None)
    assert [one for one in called if "return" not in one][:-1] == ["call update", "call __call__"]


def test_a_terminal_keeps_the_bar_whole_and_the_figures_below_it(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from jobs.common.console import StageProgress; from jobs.common.live import Live\n"
        "live = Live(12, 64, 3, journalled=12, tokens_per_s=412, spent_usd=.31, left_usd=1.69)\n"
        f"with StageProgress('generate', Path({str(tmp_path)!r})) as progress:\n"
        "    progress.update('chains', 120, 400, live=lambda: live)\n"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "60", "LINES": "20", "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, env=environment, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "120/400" in shown
    assert "12 in flight of 64" in shown
    assert "$1.69 left" in " ".join(shown.split())
