"""The commands around compose: exit codes, a machine without the GPU it asks for, the key, the detached run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers.project import BUILD, CHECKOUT, OUTSIDE, Project, wait_until

pytestmark = pytest.mark.docker

NEVER = "0001-01-01T00:00:00Z"
READ_KEY = "import os, pathlib; print(len(pathlib.Path(os.environ['OPENAI_API_KEY_FILE']).read_text()))"
NO_GPU = pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has the GPU that the test misses")


@pytest.fixture
def project(make_project: Callable[..., Project], toy_clone: Path) -> Project:
    return make_project(toy_clone, "cai-test-commands", environment={"CAI_RECIPE": "toy"})


def run_script(project: Project, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = OUTSIDE | BUILD | project.environment | {"COMPOSE_PROJECT_NAME": project.name, "BUILD": "--no-build"}
    return subprocess.run(
        command, cwd=project.folder, env=settings | environment, capture_output=True, text=True, timeout=600
    )


@NO_GPU
def test_without_the_gpu_it_asks_for_nothing_is_fetched_or_paid(project: Project) -> None:
    project.files = ("compose.yaml",)
    done = project.up("dpo")
    assert done.returncode != 0
    assert 'could not select device driver "nvidia"' in done.stdout
    assert [project.state(service)["StartedAt"] for service in ("ready", "fetch", "generate", "sft")] == [NEVER] * 4


@NO_GPU
def test_make_adds_the_line_that_helps(project: Project) -> None:
    done = run_script(project, "make", "dpo", GPU="1")
    assert done.returncode == 2
    assert "nvidia-container-toolkit" in done.stderr
    assert "Error 78" in done.stderr


@NO_GPU
def test_make_chooses_the_cpu_by_itself(project: Project) -> None:
    done = run_script(project, "make", "generate", CAI_SET="generate.unknown=1")
    assert "adding compose.cpu.yaml" in done.stderr


def test_a_failed_doctor_stops_everything_after_it(project: Project) -> None:
    done = run_script(project, "docker/up.sh", "sft", CAI_SET="teacher.endpoint=api")
    assert done.returncode == 78, done.stderr[-2000:]
    assert "doctor ended with 78" in done.stderr
    assert project.state("fetch")["StartedAt"] == NEVER


@pytest.mark.parametrize(("changes", "code"), [("generate.unknown=1", 78), ("seed", 78)])
def test_the_scripts_end_with_the_code_of_the_failed_container(project: Project, changes: str, code: int) -> None:
    assert run_script(project, "docker/up.sh", "generate", CAI_SET=changes).returncode == code


def test_a_key_is_installed_for_the_containers_user_alone(project: Project) -> None:
    secret = "a-key-that-must-never-show"
    done = subprocess.run(
        ["make", "key"], cwd=project.folder, env=OUTSIDE, input=f" {secret}\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert secret not in done.stdout + done.stderr
    path = project.folder / ".secrets/openai_api_key"
    assert (path.stat().st_uid, oct(path.stat().st_mode & 0o777)) == (10001, "0o400")
    try:
        assert f"{len(secret)}\n" in project.inside("generate", READ_KEY).stdout
        assert secret not in project.run("config").stdout
    finally:
        path.unlink()
        (project.folder / ".env").unlink()


def test_an_empty_key_is_refused(project: Project) -> None:
    done = subprocess.run(["make", "key"], cwd=project.folder, env=OUTSIDE, input="\n", capture_output=True, text=True)
    assert done.returncode != 0
    assert not (project.folder / ".secrets/openai_api_key").exists()
    assert not (project.folder / ".env").exists()


def test_a_folder_in_place_of_the_volume(make_project: Callable[..., Project], toy_clone: Path) -> None:
    owner = {"CAI_UID": "1234", "CAI_GID": "1234", "CAI_RECIPE": "toy"}
    files = ("compose.yaml", "compose.cpu.yaml", "compose.bind.yaml")
    project = make_project(toy_clone, "cai-test-bind", files=files, environment=owner)
    missing = project.run("up", "fetch")
    assert missing.returncode != 0
    assert "bind source path does not exist" in missing.stdout
    runs = toy_clone / "runs"
    runs.mkdir()
    os.chown(runs, 1234, 1234)
    done = project.run("run", "--rm", "--no-deps", "-T", "fetch")
    assert done.returncode == 0, done.stdout[-2000:]
    assert {path.stat().st_uid for path in runs.rglob("*")} == {1234}


def test_a_detached_run_outlives_its_terminal(project: Project) -> None:
    done = run_script(project, "make", "dpo-detached", CAI_SET="generate.unknown=1")
    assert done.returncode == 0, done.stderr
    for word in ("follow:", "stop:", "results:"):
        assert word in done.stderr
    (log,) = (project.folder / "logs").glob("dpo-*.log")
    wait_until(lambda: "ended with 78" in log.read_text(), 180, "the detached run ended")


def test_the_engine_script_leaves_a_running_engine_alone() -> None:
    done = subprocess.run([CHECKOUT / "docker/engine.sh", "up"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "DOCKER_HOST" not in done.stdout
