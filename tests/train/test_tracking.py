"""Curves outlive kills: what TensorBoard, trackio and W&B hold after a resume is what an undisturbed run logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobs.common.errors import ConfigError
from jobs.common.recipe import PROJECT
from jobs.train.offline_trackers import Place, Trackio, Wandb
from jobs.train.tracking import Tracker, open_tracker


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        read = EventAccumulator(str(folder / "tensorboard"))
        read.Reload()
    return {tag: [(event.step, round(event.value, 4)) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def open_board(folder: Path) -> Tracker:
    return open_tracker("tensorboard", folder, "demo", "sft", {"sft": {"learning_rate": 2e-4}})


def log(tracker: Tracker, folder: Path, step: int, figures: Mapping[str, float]) -> None:
    """Log as a training loop does: to the tracker and to log.jsonl."""
    tracker.log(step, figures)
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, **figures, "rows": "5f3c"}) + "\n")


def test_tensorboard_shows_every_step_once_after_a_stop_beyond_the_checkpoint(tmp_path: Path) -> None:
    first = open_board(tmp_path)
    for step in range(1, 8):
        first.log(step, {"loss": 1.0, "learning_rate": 0.5})
    first.log(7, {"held_out/loss": 3.0})
    first.close()
    resumed = open_board(tmp_path)
    for step in range(6, 10):
        resumed.log(step, {"loss": 2.0, "learning_rate": 0.25})
    resumed.close()

    found = curves(tmp_path)

    assert found["loss"] == [(step, 1.0) for step in range(1, 6)] + [(step, 2.0) for step in range(6, 10)]
    assert [step for step, _ in found["learning_rate"]] == list(range(1, 10))
    assert found["held_out/loss"] == []


def test_an_evaluation_that_is_all_a_resumed_process_does_keeps_its_steps_own_figures(tmp_path: Path) -> None:
    first = open_board(tmp_path)
    first.log(1, {"loss": 1.0})
    first.log(2, {"loss": 0.5})
    first.close()
    resumed = open_board(tmp_path)
    resumed.log(2, {"held_out/loss": 4.0})
    resumed.close()

    assert curves(tmp_path) == {"loss": [(1, 1.0), (2, 0.5)], "held_out/loss": [(2, 4.0)]}


def test_a_clock_that_went_back_does_not_mix_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for now, loss in [(2e9, 1.0), (1e9, 2.0), (1e9, 3.0)]:
        with monkeypatch.context() as patch:
            patch.setattr("jobs.train.tracking.time.time", lambda now=now: now)
            board = open_board(tmp_path)
            for step in (1, 2):
                board.log(step, {"loss": loss})
            board.close()

    assert curves(tmp_path)["loss"] == [(1, 3.0), (2, 3.0)]


def test_a_killed_process_leaves_every_step_it_logged(tmp_path: Path) -> None:
    script = f"""
import os, pathlib, signal
from jobs.train.tracking import open_tracker
board = open_tracker("tensorboard", pathlib.Path({str(tmp_path)!r}), "demo", "sft", {{}})
for step in range(1, 30):
    board.log(step, {{"loss": 1.0}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=False)

    assert [step for step, _ in curves(tmp_path)["loss"]] == list(range(1, 30))


def test_tensorboard_shows_the_settings(tmp_path: Path) -> None:
    board = open_board(tmp_path)
    board.log(1, {"loss": 1.0})
    board.close()

    assert b'"learning_rate": 0.0002' in next((tmp_path / "tensorboard").iterdir()).read_bytes()


@pytest.mark.parametrize(
    ("kind", "package"), [("wandb", "wandb"), ("trackio", "trackio"), ("tensorboard", "tensorboardX")]
)
def test_a_tracker_that_is_not_installed_is_named_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("TRACKIO_DIR", "")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")

    with pytest.raises(ConfigError, match=rf"tracker: found '{kind}'.*pip install {package};"):
        open_tracker(kind, tmp_path, "demo", "sft", {})

    assert list(tmp_path.iterdir()) == []


@dataclass
class FakeRun:
    """One run of a tracker: rows by step, as W&B and trackio take them."""

    given: dict[str, Any]
    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    finished: bool = False

    def log(self, figures: dict[str, float], step: int) -> None:
        assert not self.finished
        assert not self.rows or step >= self.rows[-1][0], "both refuse a step that falls"
        self.rows.append((step, figures))

    def finish(self) -> None:
        self.finished = True


@dataclass
class FakePackage:
    """Stands for the modules `wandb` and `trackio`."""

    runs: list[FakeRun] = field(default_factory=list)

    def init(self, **given: Any) -> FakeRun:
        print("a tracker says hello on stdout")
        folder = Path(given["dir"]) / "wandb" if "dir" in given else Path(os.environ["TRACKIO_DIR"])
        assert not folder.exists(), "the log of an earlier process is gone"
        folder.mkdir()
        self.runs.append(FakeRun(given))
        return self.runs[-1]

    def finish(self) -> None:
        self.runs[-1].finish()

    def Settings(self, **given: Any) -> dict[str, Any]:
        return given


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_an_offline_log_of_a_resumed_stage_is_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    package, place = FakePackage(), Place(tmp_path, "demo", "sft", {"seed": 1})

    def begin() -> Tracker:
        return Wandb(place, package) if kind == "wandb" else Trackio(place, package)

    killed = begin()
    for step in (1, 2, 3):
        log(killed, tmp_path, step, {"loss": 1 / step})
    log(killed, tmp_path, 3, {"held_out/loss": 9.0})
    resumed = begin()
    for step in (3, 4):
        log(resumed, tmp_path, step, {"loss": 1 / step})
    log(resumed, tmp_path, 4, {"held_out/loss": 2.0})
    resumed.close()

    assert package.runs[-1].rows == [
        *[(step, {"loss": 1 / step}) for step in (1, 2, 3, 4)],
        (4, {"held_out/loss": 2.0}),
    ]
    assert package.runs[-1].finished
    assert package.runs[-1].given["config"] == {"seed": 1}
    if kind == "wandb":
        assert package.runs[-1].given["mode"] == "offline"
        assert package.runs[-1].given["dir"] == str(tmp_path)
    else:
        assert package.runs[-1].given["project"] == "demo-sft"
        assert capsys.readouterr().out == "", "stdout is for results"


def test_a_tracker_that_logged_nothing_leaves_nothing(tmp_path: Path) -> None:
    package, place = FakePackage(), Place(tmp_path, "demo", "sft", {})
    for tracker in (open_board(tmp_path), Wandb(place, package), Trackio(place, package)):
        tracker.close()

    assert list(tmp_path.iterdir()) == []
    assert package.runs == []


REAL = """
import os, pathlib, sys
os.environ["HF_HUB_OFFLINE"] = "1"
from jobs.train.tracking import open_tracker
folder = pathlib.Path(sys.argv[2])
tracker = open_tracker(sys.argv[1], folder, "demo", "sft", {"sft": {"learning_rate": 2e-4}})
for step in (1, 2):
    tracker.log(step, {"loss": 1 / step})
tracker.log(2, {"held_out/loss": 3.0})
tracker.close()
"""


@pytest.mark.parametrize(
    ("kind", "left"), [("wandb", "wandb/offline-run-*/run-*.wandb"), ("trackio", "trackio/demo-sft.db")]
)
def test_the_real_package_writes_inside_the_stage_whatever_the_environment_says(
    tmp_path: Path, kind: str, left: str
) -> None:
    pytest.importorskip(kind, reason="users install it themselves; it is not in the lock")
    elsewhere = {
        "WANDB_MODE": "disabled",
        "TRACKIO_SPACE_ID": "someone/space",
        "TRACKIO_SERVER_URL": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-c", REAL, kind, str(tmp_path)],
        cwd=PROJECT, env=os.environ | elsewhere, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(list(tmp_path.glob(left))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [kind]
