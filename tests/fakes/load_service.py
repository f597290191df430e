"""What the load server does with a request: decide, wait, answer, and write it all into the books."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import Any

from tests.fakes.load_accounts import Accounts
from tests.fakes.load_batches import Batches
from tests.fakes.load_behaviour import Behaviour, Outcome
from tests.fakes.load_http import Connection, Request, read_upload, respond, respond_json
from tests.fakes.load_limits import RateLimits
from tests.fakes.load_replies import GARBAGE, Asked, Written, error_body, read_request, write_reply

DELIVERED = {"ok", "truncated", "empty"}
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Work:
    """A chat request that is being worked on."""

    asked: Asked
    outcome: Outcome
    """What becomes of it unless its client goes away."""


class Service:
    """All state of one server process."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.change(behaviour)
        self.reset()

    def change(self, behaviour: Behaviour) -> None:
        """Behave otherwise from now on."""
        self.behaviour, self.limits = behaviour, RateLimits.of(behaviour)

    def reset(self) -> None:
        """Forget everything that happened; rate limits are full again."""
        self.accounts = Accounts()
        self.batches = Batches(self.accounts)
        self.limits = RateLimits.of(self.behaviour)

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer one request, now or later."""
        if request.path == CHAT and request.method == "POST":
            self._chat(connection, request.body)
        elif request.path.startswith("/control/"):
            connection.send(self._control(request))
        elif self.behaviour.batch_api and request.path.startswith(("/v1/files", "/v1/batches")):
            connection.send(self._batch(request))
        else:
            status = 405 if request.path == CHAT else 404
            connection.send(respond_json(status, error_body(status)))

    def _chat(self, connection: Connection, data: bytes) -> None:
        accounts, behaviour = self.accounts, self.behaviour
        accounts.arrive()
        asked = read_request(data)
        if asked is None:
            accounts.outcomes["invalid"] += 1
            connection.send(respond_json(400, error_body(400, "messages and model are needed, stream is not served")))
            return
        accounts.ask()
        full = behaviour.limit_in_flight is not None and accounts.in_flight >= behaviour.limit_in_flight
        wait_s = (behaviour.retry_after_s or 0.0) if full else self.limits.take(asked.worst_tokens)
        if full or wait_s:
            accounts.outcomes["limited"] += 1
            connection.send(self._refuse(None if full and behaviour.retry_after_s is None else wait_s))
            return
        seen = accounts.begin(asked.digest)
        work = Work(asked, behaviour.fate(asked, seen))
        timer = None
        if work.outcome != "timeout":
            delay_s = behaviour.delay_s(asked.digest, seen)
            if not delay_s:
                self._answer(accounts, connection, work)
                return
            timer = asyncio.get_running_loop().call_later(delay_s, self._answer, accounts, connection, work)

        def lost() -> None:
            if timer:
                timer.cancel()
            accounts.charge(write_reply(asked), "maybe")
            accounts.end("timeout" if timer is None else "abandoned")

        connection.on_lost = lost

    def _refuse(self, wait_s: float | None) -> bytes:
        headers = self.limits.headers()
        if wait_s is not None:
            exact = wait_s == int(wait_s)
            headers.append(("retry-after", str(int(wait_s) if exact else math.ceil(wait_s))))
            headers += [] if exact else [("retry-after-ms", str(math.ceil(wait_s * 1000)))]
        return respond(429, json.dumps(error_body(429)).encode(), headers)

    def _answer(self, accounts: Accounts, connection: Connection, work: Work) -> None:
        accounts.end(work.outcome)
        if work.outcome in DELIVERED:
            written = write_reply(work.asked, work.outcome)
            accounts.deliver(work.asked.digest, written, "charged")
            connection.send(respond(200, written.data, self.limits.headers()))
        elif work.outcome == "garbage":
            accounts.charge(self._whole(work), "maybe")
            connection.send(respond(200, GARBAGE, kind="text/html"))
        elif work.outcome == "dropped":
            accounts.charge(self._whole(work), "maybe")
            connection.close()
        else:
            status = 400 if work.outcome == "bad_request" else 500
            connection.send(respond(status, json.dumps(error_body(status)).encode(), self.limits.headers()))

    def _whole(self, work: Work) -> Written:
        return write_reply(work.asked)

    def _control(self, request: Request) -> bytes:
        if request.path == "/control/stats":
            return respond_json(200, self.accounts.stats())
        if request.path == "/control/bodies":
            accounts = self.accounts
            found = {digest.hex(): [count, accounts.delivered[digest]] for digest, count in accounts.seen.items()}
            return respond_json(200, found)
        if request.path == "/control/reset":
            self.reset()
        elif request.path == "/control/behaviour":
            self.change(Behaviour(**json.loads(request.body)))
        else:
            return respond_json(404, error_body(404))
        return respond_json(200, {})

    def _batch(self, request: Request) -> bytes:
        """Files and Batch API; see https://platform.openai.com/docs/api-reference/batch."""
        parts = request.path.split("/")[3:]
        try:
            answer = self._files(request, parts) if request.path.startswith("/v1/files") else self._jobs(request, parts)
        except KeyError as error:
            return respond_json(404, error_body(404, f"No such object: {error}"))
        return answer or respond_json(405, error_body(405))

    def _files(self, request: Request, parts: list[str]) -> bytes | None:
        match [request.method, *parts]:
            case ["POST"]:
                upload = read_upload(request.head, request.body)
                if upload is None:
                    return respond_json(400, error_body(400, "a multipart form with file and purpose is needed"))
                return respond_json(200, self.batches.add_file(*upload))
            case ["GET", file_id, "content"]:
                return respond(200, self.batches.files[file_id][2], kind="application/octet-stream")
            case ["GET", file_id]:
                return respond_json(200, self.batches.file(file_id))
            case ["DELETE", file_id]:
                del self.batches.files[file_id]
                return respond_json(200, {"id": file_id, "object": "file", "deleted": True})
        return None

    def _jobs(self, request: Request, parts: list[str]) -> bytes | None:
        match [request.method, *parts]:
            case ["POST"]:
                return respond_json(200, self.batches.create(json.loads(request.body), self.behaviour).shown())
            case ["POST", batch_id, "cancel"]:
                return respond_json(200, self.batches.cancel(batch_id, self.behaviour).shown())
            case ["GET"]:
                return respond_json(200, self._list(request.query))
            case ["GET", batch_id]:
                return respond_json(200, self.batches.poll(batch_id, self.behaviour).shown())
        return None

    def _list(self, query: str) -> dict[str, Any]:
        given = dict(pair.split("=", 1) for pair in query.split("&") if "=" in pair)
        newest = [self.batches.poll(batch_id, self.behaviour).shown() for batch_id in reversed(self.batches.batches)]
        ids = [batch["id"] for batch in newest]
        start = ids.index(given["after"]) + 1 if given.get("after") in ids else 0
        page = newest[start : start + int(given.get("limit", 20))]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return {"object": "list", "data": page, "has_more": start + len(page) < len(newest)} | ends
