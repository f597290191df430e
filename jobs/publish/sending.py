"""What every `cai publish` does with the folder it put together: check names, show it, push it, remember it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.common.console import say
from jobs.common.context import RunContext
from jobs.common.errors import ConfigError
from jobs.common.jsonl import read_json, sha256_file, write_json
from jobs.publish.hub import REPO, VARIABLE, Kind, push, write_token
from jobs.publish.shareable import shareable

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
HEAD_LINES = 40
"""Lines of the card that a dry run prints."""


def check_names(repo: str | None, licence: str) -> None:
    """Refuse names the Hub does not take, before anything is put together.

    Raises:
        ConfigError: names the option and what it holds.
    """
    if repo is not None and not REPO.fullmatch(repo):
        raise ConfigError(f"--repo: found {repo!r}. Expected OWNER/NAME.")
    if not LICENCE.fullmatch(licence):
        raise ConfigError(
            f"--licence: found {licence!r}. Expected the Hub's identifier, such as cc-by-4.0 or apache-2.0."
        )


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write a stage's manifest without private paths and hosts."""
    write_json(path, shareable({key: value for key, value in manifest.items() if key != "platform"}))


def files_of(folder: Path) -> list[Path]:
    """Every file that is uploaded."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def show(folder: Path) -> None:
    """Print every file with size and hash, and the head of the card."""
    files = files_of(folder)
    for path in files:
        print(f"{path.relative_to(folder).as_posix():<28} {path.stat().st_size:>12,}  {sha256_file(path)}")
    print()
    card = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    print("\n".join(card[:HEAD_LINES]))
    say(f"publish: {len(files)} files in {folder}; nothing was sent (--dry-run)")


def send(context: RunContext, folder: Path, repo: str | None, *, kind: Kind, private: bool) -> str:
    """Push the folder as one commit and note it in publish/<folder's name>.json.

    Returns:
        The commit's address.

    Raises:
        ConfigError: no repository or token, or the Hub refuses them.
        DataError: the Hub refuses the files.
        UnavailableError: the Hub does not answer.
    """
    token = write_token()
    if repo is None or token is None:
        raise ConfigError(f"{_missing(repo)} Everything is put together in {folder}; nothing was sent.")
    address = push(folder, repo, token, kind=kind, private=private)
    files = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files_of(folder)}
    path = context.folder / "publish" / f"{folder.name}.json"
    before = read_json(path)["published"] if path.exists() else []
    write_json(path, {"published": [*before, {"repo": repo, "commit": address, "files": files}]})
    return address


def _missing(repo: str | None) -> str:
    if repo is None:
        return "--repo is missing: give OWNER/NAME."
    return (
        f"No write token: set {VARIABLE}, or {VARIABLE}_FILE to a file that holds it (HF_TOKEN is fetch's read token "
        f"and is not used to write)."
    )
