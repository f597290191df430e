"""A student that answers first itself (`initial.endpoint: file`): prompts → initial → generate in one `up`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.containers.project import Project, up_arguments, wait_until

pytestmark = pytest.mark.docker

ORDER = ["doctor", "ready", "fetch", "prompts", "initial", "generate", "audit", "sft", "dpo", "respond"]
PROMPTS = 24
"""Three principles, eight each, so that some are sure to become pairs."""
COUNT_ANSWERS = "cat /runs/own/initial/answered.jsonl | wc -l"
COUNT_SENT = "cat /runs/journal/replies.jsonl | grep -c intent"


@dataclass(frozen=True)
class Killed:
    """What a run left whose `initial` was killed in the middle."""

    returncode: int
    output: str
    states: dict[str, dict[str, Any]]
    answered: list[str]
    """Answers that were on disk."""
    asked_before: int
    """Requests in the journal while `initial` ran."""
    asked_after: int


@pytest.fixture(scope="module")
def project(make_project: Callable[..., Project], toy_clone: Path) -> Project:
    """The toy recipe with a student that answers one prompt after the other."""
    changes = f"initial.endpoint=file respond.batch_size=1 generate.prompts_per_principle={PROMPTS // 3}"
    return make_project(
        toy_clone, "cai-test-initial", environment={"CAI_RECIPE": "toy", "CAI_RUN": "own", "CAI_SET": changes}
    )


@pytest.fixture(scope="module")
def killed(project: Project) -> Killed:
    """Kill `initial` after a few answers."""
    process = project.start(*up_arguments("dpo"))

    def answers() -> int:
        assert process.poll() is None, process.communicate()[0][-3000:]
        container = project.container("initial")
        running = container is not None and container.status == "running"
        return int(project.exec_in("initial", COUNT_ANSWERS) or 0) if running else 0

    wait_until(lambda: answers() >= 2, 300, "initial answered two prompts")
    asked_before = int(project.exec_in("initial", COUNT_SENT))
    project.container("initial").kill("SIGKILL")
    output = process.communicate(timeout=180)[0]
    states = {service: project.state(service) for service in ("initial", "generate", "sft")}
    answered = project.exec_in_volume("cat /runs/own/initial/answered.jsonl").splitlines()
    asked_after = int(project.exec_in_volume(COUNT_SENT))
    return Killed(process.returncode, output, states, answered, asked_before, asked_after)


def test_after_a_failed_initial_generate_asks_for_nothing_and_refuses(killed: Killed) -> None:
    assert killed.returncode != 0, killed.output[-3000:]
    assert killed.states["initial"]["ExitCode"] == 137
    assert killed.states["generate"]["ExitCode"] in {78, 75, 143}, "compose may stop it before it refuses by itself"
    assert killed.asked_after == killed.asked_before
    assert killed.states["sft"]["StartedAt"].startswith("0001")
    assert 2 <= len(killed.answered) < PROMPTS


def test_generate_alone_refuses_and_names_the_command(project: Project, killed: Killed) -> None:
    done = project.up("generate")
    assert done.returncode != 0
    assert project.state("generate")["ExitCode"] == 78, done.stdout[-3000:]
    assert "initial/responses.jsonl" in done.stdout
    assert "respond --system base" in done.stdout
    assert int(project.exec_in_volume(COUNT_SENT)) == killed.asked_after


@pytest.fixture(scope="module")
def finished(project: Project, killed: Killed) -> Project:
    """The same command again, to its end."""
    done = project.up("dpo")
    print(done.stdout[-6000:])
    assert done.returncode == 0
    return project


def test_the_same_command_goes_on_and_does_everything_in_order(finished: Project) -> None:
    assert {service: finished.state(service)["ExitCode"] for service in ORDER} == dict.fromkeys(ORDER, 0)
    for before, stage in pairwise(ORDER):
        assert finished.state(before)["FinishedAt"] <= finished.state(stage)["StartedAt"]


def test_what_was_answered_before_the_kill_is_kept(finished: Project, killed: Killed) -> None:
    measures = finished.read_json("own/initial/manifest.json")["measures"]
    assert measures["resumed_after_answers"] == len(killed.answered)
    files = finished.exec_in_volume("ls /runs/own/initial").split()
    assert "answered.jsonl" not in files


def test_the_manifest_says_that_the_student_spoke_for_itself(finished: Project) -> None:
    measures = finished.read_json("own/generate/manifest.json")["measures"]
    responses = finished.digests("own/initial/responses.jsonl")["own/initial/responses.jsonl"]
    assert measures["initial_kind"] == "file"
    assert measures["initial_responses_sha256"] == responses


def test_a_second_up_does_no_work(finished: Project) -> None:
    before = finished.digests("own/*/manifest.json journal/replies.jsonl")
    again = finished.up("dpo")
    assert again.returncode == 0, again.stdout[-3000:]
    assert finished.digests("own/*/manifest.json journal/replies.jsonl") == before
