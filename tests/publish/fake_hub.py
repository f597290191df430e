"""A real HTTP server on the loopback that answers huggingface_hub when it makes a repository and commits to it."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeHub:
    """Dataset and model repositories in memory; remembers every request and its token."""

    token: str
    refuse: dict[str, int] = field(default_factory=dict)
    """Part of a path → the status it is answered with."""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Repository → its files."""
    kinds: dict[str, str] = field(default_factory=dict)
    """Repository → `dataset` or `model`, where it was made by a request."""
    private: dict[str, bool] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    history: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and authorization of every request."""

    def __enter__(self) -> FakeHub:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """Address, as HF_ENDPOINT takes it."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def answer(self, path: str, authorization: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one request."""
        for part, status in self.refuse.items():
            if part in path:
                return status, {"error": "scripted"}
        if authorization != f"Bearer {self.token}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        _, _, kind, *parts = path.split("/")
        repo = "/".join(parts[:2])
        if self.kinds.get(repo, "dataset") + "s" != kind:
            return 404, {"error": "Repository not found"}
        if repo not in self.repos:
            return 404, {"error": "Repository not found"}
        if "/preupload/" in path:
            files = [one["path"] for one in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for name in files]
            return 200, {"files": modes}
        if "/commit/" in path:
            return self._commit(repo, body)
        return 200, {"id": repo, "sha": "a" * 40, "private": self.private[repo]}

    def _create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        repo = f"{asked['organization']}/{asked['name']}"
        made = {"url": self._address(repo, asked["type"])}
        if repo in self.repos:
            return 409, made | {"error": "You already created this dataset repo"}
        self.repos[repo], self.kinds[repo] = {}, asked["type"]
        self.private[repo] = bool(asked.get("private")) or asked.get("visibility") == "private"
        return 200, made

    def _commit(self, repo: str, body: bytes) -> tuple[int, dict[str, Any]]:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                self.commits.append(line["value"]["summary"])
            else:
                assert line["key"] == "file"
                self.repos[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        address = self._address(repo, self.kinds.get(repo, "dataset"))
        return 200, {"commitUrl": f"{address}/commit/{'b' * 40}", "commitOid": "b" * 40}

    def _address(self, repo: str, kind: str) -> str:
        return f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{repo}"

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            def _answer(self, body: bytes) -> None:
                path, authorization = self.path.split("?")[0], self.headers.get("Authorization", "")
                hub.history.append((self.command, path, authorization))
                status, value = hub.answer(path, authorization, body)
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Stay quiet."""

        return Handler
