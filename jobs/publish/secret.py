"""A secret from the environment: the variable itself, or the file that the variable with `_FILE` behind it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jobs.common.errors import ConfigError


def read_secret(variable: str, environment: Mapping[str, str]) -> str | None:
    """The secret, None where there is none; an empty file counts as none.

    Raises:
        ConfigError: its file cannot be read.
    """
    if secret := environment.get(variable, "").strip():
        return secret
    name = environment.get(f"{variable}_FILE")
    if not name:
        return None
    try:
        return Path(name).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{variable}_FILE: cannot read {name} ({reason}).") from error
