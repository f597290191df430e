"""OpenAI's Files and Batch API of the load server: files in memory, a batch runs for `batch_s` seconds."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.load_accounts import Accounts
from tests.fakes.load_behaviour import Behaviour
from tests.fakes.load_replies import Asked, error_body, read_body, write_reply

MOST_LINES = 50_000


@dataclass
class Batch:
    """One batch while it runs."""

    id: str
    made: dict[str, Any]
    """What the client sent."""
    lines: list[tuple[str, Asked]]
    """custom_id and request."""
    errors: list[dict[str, Any]]
    """Why validation failed; empty where it passed."""
    number: int
    begun_at: float = field(default_factory=time.monotonic)
    created_at: int = field(default_factory=lambda: int(time.time()))
    status: str = "in_progress"
    counts: dict[str, int] = field(default_factory=dict)
    output: str | None = None
    error: str | None = None

    def shown(self) -> dict[str, Any]:
        """The batch object of the API."""
        over = {f"{self.status}_at": int(time.time())} if self.status not in {"in_progress", "cancelling"} else {}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.made["endpoint"],
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.made["input_file_id"],
            "completion_window": self.made["completion_window"],
            "status": self.status,
            "output_file_id": self.output,
            "error_file_id": self.error,
            "created_at": self.created_at,
            "expires_at": self.created_at + 86_400,
            "request_counts": self.counts or {"total": len(self.lines), "completed": 0, "failed": 0},
            "metadata": self.made.get("metadata"),
        } | over


@dataclass
class Batches:
    """All files and batches."""

    accounts: Accounts
    files: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)
    """Name, purpose and content by id."""
    batches: dict[str, Batch] = field(default_factory=dict)
    _seen: Counter[bytes] = field(default_factory=Counter)

    def add_file(self, name: str, purpose: str, data: bytes) -> dict[str, Any]:
        """Keep a file and give its object."""
        file_id = f"file-{len(self.files) + 1:06d}"
        self.files[file_id] = (name, purpose, data)
        return self.file(file_id)

    def file(self, file_id: str) -> dict[str, Any]:
        """The file object of the API."""
        name, purpose, data = self.files[file_id]
        about = {"bytes": len(data), "created_at": 0, "filename": name, "purpose": purpose, "status": "processed"}
        return {"id": file_id, "object": "file"} | about

    def create(self, made: dict[str, Any], behaviour: Behaviour) -> Batch:
        """Begin a batch; one that fails validation is `failed` at once."""
        data = self.files[made["input_file_id"]][2]
        digest = hashlib.blake2b(data, digest_size=16).digest()
        number = self._seen[digest]
        self._seen[digest] += 1
        lines, errors = _validate(data)
        if not errors and behaviour.draw(digest, "batch", number) < behaviour.batch_failed:
            errors = [_error("server_error", "The batch could not be validated, try again", None)]
        batch = Batch(f"batch_{len(self.batches) + 1:06d}", made, [] if errors else lines, errors, number)
        if errors:
            batch.status = "failed"
        self.batches[batch.id] = batch
        self.accounts.batches += 1
        self.accounts.batch_lines += len(batch.lines)
        return batch

    def poll(self, batch_id: str, behaviour: Behaviour) -> Batch:
        """The batch as it is now; one whose time is up is finished first."""
        batch = self.batches[batch_id]
        if batch.status == "in_progress" and time.monotonic() - batch.begun_at >= behaviour.batch_s:
            self._finish(batch, behaviour, len(batch.lines), "completed")
        elif batch.status == "cancelling":
            self._finish(batch, behaviour, batch.counts["completed"], "cancelled")
        return batch

    def cancel(self, batch_id: str, behaviour: Behaviour) -> Batch:
        """Cancel: what was done so far is kept."""
        batch = self.poll(batch_id, behaviour)
        if batch.status == "in_progress":
            share = min(1.0, (time.monotonic() - batch.begun_at) / behaviour.batch_s)
            done = int(share * len(batch.lines))
            batch.counts = {"total": len(batch.lines), "completed": done, "failed": 0}
            batch.status = "cancelling"
        return batch

    def _finish(self, batch: Batch, behaviour: Behaviour, stop: int, status: str) -> None:
        output, error = [], []
        batch.status = status
        for custom_id, asked in batch.lines[:stop]:
            line, is_done, is_expired = self._run(custom_id, asked, behaviour)
            (output if is_done else error).append(json.dumps(line))
            if is_expired:
                batch.status = "expired"
        for custom_id, _ in batch.lines[stop:]:
            error.append(json.dumps(_unanswered(custom_id, "batch_cancelled", "This request was cancelled.")))
        batch.counts = {"total": len(batch.lines), "completed": len(output), "failed": len(error)}
        # Out of order, as the real one may be; a line is found by its custom_id.
        batch.output = self._keep(batch, "output", output[::-1])
        batch.error = self._keep(batch, "error", error)

    def _keep(self, batch: Batch, kind: str, lines: list[str]) -> str | None:
        data = "".join(f"{line}\n" for line in lines).encode()
        return str(self.add_file(f"{batch.id}_{kind}.jsonl", "batch_output", data)["id"]) if lines else None

    def _run(self, custom_id: str, asked: Asked, behaviour: Behaviour) -> tuple[dict[str, Any], bool, bool]:
        number = self.accounts.seen[asked.digest]
        self.accounts.seen[asked.digest] += 1
        if behaviour.draw(asked.digest, "expired", number) < behaviour.batch_line_expired:
            said = "This request could not be executed before the completion window expired."
            return _unanswered(custom_id, "batch_expired", said), False, True
        if behaviour.is_poison(asked):
            return _answered(custom_id, 400, error_body(400)), False, False
        if behaviour.draw(asked.digest, "line", number) < behaviour.batch_line_failed:
            return _answered(custom_id, 500, error_body(500)), False, False
        written = write_reply(asked)
        self.accounts.deliver(asked.digest, written, "batch")
        return _answered(custom_id, 200, json.loads(written.data)), True, False


def _answered(custom_id: str, status: int, body: dict[str, Any]) -> dict[str, Any]:
    response = {"status_code": status, "request_id": f"req_{custom_id}", "body": body}
    return {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": response, "error": None}


def _unanswered(custom_id: str, code: str, message: str) -> dict[str, Any]:
    error = {"code": code, "message": message}
    return {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": None, "error": error}


def _error(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": line}


def _validate(data: bytes) -> tuple[list[tuple[str, Asked]], list[dict[str, Any]]]:
    found: dict[str, Asked] = {}
    models = set()
    for number, text in enumerate(filter(None, data.split(b"\n")), 1):
        try:
            line = json.loads(text)
            asked = read_body(line["body"])
            custom_id, right = line["custom_id"], line["url"] == "/v1/chat/completions" and line["method"] == "POST"
        except (ValueError, KeyError, TypeError):
            return [], [_error("invalid_json_line", f"Line {number} is no request", number)]
        if asked is None or not right:
            return [], [_error("invalid_request", f"Line {number} is no chat completion", number)]
        if custom_id in found:
            return [], [_error("duplicate_custom_id", f"The custom_id {custom_id!r} is used twice", number)]
        found[custom_id] = asked
        models.add(asked.body["model"])
    if len(models) > 1:
        return [], [_error("mismatched_model", "All lines of a batch must name the same model", None)]
    if not found or len(found) > MOST_LINES:
        return [], [_error("empty_file" if not found else "too_many_tasks", f"{len(found)} lines", None)]
    return list(found.items()), []
