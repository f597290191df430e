"""Jobs that are killed or stopped in the middle go on where they were, and end with the same result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import Popen

import pytest

from tests.containers.project import Project, journal_keys, up_arguments, wait_until

pytestmark = pytest.mark.docker

JOURNAL = "journal/replies.jsonl"
ADAPTER = "sft/adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def project(make_project: Callable[..., Project], toy_clone: Path) -> Project:
    """A project with the toy recipe; its runs share one volume and one journal."""
    return make_project(toy_clone, "cai-test-stop", environment={"CAI_RECIPE": "toy", "CAI_RUN": "calm"})


def running(project: Project, service: str, process: Popen[str]) -> bool:
    assert process.poll() is None, process.communicate()[0][-3000:]
    container = project.container(service)
    return container is not None and container.status == "running"


def journal_of(project: Project) -> list[str]:
    return list(journal_keys(project.exec_in_volume(f"cat /runs/{JOURNAL} 2>/dev/null || true")))


@pytest.fixture(scope="module")
def killed(project: Project) -> list[str]:
    """Kill generate in the middle; the keys of the replies it had journalled."""
    process = project.start(*up_arguments("generate"), profile="generate")
    wait_until(lambda: running(project, "generate", process), 120, "generate runs")
    count = f"cat /runs/{JOURNAL} | grep -c paid"
    wait_until(lambda: int(project.exec_in("generate", count) or 0) >= 8, 240, "generate journalled eight replies")
    project.container("generate").kill("SIGKILL")
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert project.state("generate")["ExitCode"] == 137
    return journal_of(project)


@pytest.fixture(scope="module")
def calm(project: Project, killed: list[str]) -> Project:
    """The same run, gone on with to the end of sft, undisturbed."""
    done = project.up("sft")
    assert done.returncode == 0, done.stdout[-3000:]
    return project


def test_after_a_kill_no_journalled_reply_is_asked_for_again(calm: Project, killed: list[str]) -> None:
    after = journal_of(calm)
    assert after[: len(killed)] == killed, "the journal only grows"
    assert len(after) > len(killed), "the kill came before the end"
    assert len(set(after)) == len(after), "a reply was asked for twice"


def test_the_killed_run_finished(calm: Project) -> None:
    assert calm.read_json("calm/generate/manifest.json")["stage"] == "generate"


def test_after_a_stop_in_sft_the_adapter_is_the_same(calm: Project) -> None:
    calm.exec_in_volume("mkdir -p /runs/stopped && cp -a /runs/calm/fetch /runs/calm/generate /runs/stopped/")
    stopped = replace(calm, environment=calm.environment | {"CAI_RUN": "stopped"})
    process = stopped.start(*up_arguments("sft"), profile="sft")
    wait_until(lambda: running(stopped, "sft", process), 120, "sft runs")
    steps = "cat /runs/stopped/sft/log.jsonl | grep -c '\"loss\"' || true"  # lines of held-out figures are in it too
    wait_until(lambda: int(stopped.exec_in("sft", steps)) >= 2, 240, "sft made two steps")
    stopped.container("sft").kill("SIGTERM")
    output = process.communicate(timeout=180)[0]
    assert process.returncode != 0
    assert stopped.state("sft")["ExitCode"] == 75, output[-3000:]
    assert stopped.exec_in_volume("ls /runs/stopped/sft | grep manifest || true") == "", "it must not look finished"
    done = stopped.up("sft")
    assert done.returncode == 0, done.stdout[-3000:]
    assert 2 <= stopped.read_json("stopped/sft/manifest.json")["measures"]["resumed_from_step"] < 8
    before, after = stopped.digests(f"calm/{ADAPTER} stopped/{ADAPTER}").values()
    assert before == after
