"""Doctor's look at keys and endpoints: is a key there and readable, and does the address mean what it says here.

No key is ever shown. In compose doctor gets no key at all, only the word whether one is configured.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from jobs.common.hosts import is_private_host
from jobs.common.recipe import PROJECT
from jobs.common.settings import Recipe
from jobs.prepare.doctor_machine import CONTAINER_UID, Check, Level, Machine

LOCAL_HOSTS = {"localhost", "127.0.0.1", "0.0.0.0", "::1"}
INSTALL = "Install it with: make key < FILE"
SET = (
    "Set OPENAI_API_KEY or OPENAI_API_KEY_FILE; for compose: make key < FILE. Where another machine runs generate: "
    "CAI_KEY_CONFIGURED=yes"
)


def check_keys(machine: Machine, recipe: Recipe, project: Path = PROJECT) -> Iterator[Check]:
    """Yield what is to say about keys and endpoints for this recipe."""
    remote = recipe.teacher.endpoint == "api"
    address = machine.environment.get("OPENAI_BASE_URL", "") if remote else ""
    if remote:
        yield _check_key(machine, needed=not is_private_host(_host(address) or "api.openai.com"))
    else:
        yield Check("ok", "key", "none needed: the teacher is embedded")
    for endpoint in filter(None, [address, recipe.initial.endpoint if "://" in recipe.initial.endpoint else ""]):
        yield _check_address(machine, endpoint)
    if not machine.in_container and (name := _env_file(project).get("CAI_OPENAI_KEY_FILE")):
        uid = _env_file(project).get("CAI_UID", "")
        yield _check_container_key(project / name, int(uid) if uid.isdecimal() else CONTAINER_UID)


def _check_key(machine: Machine, *, needed: bool) -> Check:
    environment = machine.environment
    level: Level = "fail" if needed else "warn"
    if "CAI_KEY_CONFIGURED" in environment:
        configured = Check("ok", "key", "a key file is configured; only generate can read it")
        missing = Check(level, "key", f"no API key for the recipe's endpoint. {INSTALL}")
        return configured if environment["CAI_KEY_CONFIGURED"] else missing
    if environment.get("OPENAI_API_KEY"):
        return Check("ok", "key", "OPENAI_API_KEY is set")
    path = environment.get("OPENAI_API_KEY_FILE")
    if not path:
        return Check(level, "key", f"no API key for the recipe's endpoint. {SET}")
    return _check_key_file(Path(path), machine.uid)


def _check_key_file(path: Path, uid: int) -> Check:
    try:
        empty = not path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return Check("fail", "key", f"{path} does not exist. {INSTALL}")
    except PermissionError:
        return Check("fail", "key", f"{path} is {_owner(path)} and cannot be read by uid {uid}. {INSTALL}")
    except (OSError, UnicodeDecodeError) as error:
        return Check("fail", "key", f"{path} cannot be read: {error}. {INSTALL}")
    return Check("fail", "key", f"{path} is empty. {INSTALL}") if empty else Check("ok", "key", f"{path} can be read")


def _check_container_key(path: Path, uid: int) -> Check:
    """On the host: can the containers' user read the key file that .env names?"""
    if not path.exists():
        return Check("fail", "key", f".env names {path}, which does not exist. {INSTALL}")
    found = path.stat()
    if found.st_mode & stat.S_IROTH and path.is_file():
        return Check("warn", "key", f"{path} is {_owner(path)}: every user of this machine can read it. {INSTALL}")
    if found.st_uid == uid and found.st_mode & stat.S_IRUSR:
        return Check("ok", "key", f"{path} can be read by the containers' uid {uid} alone")
    return Check("fail", "key", f"{path} is {_owner(path)} and cannot be read by the containers' uid {uid}. {INSTALL}")


def _check_address(machine: Machine, address: str) -> Check:
    # A password stands before the last @, a token after ?; neither is shown.
    bare = address.rpartition("@")[2].partition("?")[0]
    no_address = Check("fail", "endpoint", f"{bare!r} is no address. Expected something like http://host:8000/v1")
    try:
        parts = urlsplit(address)
        shown = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    except ValueError:  # brackets or port
        return no_address
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return no_address
    if parts.hostname not in LOCAL_HOSTS:
        return Check("ok", "endpoint", shown)
    if machine.in_container:
        advice = "Use host.docker.internal in its place, and let the server listen on 0.0.0.0"
        return Check("fail", "endpoint", f"{shown} is this container itself, not the machine. {advice}")
    return Check("ok", "endpoint", f"{shown} (in compose write host.docker.internal for it)")


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:  # _check_address says what is wrong with it
        return None


def _env_file(project: Path) -> dict[str, str]:
    """The values compose reads from .env on the host; quotes and `export` are allowed there."""
    path = project / ".env"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if os.access(path, os.R_OK) else []
    pairs = (line.strip().removeprefix("export ").partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {name.strip(): value.partition(" #")[0].strip().strip("\"'") for name, equals, value in pairs if equals}


def _owner(path: Path) -> str:
    found = path.stat()
    return f"{stat.S_IMODE(found.st_mode):04o} of uid {found.st_uid}"
