"""Where requests go: the embedded servers, or an OpenAI-compatible base URL with or without a key.

A key is read from the environment or from a file, is held in one field that is never printed, and leaves the process
only in the Authorization header.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from jobs.common.errors import ConfigError
from jobs.common.hosts import is_private_host

OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "none"
"""Sent to servers that ask for no key, because the client wants one."""


@dataclass(frozen=True)
class Endpoint:
    """One place that answers chat requests with one model."""

    logical: str
    """`embedded:<sha256 of the GGUF>` or the base URL's host: what the journal knows it by."""
    model: str
    base_urls: tuple[str, ...]
    """More than one only for embedded servers."""
    structured: Literal["auto", "on", "off"]
    key: str = field(default=NO_KEY, repr=False)
    key_name: str = "OPENAI_API_KEY"
    """Environment variable the key comes from, for messages."""
    slots: int | None = None
    """Requests an embedded server works on at once; None for others."""

    @property
    def is_embedded(self) -> bool:
        """Is it served inside this process?"""
        return self.logical.startswith("embedded:")

    @property
    def shown(self) -> str:
        """Name for messages: scheme, host and port, never a user name, password or query."""
        return "the embedded model" if self.is_embedded else _shown(self.base_urls[0])


def remote_endpoint(
    url: str, model: str, structured: Literal["auto", "on", "off"], key_name: str, environment: Mapping[str, str]
) -> Endpoint:
    """An endpoint at a base URL, with its key.

    Raises:
        ConfigError: the URL is none, or a remote host has no key in `key_name` or `key_name`_FILE.
    """
    host = host_of(url)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(_no_base_url(url))
    key = _read_key(key_name, environment)
    if key is None and not is_private_host(parts.hostname):
        raise ConfigError(
            f"No API key for {_shown(url)}: neither {key_name} nor {key_name}_FILE holds one. "
            f"Set one of them (in compose: make key), then run the same command again."
        )
    if "@" in parts.netloc:
        raise ConfigError(f"{_shown(url)}: the base URL holds a user name. Leave it out; the key goes into {key_name}.")
    return Endpoint(host, model, (url.rstrip("/"),), structured, key or NO_KEY, key_name)


def base_url(environment: Mapping[str, str]) -> str:
    """The teacher's base URL: OPENAI_BASE_URL, or OpenAI's own."""
    return environment.get("OPENAI_BASE_URL", "").strip() or OPENAI_URL


def host_of(url: str) -> str:
    """Host and port of a base URL, in small letters.

    Raises:
        ConfigError: brackets or port are wrong.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it checks it
    except ValueError:
        raise ConfigError(_no_base_url(url)) from None
    return parts.netloc.rpartition("@")[2].lower()


def _read_key(name: str, environment: Mapping[str, str]) -> str | None:
    if key := environment.get(name, "").strip():
        return _checked(key, name)
    file = environment.get(f"{name}_FILE", "").strip()
    if not file or file == os.devnull:
        return None
    try:
        key = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{name}_FILE={file} cannot be read: {reason}. Point it at a file with the key.") from None
    return _checked(key, f"{name}_FILE={file}") if key else None


def _checked(key: str, where: str) -> str:
    # Anything else cannot stand in a header: two lines, a byte-order mark, quotes a word processor made round.
    if not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(f"{where} does not hold a key alone: it has spaces, line ends or letters beyond ASCII.")
    return key


def _shown(url: str) -> str:
    return f"{urlsplit(url).scheme}://{host_of(url)}"


def _no_base_url(url: str) -> str:
    # A password stands before the last @, a token after ?; neither is shown.
    shown = url.rpartition("@")[2].partition("?")[0]
    return f"{shown!r} is no base URL. Expected something like http://host:8000/v1."
