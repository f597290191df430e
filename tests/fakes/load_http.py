"""HTTP/1.1 by hand on asyncio's Protocol: keep-alive, no framework, thousands of small requests a second."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 429: "Too Many Requests"}


@dataclass(frozen=True)
class Request:
    """One HTTP request."""

    method: str
    path: str
    query: str
    head: bytes
    """Request line and headers, as they came."""
    body: bytes


def respond(
    status: int, data: bytes, headers: list[tuple[str, str]] | None = None, kind: str = "application/json"
) -> bytes:
    """One whole HTTP answer."""
    lines = [
        f"HTTP/1.1 {status} {PHRASES.get(status, 'Error')}",
        f"content-type: {kind}",
        f"content-length: {len(data)}",
    ]
    lines += [f"{name}: {value}" for name, value in headers or []]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def respond_json(status: int, value: Any) -> bytes:
    """One whole HTTP answer of JSON."""
    return respond(status, json.dumps(value).encode())


class Connection(asyncio.Protocol):
    """One client connection: gives whole requests to `handle`, one after the other."""

    transport: asyncio.Transport

    def __init__(self, handle: Callable[[Connection, Request], None]) -> None:
        self.handle = handle
        self.on_lost: Callable[[], None] | None = None
        """Called when the client goes away while its request is worked on."""
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        if self.on_lost:
            self.on_lost()
            self.on_lost = None

    def data_received(self, data: bytes) -> None:
        self._data += data
        while self._data:
            request, self._data = split_request(self._data)
            if request is None:
                return
            self.handle(self, request)

    def send(self, answer: bytes) -> None:
        self.on_lost = None
        self.transport.write(answer)

    def close(self) -> None:
        self.on_lost = None
        self.transport.close()


def split_request(data: bytes) -> tuple[Request | None, bytes]:
    """Take the first whole request off what arrived; gives the rest too."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None, data
    head, start = data[:end], end + 4
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body, stop = _unchunk(data, start)
    else:
        length = _length(lower)
        body, stop = data[start : start + length], start + length
    if stop < 0 or len(data) < stop:
        return None, data
    method, target, _ = head[: head.find(b"\r\n")].decode("latin-1").split(" ")
    path, _, query = target.partition("?")
    return Request(method, path, query, head, body), data[stop:]


def _length(lower_head: bytes) -> int:
    at = lower_head.find(b"\r\ncontent-length:")
    return int(lower_head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def _unchunk(data: bytes, at: int) -> tuple[bytes, int]:
    """Body and the place where it ends; -1 while it is not whole."""
    parts = []
    while True:
        line = data.find(b"\r\n", at)
        if line < 0:
            return b"", -1
        size = int(data[at:line], 16)
        at = line + 2 + size + 2
        if len(data) < at:
            return b"", -1
        if size == 0:
            return b"".join(parts), at
        parts.append(data[line + 2 : line + 2 + size])


def read_upload(head: bytes, body: bytes) -> tuple[str, str, bytes] | None:
    """File name, purpose and content of a multipart upload; None when it is none."""
    boundary = re.search(rb'boundary="?([^";\r\n]+)', head)
    if not boundary:
        return None
    name, purpose, data = "", "", b""
    for part in body.split(b"--" + boundary[1])[1:-1]:
        about, _, content = part.partition(b"\r\n\r\n")
        content = content.removesuffix(b"\r\n")
        if file_name := re.search(rb'filename="?([^";\r\n]+)', about):
            name, data = file_name[1].decode(), content
        elif b'name="purpose"' in about or b"name=purpose" in about:
            purpose = content.decode()
    return (name, purpose, data) if purpose else None
