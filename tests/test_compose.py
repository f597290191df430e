"""What the compose files promise, read from `docker compose config`, which needs a client and no engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[1]
STAGES = ["doctor", "fetch", "prompts", "initial", "generate", "audit", "sft", "dpo", "respond"]
TRAINERS = ["initial", "sft", "dpo", "respond"]
COMMANDS = {"prompts": ["generate", "--until", "prompts"], "initial": ["respond", "--system", "base"]}
CUDA = ["doctor", *TRAINERS]
KEY = "a-key-that-must-not-show"


@pytest.fixture(scope="module")
def docker() -> list[str]:
    """The command of a docker client with compose; absent ones are brought by docker/engine.sh."""
    plugins = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cai-engine/config"
    for command in (["docker"], ["docker", "--config", str(plugins)]):
        if (
            shutil.which("docker")
            and subprocess.run([*command, "compose", "version"], capture_output=True).returncode == 0
        ):
            return command
    if os.environ.get("CI") == "true":
        pytest.fail("no docker client with compose; .ci/run brings one: docker/engine.sh")
    pytest.skip("no docker client with compose")


def config(docker: list[str], *files: str, profile: str = "dpo", **environment: str) -> dict[str, Any]:
    arguments = [part for file in files or ("compose.yaml",) for part in ("-f", file)]
    command = [*docker, "compose", "--env-file", os.devnull, *arguments, "--profile", profile]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CAI_", "COMPOSE_", "OPENAI_"))}
    done = subprocess.run(
        [*command, "config", "--format", "json"],
        cwd=PROJECT,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


@pytest.fixture(scope="module")
def services(docker: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = config(docker)["services"]
    return found


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("generate", {"fetch", "prompts", "generate", "audit"}),
        ("sft", {"doctor", "ready", "fetch", "prompts", "initial", "generate", "audit", "sft"}),
        ("dpo", {*STAGES, "ready"}),
    ],
)
def test_a_profile_runs_its_stage_and_the_ones_before(docker: list[str], profile: str, expected: set[str]) -> None:
    assert set(config(docker, profile=profile)["services"]) == expected


def test_every_stage_waits_for_the_one_before_to_succeed(services: dict[str, Any]) -> None:
    for before, stage in pairwise(["doctor", "ready", *STAGES[1:]]):
        condition = services[stage]["depends_on"][before]
        assert condition["condition"] == "service_completed_successfully"
        assert condition["required"] is (before not in {"ready", "initial"}), "generate alone must not ask for a GPU"


def test_generate_alone_still_waits_for_its_prompts(docker: list[str]) -> None:
    waits = config(docker, profile="generate")["services"]["generate"]["depends_on"]
    assert waits["prompts"] == {"condition": "service_completed_successfully", "required": True}


def test_ready_does_nothing_and_can_do_nothing(services: dict[str, Any]) -> None:
    assert services["ready"]["entrypoint"] == ["true"]
    assert services["ready"]["network_mode"] == "none"
    assert "secrets" not in services["ready"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_job_is_locked_down(services: dict[str, Any], stage: str) -> None:
    service = services[stage]
    assert service["command"] == COMMANDS.get(stage, [stage])
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "no"
    assert service["stop_grace_period"] == "2m0s"
    assert service["pids_limit"] > 0
    assert "max-size" in service["logging"]["options"]
    assert not {"privileged", "cap_add", "pid", "ipc", "ports", "devices"} & service.keys()
    assert any(mount.startswith("/tmp:exec") for mount in service["tmpfs"])


@pytest.mark.parametrize("stage", STAGES)
def test_only_the_volume_is_writable(services: dict[str, Any], stage: str) -> None:
    mounts = {mount["target"]: mount for mount in services[stage]["volumes"]}
    assert {target for target, mount in mounts.items() if not mount.get("read_only")} == {"/runs"}
    assert mounts["/runs"]["type"] == "volume"
    assert not any("docker.sock" in str(mount.get("source")) for mount in mounts.values())


def test_secrets_go_only_where_they_are_used(services: dict[str, Any]) -> None:
    held = {stage: [secret["source"] for secret in service.get("secrets", [])] for stage, service in services.items()}
    assert {stage: names for stage, names in held.items() if names} == {
        "fetch": ["hf_token"],
        "prompts": ["openai_api_key"],
        "generate": ["openai_api_key", "initial_api_key"],
    }


def test_write_tokens_are_publishs_alone_and_no_up_starts_it(docker: list[str]) -> None:
    found = config(docker, profile="publish")["services"]
    assert set(found) == {"publish"}
    assert [secret["source"] for secret in found["publish"]["secrets"]] == ["hf_write_token", "wandb_api_key"]
    assert found["publish"]["environment"]["HF_WRITE_TOKEN_FILE"] == "/run/secrets/hf_write_token"
    assert found["publish"]["read_only"] is True


def test_the_audit_reaches_no_network(services: dict[str, Any]) -> None:
    assert services["audit"]["network_mode"] == "none"
    assert "secrets" not in services["audit"]


@pytest.mark.parametrize("stage", CUDA)
def test_gpu_jobs_have_no_network(services: dict[str, Any], stage: str) -> None:
    assert services[stage]["network_mode"] == "none"
    assert "networks" not in services[stage]


@pytest.mark.parametrize("stage", CUDA)
def test_gpu_jobs_ask_for_the_gpu_in_the_form_old_compose_obeys(services: dict[str, Any], stage: str) -> None:
    (device,) = services[stage]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}
    assert "gpus" not in services[stage]


@pytest.mark.parametrize("stage", TRAINERS)
def test_trainers_stay_off_the_hub_and_report_to_nobody(services: dict[str, Any], stage: str) -> None:
    environment = services[stage]["environment"]
    assert (
        environment["HF_HUB_OFFLINE"] == environment["DO_NOT_TRACK"] == environment["HF_HUB_DISABLE_TELEMETRY"] == "1"
    )


def test_cpu_jobs_ask_for_no_gpu(services: dict[str, Any]) -> None:
    assert all("deploy" not in services[stage] for stage in ("fetch", "prompts", "generate", "audit"))


@pytest.mark.parametrize("stage", ["prompts", "generate"])
def test_the_teachers_jobs_can_reach_a_model_server_on_the_host(services: dict[str, Any], stage: str) -> None:
    assert services[stage]["extra_hosts"] == ["host.docker.internal=host-gateway"]


def test_one_card_can_be_chosen(docker: list[str]) -> None:
    service = config(docker, CAI_GPU="3")["services"]["sft"]
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["3"]


def test_compose_passes_which_recipe_run_and_changes(docker: list[str]) -> None:
    chosen = {"CAI_RECIPE": "mistral-7b", "CAI_RUN": "ubuntu", "CAI_SET": "dpo.beta=0.05 seed=1"}
    for service in config(docker, **chosen)["services"].values():
        assert chosen.items() <= service["environment"].items()


def test_without_settings_the_demo_recipe_runs(services: dict[str, Any]) -> None:
    assert services["generate"]["environment"]["CAI_RECIPE"] == "demo"


def test_a_key_never_shows_in_the_configuration(docker: list[str], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    found = config(docker, CAI_OPENAI_KEY_FILE=str(key), CAI_HF_TOKEN_FILE=str(key), OPENAI_API_KEY=KEY)
    assert KEY not in json.dumps(found)
    assert found["services"]["doctor"]["environment"]["CAI_KEY_CONFIGURED"] == "yes"


def test_the_cpu_file_drops_every_gpu_request(docker: list[str]) -> None:
    services = config(docker, "compose.yaml", "compose.cpu.yaml")["services"]
    assert set(services) == {*STAGES, "ready"}
    assert all("deploy" not in service for service in services.values())


def test_the_cpu_file_changes_nothing_else(docker: list[str], services: dict[str, Any]) -> None:
    without_gpu = config(docker, "compose.yaml", "compose.cpu.yaml")["services"]
    assert without_gpu == {
        name: {key: value for key, value in service.items() if key != "deploy"} for name, service in services.items()
    }


def test_the_bind_file_swaps_the_volume_for_a_folder(docker: list[str]) -> None:
    for service in config(docker, "compose.yaml", "compose.bind.yaml", CAI_UID="1000")["services"].values():
        (runs,) = (mount for mount in service["volumes"] if mount["target"] == "/runs")
        assert (runs["type"], runs["source"]) == ("bind", str(PROJECT / "runs"))
        assert service["user"] == "1000:10001"


def test_every_variable_of_the_compose_files_is_explained() -> None:
    explained = (PROJECT / ".env.example").read_text(encoding="utf-8")
    for file in PROJECT.glob("compose*.yaml"):
        for part in file.read_text(encoding="utf-8").split("${")[1:]:
            name = part.split("}")[0].split(":")[0]
            assert f"\n#{name}=" in explained, f"{name} of {file.name} is not in .env.example"


@pytest.mark.parametrize("image", ["cpu", "cuda"])
def test_images_let_in_a_list_and_run_as_nobody(image: str) -> None:
    dockerfile = (PROJECT / f"docker/{image}.Dockerfile").read_text(encoding="utf-8")
    ignored = (PROJECT / f"docker/{image}.Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert next(line for line in ignored if not line.startswith("#")) == "*"
    assert "\nUSER 10001:10001\n" in dockerfile
    assert '\nENTRYPOINT ["python", "-m", "jobs"]\n' in dockerfile
    assert "--require-hashes" in dockerfile
    assert "# syntax=" not in dockerfile
