"""A real HTTP server on the loopback that talks like an OpenAI-compatible endpoint, with a queue and a history.

with FakeServer() as server:
    server.enqueue(Answer(status=429, headers={"Retry-After": "0.05"}))
    ...                        # whatever is not in the queue is answered by `server.respond`
    assert len(server.history) == 2
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = [
    "river",
    "market",
    "teacher",
    "bicycle",
    "winter",
    "garden",
    "window",
    "engine",
    "letter",
    "mountain",
    "bread",
    "station",
    "cousin",
    "blanket",
    "ticket",
    "orange",
    "doctor",
    "kitchen",
    "bridge",
    "holiday",
    "football",
    "neighbour",
    "salary",
    "island",
    "camera",
    "ladder",
    "basket",
    "museum",
    "pepper",
    "violin",
    "lantern",
    "farmer",
]


@dataclass(frozen=True)
class Answer:
    """One scripted answer."""

    status: int = 200
    content: str | None = None
    """Assistant text; None lets the responder write it."""
    finish_reason: str = "stop"
    chances: dict[str, float] = field(default_factory=dict)
    """Probability of each token that could stand for the last one of `content`: sent where the client asks for it."""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    held: threading.Event | None = None
    """Sent once this is set."""
    body: bytes | None = None
    """Whole body, instead of a chat completion or an error object."""
    error: dict[str, Any] = field(default_factory=lambda: {"message": "scripted", "type": "error", "code": None})


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    path: str
    body: dict[str, Any]
    authorization: str
    at: float
    status: int

    @property
    def identity(self) -> str:
        """The same for the same request."""
        return json.dumps(self.body, sort_keys=True)

    @property
    def last(self) -> str:
        """The last user turn."""
        return str(self.body["messages"][-1]["content"])


def sentence(seed: str, words: int = 14) -> str:
    """A sentence that is always the same for a seed and different from every other."""
    digest = hashlib.sha256(seed.encode()).digest()
    return "I " + " ".join(WORDS[byte % len(WORDS)] for byte in digest[:words]) + "."


def plausible(body: dict[str, Any]) -> str:
    """What a good model would answer: as many prompts as were asked for, or one text, in the form asked for."""
    last = body["messages"][-1]["content"]
    seed = json.dumps(body, sort_keys=True)
    schema = body.get("response_format", {}).get("json_schema", {})
    if "different messages" in last:
        count = int(last.split("Write ")[1].split(" ")[0])
        prompts = [sentence(f"{seed}{number}") for number in range(count)]
        if schema:
            return json.dumps({"prompts": prompts})
        return "\n".join(f"{number}. {prompt}" for number, prompt in enumerate(prompts, 1))
    if "Answer A:" in last:
        return preferred(last)
    text = sentence(seed)
    if last.startswith("Principle:") and "rewrite" in last:
        text = f"Rewrite the answer so that it says: {text}"
    return json.dumps({schema["name"]: text}) if schema else text


def preferred(question: str) -> str:
    """The letter of the better answer to a judge's question: the same answer in both orders."""
    first, _, rest = question.partition("Answer A:\n")[2].partition("\n\nAnswer B:\n")
    return "A" if sentence(first) > sentence(rest.split("\n\n")[0]) else "B"


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed or cancelled is part of the tests."""


class FakeServer:
    """The server; use it as a context manager."""

    def __init__(self, respond: Callable[[dict[str, Any]], str | Answer] = plausible) -> None:
        self.respond = respond
        self.history: list[Asked] = []
        self._queue: deque[Answer] = deque()
        self._lock = threading.Lock()
        self._http = _QuietServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        """Base URL, as OPENAI_BASE_URL takes it."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def answered(self) -> list[Asked]:
        """Requests that were answered with 200."""
        return [asked for asked in self.history if asked.status == 200]

    def enqueue(self, *answers: Answer) -> None:
        """Answer the next requests with these."""
        self._queue.extend(answers)

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _take(self, body: dict[str, Any]) -> Answer:
        with self._lock:
            if self._queue:
                return self._queue.popleft()
        found = self.respond(body)
        return found if isinstance(found, Answer) else Answer(content=found)

    def _handler(fake) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = fake._take(body)
                asked = Asked(self.path, body, self.headers.get("Authorization", ""), time.monotonic(), answer.status)
                with fake._lock:
                    fake.history.append(asked)
                time.sleep(answer.delay_s)
                if answer.held:
                    answer.held.wait()
                data = answer.body if answer.body is not None else _body(answer, body)
                try:
                    self.send_response(answer.status)
                    headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
                    for name, value in (headers | answer.headers).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client was killed while it waited

            def log_message(self, format: str, *args: object) -> None:
                """Stay quiet."""

        return Handler


def _body(answer: Answer, body: dict[str, Any]) -> bytes:
    if answer.status != 200:
        return json.dumps({"error": answer.error}).encode()
    text = plausible(body) if answer.content is None else answer.content
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    if body.get("logprobs") and answer.chances:
        listed = [{"token": token, "logprob": math.log(chance)} for token, chance in answer.chances.items()]
        last = max(listed, key=lambda one: one["logprob"])
        choice["logprobs"] = {"content": [last | {"top_logprobs": listed[: body["top_logprobs"]]}]}
    completion = {
        "id": "fake",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [choice],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
    return json.dumps(completion).encode()
