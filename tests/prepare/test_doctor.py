"""Doctor's findings on machines that the tests lay out in a temporary folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.common.errors import ConfigError
from jobs.common.recipe import load_recipe
from jobs.common.stage import RunContext
from jobs.prepare import doctor
from jobs.prepare.doctor_gpu import check_gpu, cuda_devices, find_driver
from jobs.prepare.doctor_keys import check_keys
from jobs.prepare.doctor_machine import Check, Machine

KERNEL = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Release Build\n"


def machine_with(tmp_path: Path, *, driver: str = "", container: bool = False, **environment: str) -> Machine:
    root = tmp_path / "root"
    root.mkdir()
    if driver:
        version = root / "proc/driver/nvidia/version"
        version.parent.mkdir(parents=True)
        version.write_text(KERNEL.format(driver))
    if container:
        (root / ".dockerenv").touch()
    return Machine(environment={"PATH": str(root / "bin")} | environment, root=root, uid=os.getuid())


def keys_of(machine: Machine, tmp_path: Path, *changes: str) -> list[Check]:
    return list(check_keys(machine, load_recipe("demo", changes), project=tmp_path))


@pytest.mark.parametrize(
    ("driver", "devices", "level", "says"),
    [
        pytest.param("", 0, "warn", "use the CPU", id="no driver"),
        pytest.param("470.256.02", 1, "fail", "470.256.02 is too old for CUDA 12", id="too old"),
        pytest.param("535.183.01", 1, "ok", "minor-version compatibility", id="old enough to need compatibility"),
        pytest.param("580.65.06", 2, "ok", "driver 580.65.06, 2 GPUs", id="new"),
        pytest.param("580.65.06", "cuInit answered 804", "fail", "cuInit answered 804", id="driver and library differ"),
        pytest.param("580.65.06", 0, "fail", "shows no device", id="no device"),
    ],
)
def test_gpu_line_names_driver_and_verdict(
    tmp_path: Path, driver: str, devices: int | str, level: str, says: str
) -> None:
    check = check_gpu(machine_with(tmp_path, driver=driver), real_model=False, count_devices=lambda: devices)
    assert check.level == level
    assert says in check.text


def test_a_container_without_the_gpu_of_its_machine_is_told_so(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, driver="580.65.06", container=True)
    check = check_gpu(machine, real_model=True, count_devices=lambda: "libcuda.so.1 is missing")
    assert (check.level, "compose.cpu.yaml" in check.text) == ("warn", True)


def test_a_gpu_that_was_handed_in_and_does_not_work_fails(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, driver="580.65.06", container=True, NVIDIA_VISIBLE_DEVICES="0")
    assert check_gpu(machine, real_model=True, count_devices=lambda: "cuInit answered 999").level == "fail"


def test_no_gpu_is_said_more_clearly_for_a_real_model(tmp_path: Path) -> None:
    assert "days" in check_gpu(machine_with(tmp_path), real_model=True).text


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param("echo 570.124.06", "570.124.06", id="answers"),
        pytest.param("echo 'Failed to initialize NVML'; exit 18", None, id="fails"),
    ],
)
def test_driver_version_comes_from_nvidia_smi(tmp_path: Path, script: str, expected: str | None) -> None:
    machine = machine_with(tmp_path)
    program = machine.root / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert find_driver(machine) == expected


@pytest.mark.parametrize(
    ("gpus", "level", "says"),
    [
        pytest.param("Tesla T4, 7.5", "fail", "Tesla T4 has compute capability 7.5", id="too old for bf16"),
        pytest.param("Tesla T4, 7.5\nNVIDIA L4, 8.9", "ok", "driver 570.124.06, 1 GPU", id="one of them has it"),
        pytest.param("NVIDIA H100 80GB HBM3, 9.0", "ok", "driver 570.124.06, 1 GPU", id="has it"),
        pytest.param("[N/A]", "ok", "driver 570.124.06, 1 GPU", id="not told"),
    ],
)
def test_a_gpu_that_training_would_refuse_fails_before_anything_is_paid(
    tmp_path: Path, gpus: str, level: str, says: str
) -> None:
    machine = machine_with(tmp_path)
    program = machine.root / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncase $1 in *driver*) echo 570.124.06 ;; *) echo '{gpus}' ;; esac\n")
    program.chmod(0o755)
    check = check_gpu(machine, real_model=True, count_devices=lambda: 1)
    assert check.level == level
    assert says in check.text


def test_cuda_answers_with_a_count_or_a_reason() -> None:
    assert isinstance(cuda_devices(), int | str)


def test_the_embedded_teacher_needs_no_key(tmp_path: Path) -> None:
    assert [check.level for check in keys_of(machine_with(tmp_path), tmp_path)] == ["ok"]


@pytest.mark.parametrize(
    ("environment", "level"),
    [
        pytest.param({}, "fail", id="nothing"),
        pytest.param({"OPENAI_API_KEY": ""}, "fail", id="empty value"),
        pytest.param({"OPENAI_API_KEY": "not-to-be-shown"}, "ok", id="value"),
        pytest.param({"CAI_KEY_CONFIGURED": "yes"}, "ok", id="compose has one"),
        pytest.param({"CAI_KEY_CONFIGURED": ""}, "fail", id="compose has none"),
        pytest.param({"OPENAI_BASE_URL": "http://gpu-server:8000/v1"}, "warn", id="own server may need none"),
    ],
)
def test_a_remote_teacher_needs_a_key(tmp_path: Path, environment: dict[str, str], level: str) -> None:
    key = keys_of(machine_with(tmp_path, **environment), tmp_path, "teacher.endpoint=api")[0]
    assert (key.topic, key.level) == ("key", level)
    assert "not-to-be-shown" not in key.text


@pytest.mark.parametrize(
    ("write", "says"),
    [
        pytest.param(lambda path: None, "does not exist", id="missing"),
        pytest.param(lambda path: path.write_text("\n"), "is empty", id="empty"),
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe\x00"), "cannot be read", id="not text"),
        pytest.param(lambda path: path.mkdir(), "cannot be read", id="folder"),
    ],
)
def test_a_bad_key_file_is_named(tmp_path: Path, write: Callable[[Path], object], says: str) -> None:
    path = tmp_path / "key"
    write(path)
    key = keys_of(machine_with(tmp_path, OPENAI_API_KEY_FILE=str(path)), tmp_path, "teacher.endpoint=api")[0]
    assert key.level == "fail"
    assert str(path) in key.text
    assert says in key.text


def test_an_unreadable_key_names_its_owner_and_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_text("not-to-be-shown")
    path.chmod(0o600)
    recipe = load_recipe("demo", ["teacher.endpoint=api"])

    def refuse(*_: object, **__: object) -> str:  # root, who runs some tests, reads everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    machine = Machine({"OPENAI_API_KEY_FILE": str(path)}, root=tmp_path, uid=10001)
    key = next(check_keys(machine, recipe, project=tmp_path))
    assert key.level == "fail"
    assert f"0600 of uid {os.getuid()}" in key.text
    assert "uid 10001" in key.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"])
def test_localhost_in_a_container_is_refused(tmp_path: Path, host: str) -> None:
    machine = machine_with(tmp_path, container=True, CAI_KEY_CONFIGURED="", OPENAI_BASE_URL=f"http://{host}:8000/v1")
    endpoint = keys_of(machine, tmp_path, "teacher.endpoint=api")[1]
    assert (endpoint.topic, endpoint.level) == ("endpoint", "fail")
    assert "host.docker.internal" in endpoint.text


def test_localhost_on_the_host_is_fine(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, OPENAI_BASE_URL="http://localhost:11434/v1")
    assert keys_of(machine, tmp_path, "teacher.endpoint=api")[1].level == "ok"


def test_an_address_without_scheme_is_refused(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, OPENAI_BASE_URL="gpu-server:8000/v1")
    assert keys_of(machine, tmp_path, "teacher.endpoint=api")[1].level == "fail"


def test_a_password_in_the_address_is_not_shown(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, OPENAI_BASE_URL="https://me:hunter2@gpu-server:8000/v1")
    assert all("hunter2" not in check.text for check in keys_of(machine, tmp_path, "teacher.endpoint=api"))


def test_the_students_own_endpoint_is_looked_at_too(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, container=True)
    checks = keys_of(machine, tmp_path, "initial.endpoint=http://localhost:8001/v1")
    assert [check.level for check in checks] == ["ok", "fail"]


@pytest.mark.parametrize(
    ("mode", "uid_line", "level"),
    [
        pytest.param(0o600, "", "fail", id="another owner"),
        pytest.param(0o644, "", "warn", id="everyone reads it"),
        pytest.param(0o400, f"CAI_UID='{os.getuid()}'", "ok", id="the containers' user alone"),
    ],
)
def test_on_the_host_the_key_file_of_dotenv_is_checked(tmp_path: Path, mode: int, uid_line: str, level: str) -> None:
    (tmp_path / "key").write_text("not-to-be-shown")
    (tmp_path / "key").chmod(mode)
    (tmp_path / ".env").write_text(f"# comment\nexport CAI_OPENAI_KEY_FILE=./key\n{uid_line}\n")
    assert keys_of(machine_with(tmp_path), tmp_path)[-1].level == level


@pytest.mark.parametrize("more", ["CAI_UID=", "CAI_UID=me", "CAI_UID= # mine"])
def test_a_uid_that_is_none_counts_as_the_images(tmp_path: Path, more: str) -> None:
    (tmp_path / "key").write_text("not-to-be-shown")
    (tmp_path / "key").chmod(0o600)
    (tmp_path / ".env").write_text(f"CAI_OPENAI_KEY_FILE=./key # installed\n{more}\n")
    check = keys_of(machine_with(tmp_path), tmp_path)[-1]
    assert "cannot be read by the containers' uid 10001" in check.text


@pytest.mark.parametrize("address", ["http://me:hunter2@host:80a/v1", "http://[::1/v1", "me:hunter2@host/v1"])
def test_a_wrong_address_is_one_line_without_its_password(tmp_path: Path, address: str) -> None:
    checks = keys_of(machine_with(tmp_path, OPENAI_BASE_URL=address), tmp_path, "teacher.endpoint=api")
    (check,) = [check for check in checks if check.topic == "endpoint"]
    assert check.level == "fail"
    assert "hunter2" not in check.text


def test_a_key_file_that_dotenv_names_and_is_not_there(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CAI_OPENAI_KEY_FILE=./key\n")
    assert keys_of(machine_with(tmp_path), tmp_path)[-1].level == "fail"


@pytest.mark.parametrize(("wanted", "level"), [(1, "ok"), (2**60, "fail")])
def test_free_disk_is_compared_with_what_a_run_wants(tmp_path: Path, wanted: int, level: str) -> None:
    assert doctor.check_disk(tmp_path / "not/yet/there", wanted).level == level


def test_a_folder_nobody_can_write_is_named_with_its_owner(tmp_path: Path) -> None:
    check = doctor.check_write(Path("/proc"), machine_with(tmp_path, container=True))
    assert check.level == "fail"
    assert "owned by uid 0" in check.text
    assert "CAI_UID" in check.text


def test_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    assert doctor.check_write(runs, machine_with(tmp_path)).level == "ok"
    assert list(runs.iterdir()) == []


def test_a_temporary_folder_that_runs_programs(tmp_path: Path) -> None:
    assert doctor.check_tmp(tmp_path).level == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_that_runs_none(tmp_path: Path) -> None:
    assert doctor.check_tmp(Path("/proc/self")).level == "fail"


def test_run_prints_one_line_per_check_and_stops_on_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "OPENAI_BASE_URL", "CAI_KEY_CONFIGURED"):
        monkeypatch.delenv(name, raising=False)
    context = RunContext(load_recipe("demo", ["teacher.endpoint=api"]), run="demo", runs=tmp_path)
    with pytest.raises(ConfigError, match="key") as caught:
        doctor.run(context)
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.exit_code == 78
    assert all(line.startswith("doctor: ") for line in lines)
    assert {line.split(":")[1].split()[1] for line in lines} >= {"gpu", "disk", "key", "write", "tmp"}


def test_a_run_whose_data_is_made_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAI_KEY_CONFIGURED", "")
    context = RunContext(load_recipe("demo", ["teacher.endpoint=api"]), run="demo", runs=tmp_path)
    manifest = context.folder / "generate/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    doctor.run(context)


def test_run_with_the_demo_recipe_finds_nothing_that_stops_it(tmp_path: Path) -> None:
    doctor.run(RunContext(load_recipe("demo"), run="demo", runs=tmp_path))
