"""The load server is what other tests and the benchmarks are measured with, so it is measured here."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.load_behaviour import Behaviour
from tests.fakes.load_limits import duration
from tests.fakes.load_replies import read_body, write_reply
from tests.fakes.load_server import LoadServer

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def process() -> Iterator[LoadServer]:
    with LoadServer() as server:
        yield server


@pytest.fixture(scope="module")
def client(process: LoadServer) -> Iterator[Any]:
    with openai.OpenAI(base_url=process.url, api_key="x", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def server(process: LoadServer) -> LoadServer:
    process.change(Behaviour())
    process.reset()
    return process


def body(number: int = 0, **more: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": [{"role": "user", "content": f"Question {number}, please"}]} | more


def post(server: LoadServer, value: Any, path: str = "/v1/chat/completions") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(value), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
    except http.client.RemoteDisconnected:
        return 0, {}, b""
    finally:
        connection.close()


def together(server: LoadServer, bodies: list[dict[str, Any]], timeout_s: float = 60.0) -> list[Any]:
    """Ask all at once with the openai client; replies or errors in order."""

    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0, timeout=timeout_s) as client:
            calls = [client.chat.completions.create(**one) for one in bodies]
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(ask())


def test_reply_is_a_pure_function_of_the_body_whatever_the_order_of_its_keys(server: LoadServer) -> None:
    first, second = body(temperature=0.5), dict(reversed(body(temperature=0.5).items()))
    status, _, data = post(server, first)
    assert status == 200
    assert post(server, second)[2] == data
    asked = read_body(first)
    assert asked is not None
    assert write_reply(asked).data == data
    assert post(server, body(1, temperature=0.5))[2] != data
    stats = server.stats()
    assert (stats.attempts, stats.bodies, stats.repeated, stats.delivered, stats.delivered_twice) == (3, 2, 1, 2, 1)


def test_usage_counts_words_and_is_what_the_books_charge(server: LoadServer) -> None:
    _, _, data = post(server, body())
    usage, text = json.loads(data)["usage"], json.loads(data)["choices"][0]["message"]["content"]
    assert usage["prompt_tokens"] == 4  # three words
    assert usage["completion_tokens"] == int(len(text.split()) * 1.3 + 0.5)
    stats = server.stats()
    assert (stats.charged_prompt_tokens, stats.charged_reply_tokens) == (4, usage["completion_tokens"])
    assert stats.maybe_prompt_tokens == 0


def test_in_flight_limit_answers_429_with_retry_after(server: LoadServer) -> None:
    server.change(Behaviour(latency_s=2.0, limit_in_flight=5, retry_after_s=1))
    replies = together(server, [body(number) for number in range(12)])
    refused = [reply for reply in replies if isinstance(reply, openai.RateLimitError)]
    assert len(refused) == 7
    assert {error.response.headers["retry-after"] for error in refused} == {"1"}
    stats = server.stats()
    assert (stats.limited, stats.most_in_flight, stats.in_flight, stats.delivered) == (7, 5, 0, 5)
    assert stats.last_reply_at - stats.first_at > 1.9


def test_requests_per_minute_come_with_headers_and_refill(server: LoadServer) -> None:
    server.change(Behaviour(requests_per_minute=30, burst_s=10.0))  # one in two seconds, 5 at once
    answers = [post(server, body(number)) for number in range(6)]
    assert Counter(status for status, _, _ in answers) == {200: 5, 429: 1}
    headers = answers[0][1]
    assert headers["x-ratelimit-limit-requests"] == "30"
    assert headers["x-ratelimit-remaining-requests"] == "4"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    wait_ms = int(answers[-1][1]["retry-after-ms"])
    assert wait_ms <= 2000
    time.sleep(wait_ms / 1000)
    assert post(server, body(6))[0] == 200


@pytest.mark.parametrize(("seconds", "text"), [(0.012, "12ms"), (1.2, "1.2s"), (60, "1m0s"), (360.4, "6m0s")])
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_every_fault_happens_in_its_share_and_the_same_way_in_every_run(server: LoadServer) -> None:
    faults = Behaviour(
        poison=0.05, bad_request=0.05, error_500=0.1, dropped=0.1, garbage=0.1, truncated=0.1, empty=0.1, seed=7
    )
    outcomes = []
    for _ in range(2):
        server.reset()
        server.change(faults)
        answers = [post(server, body(number)) for number in range(200)]
        stats = server.stats()
        assert sum(stats.outcomes.values()) == stats.attempts == 200
        assert stats.delivered == sum(stats.outcomes[kind] for kind in ("ok", "truncated", "empty"))
        statuses = Counter(status for status, _, _ in answers)
        faults_by_status = {0: "dropped", 400: "bad_request", 500: "error_500"}
        assert {kind: statuses[status] for status, kind in faults_by_status.items()} == {
            kind: stats.outcomes[kind] for kind in faults_by_status.values()
        }
        texts = [data for status, _, data in answers if status == 200]
        assert sum(b'"length"' in text for text in texts) == stats.outcomes["truncated"]
        assert sum(b'"content": ""' in text for text in texts) == stats.outcomes["empty"]
        assert sum(b"<html>" in text for text in texts) == stats.outcomes["garbage"]
        outcomes.append(stats.outcomes)
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].keys() == {"ok", "bad_request", "error_500", "dropped", "garbage", "truncated", "empty"}
    assert all(8 <= count <= 35 for kind, count in outcomes[0].items() if kind != "ok")


def test_a_fault_of_one_attempt_is_gone_at_the_next_and_poison_stays(server: LoadServer) -> None:
    server.change(Behaviour(error_500=0.5, seed=1))
    assert {post(server, body())[0] for _ in range(12)} == {200, 500}
    server.change(Behaviour(poison=1.0))
    status, _, data = post(server, body())
    assert status == 400
    assert json.loads(data)["error"]["code"] == "content_policy_violation"
    server.change(Behaviour(poison_text="Question 3,"))
    assert [post(server, body(number))[0] for number in (3, 4)] == [400, 200]


def test_what_was_not_answered_may_have_been_charged(server: LoadServer) -> None:
    server.change(Behaviour(timeout=1.0))
    (error,) = together(server, [body()], timeout_s=0.1)
    assert isinstance(error, openai.APITimeoutError)
    server.change(Behaviour(latency_s=5.0))
    assert isinstance(together(server, [body(1)], timeout_s=0.1)[0], openai.APITimeoutError)
    while (stats := server.stats()).in_flight:
        time.sleep(0.01)
    assert stats.outcomes == {"timeout": 1, "abandoned": 1}
    assert (stats.maybe_prompt_tokens, stats.charged_prompt_tokens, stats.delivered) == (8, 0, 0)
    assert stats.maybe_reply_tokens > 20


def test_tail_takes_longer_for_its_share(server: LoadServer) -> None:
    server.change(Behaviour(tail_share=0.3, tail_s=0.4))
    begun = time.monotonic()
    together(server, [body(number) for number in range(20)])
    assert time.monotonic() - begun > 0.39


@pytest.mark.parametrize(
    ("path", "value", "status"),
    [("/v1/completions", {}, 404), ("/v1/chat/completions", {"model": "fake", "messages": []}, 400), ("/x", {}, 404)],
)
def test_other_paths_and_bad_bodies_are_refused(server: LoadServer, path: str, value: Any, status: int) -> None:
    assert post(server, value, path)[0] == status


def test_it_answers_thousands_of_requests_over_many_connections(server: LoadServer) -> None:
    async def client(requests: int) -> None:
        data = json.dumps(body()).encode()
        request = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(requests):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()
        await writer.wait_closed()

    async def measure() -> None:
        await asyncio.gather(*(client(100) for _ in range(20)))

    asyncio.run(measure())
    stats = server.stats()
    assert stats.outcomes == {"ok": 2000}


def run_batch(client: Any, lines: list[dict[str, Any]]) -> Any:
    """Upload the lines and run the batch to its end."""
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    endpoint: Any = "/v1/chat/completions"
    batch = client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"a": "b"}
    )
    while batch.status in {"in_progress", "cancelling"}:
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def lines_of(client: Any, file_id: str | None) -> dict[str, dict[str, Any]]:
    if file_id is None:
        return {}
    return {line["custom_id"]: line for line in map(json.loads, client.files.content(file_id).text.splitlines())}


def batch_line(number: int) -> dict[str, Any]:
    return {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body(number)}


def test_batch_gives_the_same_replies_as_live_calls(server: LoadServer, client: Any) -> None:
    batch = run_batch(client, [batch_line(number) for number in range(5)])
    assert (batch.status, batch.request_counts.completed, batch.error_file_id) == ("completed", 5, None)
    assert batch.metadata == {"a": "b"}
    output = lines_of(client, batch.output_file_id)
    assert [one.id for one in client.batches.list(limit=1)] == [batch.id]
    live = json.loads(post(server, body(3))[2])
    assert output["id-3"]["response"]["body"] == live
    stats = server.stats()
    assert (stats.batches, stats.batch_lines, stats.attempts, stats.delivered_twice) == (1, 5, 1, 1)
    assert stats.batch_prompt_tokens == 5 * stats.charged_prompt_tokens


def test_failed_and_expired_lines_are_in_the_error_file(server: LoadServer, client: Any) -> None:
    server.change(Behaviour(batch_line_failed=0.3, batch_line_expired=0.2, poison=0.1))
    batch = run_batch(client, [batch_line(number) for number in range(40)])
    output, errors = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert batch.status == "expired"
    assert output.keys() | errors.keys() == {f"id-{number}" for number in range(40)}
    assert not output.keys() & errors.keys()
    expired = {name for name, line in errors.items() if line["error"] and line["error"]["code"] == "batch_expired"}
    statuses = {line["response"]["status_code"] for name, line in errors.items() if name not in expired}
    assert expired
    assert statuses == {400, 500}


def test_a_batch_that_fails_validation_passes_the_next_time(server: LoadServer, client: Any) -> None:
    server.change(Behaviour(batch_failed=0.5, seed=2))
    statuses = []
    for _ in range(8):
        batch = run_batch(client, [batch_line(0)])
        statuses.append(batch.status)
    assert set(statuses) == {"failed", "completed"}


def test_a_wrong_file_fails_validation_with_its_line(server: LoadServer, client: Any) -> None:
    batch = run_batch(client, [batch_line(0), batch_line(0)])
    assert batch.status == "failed"
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == ("duplicate_custom_id", 2)


def test_cancelled_batch_keeps_what_was_done(server: LoadServer, client: Any) -> None:
    server.change(Behaviour(batch_s=10.0))
    file = client.files.create(file=("in.jsonl", json.dumps(batch_line(0)).encode()), purpose="batch")
    made: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = client.batches.create(input_file_id=file.id, **made)
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "cancelled"
    assert lines_of(client, batch.error_file_id)["id-0"]["error"]["code"] == "batch_cancelled"


def test_without_batch_api_its_paths_are_404(server: LoadServer, client: Any) -> None:
    server.change(replace(server.behaviour, batch_api=False))
    with pytest.raises(openai.NotFoundError):
        client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
