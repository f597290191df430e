from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.__main__ import STAGES as COMMANDS
from jobs.__main__ import main
from jobs.common.console import StageProgress
from jobs.common.live import Live, Training
from jobs.common.recipe import PROJECT
from jobs.common.runlock import run_lock
from jobs.common.stage import Result, RunContext, StagePlan, open_stage
from jobs.prepare.run_state import holder
from jobs.prepare.status import NOT_ALWAYS, STAGES, run_status, show_status

GENERATING = """
import sys
from pathlib import Path
from jobs.common.console import StageProgress
from jobs.common.live import Live
from jobs.common.recipe import load_recipe
from jobs.common.stage import RunContext, StagePlan, open_stage
context = RunContext(load_recipe("demo"), "demo", Path(sys.argv[1]), given="--recipe my.yaml --set seed=3")
with open_stage(context, StagePlan("generate", {}, ("fetch",), "cpu")) as stage:
    with StageProgress("generate", stage.folder) as progress:
        live = Live(12, 64, 3, tokens_per_s=412.0, spent_usd=0.31, left_usd=1.69)
        progress.update("chains", 120, 400, live=lambda: live)
        print("ready", flush=True)
        sys.stdin.readline()
        {end}
"""


def finish(context: RunContext, name: str, **shown: object) -> None:
    with open_stage(context, StagePlan(name, {}, (), "cpu")) as stage:
        assert stage
        stage.finish(Result([], **shown))  # type: ignore[arg-type]


@contextmanager
def generating(context: RunContext, end: str = "") -> Iterator[subprocess.Popen[str]]:
    """A real process in the middle of generate, with 120 of 400 chains done."""
    command = [sys.executable, "-c", GENERATING.replace("{end}", end), str(context.runs)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=PROJECT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def shown(context: RunContext, capsys: pytest.CaptureFixture[str], run: str | None = "demo") -> list[str]:
    capsys.readouterr()
    show_status(context.runs, run)
    return capsys.readouterr().out.splitlines()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stages_are_those_of_the_command_line() -> None:
    always = [stage for stage in STAGES if stage not in NOT_ALWAYS]
    assert always == [name for name in COMMANDS if name != "doctor" and name not in NOT_ALWAYS]


def test_a_running_stage_is_read_from_another_process_and_nothing_is_touched(
    context: RunContext, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(context, "fetch", counts={"files": 3})
    with generating(context) as process:
        before = files(context.runs)
        head, fetch, generate, *others = shown(context, capsys)
        (line,) = shown(context, capsys, None)
        assert files(context.runs) == before
        host = json.loads(before[str(context.folder / ".lock")])["host"]
    assert head == f"demo ({context.folder})"
    assert fetch.startswith("  fetch     finished   20")
    assert fetch.endswith(" UTC after 0 s · 3 files")
    assert generate == (
        "  generate  running    chains 120/400 · 12 in flight of 64 · 3×429 · 412 tokens/s · "  # noqa: RUF001
        f"$0.31 spent, $1.69 left · process {process.pid} on {host}"
    )
    assert others == ["  sft       not begun", "  dpo       not begun", "  respond   not begun"]
    assert line == "demo  generate running at chains 120/400"


def test_a_killed_stage_is_stopped_and_names_the_command_that_goes_on(
    context: RunContext, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(context, "fetch")
    with generating(context):
        pass
    _, _, generate, go_on, *_ = shown(context, capsys)
    assert generate.startswith("  generate  stopped    at chains 120/400, ")
    assert go_on == f"{' ' * 23}go on with: cai generate --run demo --recipe my.yaml --set seed=3"
    assert shown(context, capsys, None) == ["demo  generate stopped at chains 120/400"]
    assert holder(context.folder) is None


def test_a_finished_stage_tells_rows_tokens_and_cost(context: RunContext, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = {"prompt_tokens": 1200, "reply_tokens": 340, "new_reply_tokens": 40}
    finish(context, "fetch")
    counts, dropped = {"sft": 7, "held_out_prompts": 2}, {"unchanged": 2, "meta_talk": 1}
    finish(context, "generate", counts=counts, dropped=dropped, tokens=tokens, cost_usd=0.0123)
    finish(context, "sft", tokens=tokens)
    finish(context, "dpo", tokens={"rows": 5})
    _, _, generate, sft, dpo, _ = shown(context, capsys)
    assert generate.endswith("2 held out prompts, 7 sft · 3 dropped · tokens: 1200 in, 340 out · $0.0123")
    assert sft.endswith("tokens: 1200 in, 340 out · cost unknown")
    assert dpo.endswith("after 0 s · tokens: 5 rows")
    assert shown(context, capsys, None) == ["demo  fetch, generate, sft, dpo finished, next is respond"]


def test_the_progress_of_an_earlier_process_is_not_taken_for_the_running_one(
    context: RunContext, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = context.folder / "sft"
    folder.mkdir(parents=True)
    with StageProgress("sft", folder) as progress:
        progress.update("training", 3, 20)
    found = json.loads((folder / "progress.json").read_text())
    (folder / "progress.json").write_text(json.dumps(found | {"pid": found["pid"] + 1}))
    with run_lock(context.folder, "sft"):
        assert re.match(r"  sft       running    began \d s ago · process \d+ on ", shown(context, capsys)[3])


def test_old_news_are_told(context: RunContext, capsys: pytest.CaptureFixture[str]) -> None:
    folder = context.folder / "sft"
    folder.mkdir(parents=True)
    with run_lock(context.folder, "sft"), StageProgress("sft", folder) as progress:
        progress.update("training", 3, 20, "loss 1.2", live=Live)
        found = json.loads((folder / "progress.json").read_text())
        (folder / "progress.json").write_text(json.dumps(found | {"updated": time.time() - 600}))
        assert "training 3/20 · loss 1.2 · cost unknown · no news for 10 min · process" in shown(context, capsys)[3]


def test_a_training_stage_shows_its_speed_and_memory(context: RunContext, capsys: pytest.CaptureFixture[str]) -> None:
    folder = context.folder / "sft"
    folder.mkdir(parents=True)
    with run_lock(context.folder, "sft"), StageProgress("sft", folder) as progress:
        progress.update("training", 3, 20, Training(1.25, 14_500.0, 0.41, 13 * 2**30))
        line = shown(context, capsys)[3]
    assert "training 3/20 · loss 1.2500 · 14,500 tokens/s · MFU 41.0% · 13.0 GiB · process" in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"step": "cha', "is damaged: not JSON"),
        (b"\xff\xfe", "is damaged: not JSON"),
        (b"[]", "is damaged: expected a JSON object, found list."),
        (b'{"step": "a", "done": "many", "total": 2, "updated": 0, "pid": 1, "host": "h"}', "is damaged: done: Input"),
        (b'{"step": "a"}', "is damaged: done: Field required."),
    ],
    ids=["cut", "binary", "list", "wrong type", "incomplete"],
)
@pytest.mark.parametrize("running", [True, False])
def test_a_damaged_progress_file_is_named(
    content: bytes, said: str, running: bool, context: RunContext, capsys: pytest.CaptureFixture[str]
) -> None:
    path = context.folder / "generate" / "progress.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    if running:
        with run_lock(context.folder, "generate"):
            line = shown(context, capsys)[2]
    else:
        line = shown(context, capsys)[2]
    assert line.startswith(f"  generate  {'running' if running else 'stopped'}    {path} {said}")


def test_a_damaged_manifest_is_named_with_the_way_out(context: RunContext, capsys: pytest.CaptureFixture[str]) -> None:
    finish(context, "fetch")
    (context.folder / "fetch" / "manifest.json").write_text("{")
    _, fetch, go_on, *_ = shown(context, capsys)
    assert fetch.startswith(f"  fetch     damaged    {context.folder / 'fetch' / 'manifest.json'} is damaged: not JSON")
    assert go_on.endswith("go on with: cai fetch --run demo --redo")
    (context.folder / "fetch" / "begun.json").write_text("{")
    assert "cai fetch --run demo --runs " in shown(context, capsys)[2]


def test_initial_is_shown_once_it_is_begun(context: RunContext) -> None:
    finish(context, "fetch")
    assert [one.stage for one in run_status(context.runs, "demo")] == ["fetch", "generate", "sft", "dpo", "respond"]
    with open_stage(context, StagePlan("initial", {}, (), "cuda")):
        pass
    initial = run_status(context.runs, "demo")[2]
    assert (initial.stage, initial.state, initial.detail) == ("initial", "stopped", "before its first step")
    assert initial.go_on == "cai respond --system base --run demo"


def test_asking_who_holds_a_run_turns_no_stage_away(context: RunContext) -> None:
    with run_lock(context.folder, "fetch"):
        pass
    asked = (context.folder / ".lock").open("rb")
    fcntl.flock(asked, fcntl.LOCK_SH)  # as `cai status` does for a moment
    threading.Timer(0.03, asked.close).start()
    with run_lock(context.folder, "sft"):
        assert holder(context.folder)
    assert holder(context.folder) is None


def test_an_unknown_run_names_the_runs_there_are(context: RunContext, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("two", "one", "models", "journal"):
        (context.runs / name / "fetch").mkdir(parents=True)
    (context.runs / "notes").mkdir()
    assert main(["status", "three", "--runs", str(context.runs)]) == 78
    assert f"Error: No run 'three' in {context.runs}. There are: one, two." in capsys.readouterr().err
    assert main(["status", "../one", "--runs", str(context.runs)]) == 78
    assert main(["status", "one", "--runs", "nowhere"]) == 78
    assert "No folder nowhere yet." in capsys.readouterr().err


def test_the_command_reads_run_and_folder_from_the_environment(
    context: RunContext, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context.runs.mkdir()
    monkeypatch.setenv("CAI_RUNS", str(context.runs))
    assert main(["status"]) == 0
    assert capsys.readouterr().out == f"No runs in {context.runs} yet. Begin with: cai fetch\n"
    (context.runs / "mine" / "fetch").mkdir(parents=True)
    assert main(["status"]) == 0
    assert capsys.readouterr().out == "mine  nothing finished, next is fetch\n"
    monkeypatch.setenv("CAI_RUN", "mine")
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith(f"mine ({context.runs / 'mine'})\n  fetch     not begun\n")


def test_repair_and_audit_are_shown_between_generate_and_sft_where_they_ran(
    context: RunContext, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("fetch", "generate"):
        finish(context, name)
    assert [line.split()[0] for line in shown(context, capsys)[1:]] == ["fetch", "generate", "sft", "dpo", "respond"]

    finish(context, "repair", counts={"pairs": 8}, dropped={"given_up": 2})
    with open_stage(context, StagePlan("audit", {}, (), "cpu")):
        pass  # begun and left: a gate failed, or the machine did

    lines = shown(context, capsys)
    assert [line.split()[:2] for line in lines if "go on with" not in line][1:] == [
        ["fetch", "finished"], ["generate", "finished"], ["repair", "finished"], ["audit", "stopped"],
        ["sft", "not"], ["dpo", "not"], ["respond", "not"],
    ]  # fmt: skip
    assert any("8 pairs · 2 dropped" in line for line in lines)
    assert any("go on with: cai audit --run demo" in line for line in lines)
    assert shown(context, capsys, run=None) == ["demo  audit stopped"]
