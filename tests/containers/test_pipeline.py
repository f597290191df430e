"""The production compose file with the demo recipe, once, to its end; then what the engine says about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.containers.project import TRAINERS, Project

pytestmark = pytest.mark.docker

ORDER = ["doctor", "ready", "fetch", "prompts", "initial", "generate", "audit", "sft", "dpo", "respond"]
FINISHED = ["fetch", "generate", "audit", "sft", "dpo", "respond"]
KEY = "a-key-that-must-never-show"
MANIFESTS = "demo/*/manifest.json"


@pytest.fixture(scope="module")
def project(make_project: Callable[..., Project], clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A fresh clone without .env, with a key file that nothing needs."""
    key = tmp_path_factory.mktemp("secret") / "key"
    key.write_text(KEY, encoding="utf-8")
    key.chmod(0o644)
    assert not (clone / ".env").exists()
    return make_project(clone, "cai-test-demo", environment={"CAI_OPENAI_KEY_FILE": str(key)})


@pytest.fixture(scope="module")
def finished(project: Project) -> CompletedProcess[str]:
    """The whole path, run once."""
    done = project.up("dpo")
    print(done.stdout[-6000:])
    assert done.returncode == 0
    return done


@pytest.mark.usefixtures("finished")
def test_every_stage_ended_well(project: Project) -> None:
    assert {service: project.state(service)["ExitCode"] for service in ORDER} == dict.fromkeys(ORDER, 0)
    assert not any(project.state(service)["OOMKilled"] for service in ORDER)


@pytest.mark.usefixtures("finished")
def test_each_stage_started_after_the_one_before_ended(project: Project) -> None:
    for before, stage in pairwise(ORDER):
        assert project.state(before)["FinishedAt"] <= project.state(stage)["StartedAt"]


@pytest.mark.usefixtures("finished")
def test_steps_that_the_recipe_does_not_need_say_one_line(project: Project) -> None:
    for service in ("prompts", "initial"):
        assert len(project.container(service).logs().splitlines()) == 1


@pytest.mark.usefixtures("finished")
def test_the_volume_holds_the_whole_run(project: Project) -> None:
    for stage in FINISHED:
        assert project.read_json(f"demo/{stage}/manifest.json")["stage"] == stage
    files = project.exec_in_volume("cd /runs/demo && ls sft/adapter dpo/adapter respond && find . -name progress.json")
    assert files.split().count("adapter_model.safetensors") == 2
    assert "responses.parquet" in files
    assert "progress.json" not in files


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("service", ORDER)
def test_every_container_was_locked_down(project: Project, service: str) -> None:
    container = project.container(service).attrs
    host = container["HostConfig"]
    assert container["Config"]["User"] == "10001:10001"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["RestartPolicy"]["Name"] == "no"
    assert not any("docker.sock" in mount["Source"] for mount in container["Mounts"])
    writable = {mount["Destination"] for mount in container["Mounts"] if mount["RW"]}
    assert writable == {"/runs"}


@pytest.mark.usefixtures("finished")
def test_the_key_shows_nowhere(project: Project, engine: Any, finished: CompletedProcess[str]) -> None:
    assert KEY not in finished.stdout
    assert KEY not in project.run("config").stdout
    for service in ORDER:
        assert KEY not in json.dumps(project.container(service).attrs)
        assert KEY.encode() not in project.container(service).logs()
    for image in ("cai-cpu", "cai-cuda"):
        assert KEY not in json.dumps([engine.images.get(image).attrs, engine.images.get(image).history()])
    assert project.exec_in_volume(f"grep -rl {KEY} /runs || true") == ""


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("service", ["doctor", *TRAINERS])
def test_gpu_jobs_hold_no_key_and_reach_nobody(project: Project, service: str) -> None:
    assert project.container(service).attrs["HostConfig"]["NetworkMode"] == "none"
    program = (
        "import os, socket\n"
        "print('secrets', os.path.exists('/run/secrets'))\n"
        "print('interfaces', sorted(name for _, name in socket.if_nameindex()))\n"
        "try:\n    socket.create_connection(('192.0.2.1', 443), 3)\n    print('connected')\n"
        "except OSError as error:\n    print('refused', error.errno)\n"
    )
    lines = project.inside(service, program).stdout.splitlines()
    assert "secrets False" in lines
    assert "interfaces ['lo']" in lines
    assert "refused 101" in lines, "expected: network is unreachable"


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("service", ["generate", "sft"])
def test_inside_a_job_nothing_can_be_gained(project: Project, service: str) -> None:
    program = (
        "import os\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(os.getuid(), status['CapEff'].strip(), status['CapBnd'].strip(), status['NoNewPrivs'].strip())\n"
        "for path in ('/app/x', '/opt/venv/x', '/etc/x', '/app/recipes/x', '/app/constitutions/x'):\n"
        "    try:\n        open(path, 'w')\n        print('wrote', path)\n"
        "    except OSError:\n        pass\n"
        "open('/runs/.probe', 'w').close(); os.remove('/runs/.probe')\n"
    )
    done = project.inside(service, program)
    assert done.returncode == 0, done.stdout
    assert "10001 0000000000000000 0000000000000000 1" in done.stdout.splitlines()
    assert "wrote" not in done.stdout


@pytest.mark.usefixtures("finished")
def test_only_fetch_prompts_and_generate_hold_secrets(project: Project) -> None:
    program = "import os; print(sorted(os.listdir('/run/secrets')))"
    assert "['initial_api_key', 'openai_api_key']" in project.inside("generate", program).stdout
    assert "['openai_api_key']" in project.inside("prompts", program).stdout
    assert "['hf_token']" in project.inside("fetch", program).stdout


@pytest.mark.usefixtures("finished")
def test_a_second_up_does_no_work(project: Project) -> None:
    before = project.digests(MANIFESTS)
    journal = project.digests("journal/replies.jsonl")
    again = project.up("dpo")
    assert again.returncode == 0, again.stdout[-3000:]
    assert len(before) == len(FINISHED)
    assert project.digests(MANIFESTS) == before
    assert project.digests("journal/replies.jsonl") == journal
    assert again.stdout.count("already finished") == len(FINISHED)


@pytest.mark.usefixtures("finished")
def test_another_recipe_in_the_same_run_is_refused_and_changes_nothing(project: Project) -> None:
    before = project.digests(MANIFESTS)
    refused = Project(project.engine, project.folder, project.name, environment={"CAI_SET": "seed=7"}).up("dpo")
    assert refused.returncode != 0
    assert "seed" in refused.stdout
    assert project.digests(MANIFESTS) == before


@pytest.mark.usefixtures("finished")
def test_make_results_copies_the_run_out(project: Project) -> None:
    from subprocess import run

    from tests.containers.project import OUTSIDE

    done = run(
        ["make", "results", "RUN=demo"],
        cwd=project.folder,
        env=OUTSIDE | {"COMPOSE_PROJECT_NAME": project.name},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (project.folder / "results/demo/respond/responses.parquet").stat().st_size > 0
