"""What a run has paid: exact for every reply, the worst case for those that never came, over all its processes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.common.errors import ConfigError
from jobs.common.generate_settings import PriceSettings
from jobs.common.stage import RunContext
from jobs.generate.accounts import OWN_SERVER, account, open_budget, tariffs
from jobs.generate.endpoint import Endpoint
from jobs.generate.journal import Attempt, Journal, Reply, open_journal
from jobs.generate.opening import Endpoints
from tests.fakes.openai_server import Answer
from tests.generate.world import World

PRICE = PriceSettings(input_usd_per_million_tokens=1, output_usd_per_million_tokens=4, dated="2026-11-01")
CHEAP = PriceSettings(input_usd_per_million_tokens=0.1, output_usd_per_million_tokens=0.4, dated="2026-11-01")
TEACHER = Endpoint("api.example", "big", ("https://api.example/v1",), "auto")
STUDENT = Endpoint("student.example", "small", ("https://student.example/v1",), "off")
EMBEDDED = Endpoint("embedded:abc", "smollm2", ("http://127.0.0.1:8081/v1",), "off")


def priced(
    context: RunContext, teacher: PriceSettings | None, initial: PriceSettings | None, **more: Any
) -> RunContext:
    recipe = context.recipe
    url = more.pop("url", "https://student.example/v1")
    sections = {
        "teacher": recipe.teacher.model_copy(update={"price": teacher, "endpoint": "api"}),
        "initial": recipe.initial.model_copy(update={"price": initial, "endpoint": url}),
    }
    return replace(context, recipe=recipe.model_copy(update=sections | more))


def attempt(run: str, endpoint: Endpoint, number: int, batch: bool = False) -> Attempt:
    return Attempt(f"{number:064x}", run, endpoint.logical, endpoint.model, "critique", 1000, 500, batch)


def pay(journal: Journal, run: str, endpoint: Endpoint, number: int, batch: bool = False) -> None:
    reply = Reply(text="x", finish_reason="stop", prompt_tokens=100, reply_tokens=50, model="m", batch=batch)
    journal.settle(journal.begin(attempt(run, endpoint, number, batch)), reply)


def test_each_reply_counts_at_its_own_endpoints_price(context: RunContext, tmp_path: Path) -> None:
    context, endpoints = priced(context, PRICE, CHEAP), Endpoints(TEACHER, STUDENT)
    prices = tariffs(context, endpoints)
    with closing(open_journal(tmp_path)) as journal:
        pay(journal, "demo", TEACHER, 1)
        pay(journal, "demo", STUDENT, 2)
        pay(journal, "demo", EMBEDDED, 3)
        pay(journal, "demo", replace(TEACHER, model="an earlier recipe's"), 4)
        pay(journal, "demo", TEACHER, 5, batch=True)
        pay(journal, "another run", TEACHER, 6)
        found = account(context, journal, prices)
        budget = open_budget(context, journal, endpoints, prices, "cai generate")
    full = 300 / 1e6
    assert found["spent_usd"] == pytest.approx(full + full / 10 + 0 + full + full / 2)
    assert budget.spent.usd == pytest.approx(found["spent_usd"])
    assert budget.spent.tokens == 4 * 150  # the embedded one takes no tokens that are paid for
    assert sorted(one["usd"] for one in found["paid"]) == pytest.approx([0, full / 10, full / 2, full, full])
    assert (found["lost_requests"], found["lost"]) == (0, [])


def test_what_never_came_counts_at_its_worst_case_also_in_the_next_process(context: RunContext, tmp_path: Path) -> None:
    context, endpoints = priced(context, PRICE, CHEAP), Endpoints(TEACHER, STUDENT)
    prices = tariffs(context, endpoints)
    with closing(open_journal(tmp_path)) as journal:
        pay(journal, "demo", TEACHER, 1)
        journal.lose(journal.begin(attempt("demo", TEACHER, 2)), "timeout")
        journal.release(journal.begin(attempt("demo", TEACHER, 3)))
        journal.begin(attempt("demo", TEACHER, 4))  # in flight when the process is killed
        journal.begin(attempt("another run", TEACHER, 5))
    with closing(open_journal(tmp_path)) as journal:
        found = account(context, journal, prices)
        budget = open_budget(context, journal, endpoints, prices, "cai generate")
    worst = (1000 + 500 * 4) / 1e6
    assert [one["reason"] for one in found["lost"]] == ["timeout", "in flight"]
    assert {one["step"] for one in found["lost"]} == {"critique"}
    assert found["lost_at_worst_usd"] == pytest.approx(2 * worst)
    assert found["spent_usd"] == pytest.approx(2 * worst + 300 / 1e6)
    assert budget.spent.usd == pytest.approx(found["spent_usd"])
    assert budget.spent.tokens == 150 + 2 * 1500


def test_an_unknown_price_is_unknown_and_not_zero(context: RunContext, tmp_path: Path) -> None:
    context = priced(context, None, CHEAP)
    with closing(open_journal(tmp_path)) as journal:
        pay(journal, "demo", TEACHER, 1)
        pay(journal, "demo", STUDENT, 2)
        found = account(context, journal, tariffs(context, Endpoints(TEACHER, STUDENT)))
    assert found["spent_usd"] is None
    assert sorted(one["prompt_tokens"] for one in found["paid"]) == [100, 100]


def test_every_lost_request_is_listed(context: RunContext, tmp_path: Path) -> None:
    context = priced(context, PRICE, PRICE)
    with closing(open_journal(tmp_path)) as journal:
        for number in range(120):
            journal.lose(journal.begin(attempt("demo", TEACHER, number)), "timeout")
        found = account(context, journal, tariffs(context, Endpoints(TEACHER, None)))
    assert len(found["lost"]) == found["lost_requests"] == 120
    assert found["lost_at_worst_usd"] == pytest.approx(120 * 3000 / 1e6)


@pytest.mark.parametrize(
    ("url", "student", "expected"),
    [
        ("https://student.example/v1", STUDENT, None),
        ("http://10.0.0.7:8000/v1", replace(STUDENT, logical="10.0.0.7:8000"), OWN_SERVER),
        ("http://vllm:8000/v1", replace(STUDENT, logical="vllm:8000"), OWN_SERVER),
        ("https://api.example/v1", replace(TEACHER, model="small"), PRICE),
        ("embedded", EMBEDDED, None),
    ],
    ids=["elsewhere", "own network", "compose service", "the teacher's host", "embedded"],
)
def test_the_students_price_where_the_recipe_names_none(
    context: RunContext, url: str, student: Endpoint, expected: PriceSettings | None
) -> None:
    found = tariffs(priced(context, PRICE, None, url=url), Endpoints(TEACHER, student))
    tariff = found.of(student.logical, student.model)
    assert tariff.price == expected
    assert tariff.free == student.is_embedded
    assert found.of(TEACHER.logical, TEACHER.model).price == PRICE


@pytest.mark.parametrize(
    ("teacher", "initial", "student", "said"),
    [
        (None, CHEAP, STUDENT, "teacher.price"),
        (PRICE, None, STUDENT, "initial.price"),
        (PRICE, None, EMBEDDED, None),
        (PRICE, None, None, None),
    ],
    ids=["no teacher price", "no student price", "embedded student", "no student"],
)
def test_capped_dollars_need_every_price(
    context: RunContext,
    teacher: PriceSettings | None,
    initial: PriceSettings | None,
    student: Endpoint | None,
    said: str | None,
) -> None:
    url = "embedded" if student == EMBEDDED else "file" if student is None else "https://student.example/v1"
    capped = priced(context, teacher, initial, url=url, budget_usd=2.0)
    if said is None:
        tariffs(capped, Endpoints(TEACHER, student))
        return
    with pytest.raises(ConfigError, match=said) as error:
        tariffs(capped, Endpoints(TEACHER, student))
    assert "budget_usd is 2" in str(error.value)
    tariffs(priced(context, teacher, initial, url=url), Endpoints(TEACHER, student))  # without a cap nothing is asked


def test_the_manifest_has_the_whole_runs_account_and_a_redo_adds_nothing(world: World) -> None:
    price = "teacher.price={input_usd_per_million_tokens: 1.0, output_usd_per_million_tokens: 4.0, dated: '2026-11-01'}"
    assert world.sets(price) == 0
    first = world.manifest()["measures"]["account"]
    assert sum(one["requests"] for one in first["paid"]) == len(world.server.answered)
    assert sum(one["prompt_tokens"] for one in first["paid"]) == 10 * len(world.server.answered)
    assert first["spent_usd"] == pytest.approx(len(world.server.answered) * (10 * 1 + 5 * 4) / 1e6)
    assert world.generate("--redo", "--set", price) == 0
    assert world.manifest()["measures"]["account"] == first


def test_rejected_replies_are_paid_for_and_counted(world: World) -> None:
    world.server.enqueue(
        *[Answer(content="")] * 3, Answer(status=500), Answer(status=429, headers={"Retry-After": "0"})
    )
    assert world.generate() == 0
    found = world.manifest()["measures"]["account"]
    assert sum(one["requests"] for one in found["paid"]) == len(world.server.answered)
    assert found["lost_requests"] == 0
