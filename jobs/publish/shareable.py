"""What of a manifest strangers may read: no folder of a machine, no private address, no query string."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from jobs.common.hosts import is_private_host

PRIVATE = "private-host"
_URL = re.compile(r"https?://[^\s\"'<>]+", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?<![\w.:/-])((?:\d{1,3}\.){3}\d{1,3}|localhost|[\w-]+(?:\.[\w-]+)*\.(?:internal|local))(:\d+)?\b"
)
_PATH = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?/(?:[^\s/\"'<>|]+/)*([^\s/\"'<>|]*)")


def shareable(value: Any) -> Any:
    """A JSON value whose texts name no machine: paths keep their last part, private hosts become `private-host`."""
    if isinstance(value, dict):
        return {shareable_text(str(key)): shareable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shareable(one) for one in value]
    return shareable_text(value) if isinstance(value, str) else value


def shareable_text(text: str) -> str:
    """One such text."""
    parts, at = [], 0
    for match in _URL.finditer(text):
        parts += [_plain(text[at : match.start()]), _url(match[0])]
        at = match.end()
    return "".join([*parts, _plain(text[at:])])


def _plain(text: str) -> str:
    text = _ADDRESS.sub(lambda match: PRIVATE if is_private_host(match[1]) else match[0], text)
    return _PATH.sub(lambda match: match[1], text)


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:  # brackets that hold no address
        return PRIVATE
    return f"{parts.scheme}://{PRIVATE}" if is_private_host(host) else f"{parts.scheme}://{host}{parts.path}"
