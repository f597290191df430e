"""`cai plan`: the real run stays inside its bounds, and what it says fits the recipe."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jobs.__main__ import main
from jobs.common.recipe import load_recipe
from jobs.common.settings import Recipe
from jobs.common.stage import RunContext
from jobs.generate.journal import open_journal
from jobs.generate.journal_records import Attempt, Reply
from jobs.generate.plan_cost import dollars, minutes
from jobs.generate.plan_habits import LEAST_REPLIES, read_habits
from jobs.generate.plan_span import Step
from jobs.generate.plan_steps import Counting
from jobs.generate.requests import Turn
from jobs.generate.tokens import load_tokenizer
from jobs.generate.wording_twins import CRITIQUE_REQUEST, REVISION_REQUEST
from tests.fakes.openai_server import Answer, FakeServer, sentence
from tests.generate.world import KEY, PRINCIPLES, World, finish_fetch, write_constitution

FEW_SHOT = """
few_shot:
  - principle: honesty
    prompt: How do I tell my boss that I was ill when I was not?
    initial_response: Say that you had a fever and sound hoarse on the phone.
    critique: The answer helps to lie to the boss.
    revision: Tell your boss plainly that you took the day, and offer to make it up.
"""


@dataclass
class Scripted:
    """Answers like a model that is now and then cut off, and counts its tokens exactly."""

    faulty: int
    """Replies of a hundred that are cut off."""
    words: int
    tries: int
    lists_cut: set[str] = field(default_factory=set)
    """Principles that had a list of prompts cut off; a second one in a row would leave a principle short."""
    usable_twins: bool = True
    used: dict[str, Counter[str]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, body: dict[str, Any]) -> Answer:
        step, messages = step_of(body), json.dumps(body["messages"])
        self.seen[messages] += 1
        again = f"{messages}{self.seen[messages]}"
        cut = zlib.crc32(again.encode()) % 100 < self.faulty
        if step == "red-team prompts":
            principle = next(one for one in PRINCIPLES if f"value of {one}" in body["messages"][-1]["content"])
            cut = cut and principle not in self.lists_cut
            self.lists_cut.update([principle] * cut)
        elif self.seen[messages] >= self.tries:
            cut = False  # the last try of a text is always usable
        text = sentence(again, self.words)
        if step == "verdicts":
            text, cut = "AB"[zlib.crc32(again.encode()) % 2], False
        if not cut and step in ("red-team prompts", "benign twins"):
            text = self._prompts(body) if step == "red-team prompts" else self._twin(body)
        tokenizer = load_tokenizer()
        turns = tuple(Turn(message["role"], message["content"]) for message in body["messages"])
        tokens_in, tokens_out = tokenizer.prompt_tokens(turns), tokenizer.count(text)
        assert tokens_out <= body["max_tokens"]
        tokens_out = body["max_tokens"] if cut else tokens_out
        self.used.setdefault(step, Counter()).update(requests=1, tokens_in=tokens_in, tokens_out=tokens_out)
        return completion(text, "length" if cut else "stop", tokens_in, tokens_out)

    def _prompts(self, body: dict[str, Any]) -> str:
        last = body["messages"][-1]["content"]
        count = int(last.split("Write ")[1].split(" ")[0]) if "different messages" in last else 1
        texts = [sentence(f"{body}{self.seen}{number}", self.words) for number in range(count)]
        return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))

    def _twin(self, body: dict[str, Any]) -> str:
        prompt = body["messages"][-1]["content"].split("\nMessage: ")[1].split("\n")[0]
        return prompt if not self.usable_twins else " ".join(["Kindly", *prompt.split()[1:]])


def completion(text: str, finish_reason: str, tokens_in: int, tokens_out: int) -> Answer:
    message = {"role": "assistant", "content": text}
    body = {
        "id": "fake",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out},
    }
    return Answer(body=json.dumps(body).encode())


def step_of(body: dict[str, Any]) -> str:
    last = body["messages"][-1]["content"]
    if "\nMessage: " in last and "Change" in last:
        return "benign twins"
    for words, step in (
        ("Reply with one letter", "verdicts"),
        ("Rewrite the answer in ", "rewrites"),
        ("bad example", "minimal edits"),
    ):
        if words in last:
            return step
    if last.startswith(("Where does", CRITIQUE_REQUEST)):
        return "critiques"
    if last.startswith(("Rewrite the answer", REVISION_REQUEST.split("{")[0])):
        return "revisions"
    invented = last.startswith("Write the answer")
    return "initial responses" if body["model"] == "fake-student" or invented else "red-team prompts"


@contextmanager
def tiny_world(folder: Path, generate: dict[str, Any], answers: Scripted, more: str) -> Iterator[World]:
    folder.mkdir()
    constitution = folder / "tiny.yaml"
    write_constitution(constitution)
    constitution.write_text(constitution.read_text(encoding="utf-8") + FEW_SHOT, encoding="utf-8")
    with FakeServer(answers) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.url)
        patch.setenv("OPENAI_API_KEY", KEY)
        (folder / "tiny-recipe.yaml").write_text(
            f"constitution: {constitution}\n{more.replace('URL', server.url)}\ngenerate: {json.dumps(generate)}\n",
            encoding="utf-8",
        )
        world = World(folder, server)
        finish_fetch(world.context)
        yield world


def step_named(name: str, recipe: Recipe) -> Step:
    return next(step for step in steps_of(RunContext(recipe, "x", Path("nowhere"))) if step.name == name)


def steps_of(context: RunContext) -> list[Step]:
    return Counting(context.recipe, context.constitution(), read_habits(context.recipe, context.journal)).steps()


@settings(max_examples=5, phases=[Phase.explicit, Phase.generate])
@given(
    wanted=st.integers(1, 5),
    per_request=st.integers(1, 3),
    few_shot=st.integers(0, 1),
    words=st.integers(8, 20),
    faulty=st.sampled_from([0, 30, 90]),
    structured=st.sampled_from(["auto", "on", "off"]),
    initial=st.sampled_from(["URL", "teacher"]),
    twins=st.sampled_from(["none", "usable", "unusable"]),
    judge=st.sampled_from(["off", "mean"]),
)
def test_a_run_stays_inside_the_plan(tmp_path_factory: pytest.TempPathFactory, **drawn: Any) -> None:
    most = -(-drawn["wanted"] // drawn["per_request"]) + 5
    generate = {
        "prompts_per_principle": drawn["wanted"],
        "prompts_per_request": drawn["per_request"],
        "max_requests_per_principle": most,
        "few_shot": drawn["few_shot"],
        "prompt_tokens": 70 * drawn["per_request"],
        "response_tokens": 70,
        "critique_tokens": 60,
        "benign_twins": drawn["twins"] != "none",
        "max_revisions": 2,
        "balance": drawn["judge"] != "off",
    }
    more = (
        f"teacher: {{endpoint: api, model: fake-teacher, concurrency: 8, structured: {drawn['structured']}}}\n"
        f"initial: {{endpoint: '{drawn['initial']}', model: fake-student}}\n"
        f"judge: {{rule: '{drawn['judge']}'}}"
    )
    answers = Scripted(drawn["faulty"], drawn["words"], tries=4, usable_twins=drawn["twins"] == "usable")
    with tiny_world(tmp_path_factory.mktemp("plan") / "world", generate, answers, more) as world:
        steps = steps_of(world.context)
        assert world.generate() in {0, 65}  # 65: this judge may let no row pass
    assert set(answers.used) <= {step.name for step in steps}
    assert {step.name for step in steps if step.requests.least} <= set(answers.used)
    for step in steps:
        used = answers.used.get(step.name, Counter())
        for name, span in (
            ("requests", step.requests),
            ("tokens_in", step.tokens_in),
            ("tokens_out", step.tokens_out),
        ):
            assert span.least <= used[name] <= span.most, (step.name, name, used[name], span)
            assert span.least <= span.likely <= span.most


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main(["plan", *arguments])
    found = capsys.readouterr()
    assert code == 0, found.err
    return found.out


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without runs, no key, and a base URL that nobody listens at."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("CAI_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.mark.parametrize("recipe", ["demo", "romania-smoke", "smollm2-135m", "smollm2-1.7b", "mistral-7b"])
def test_every_recipe_has_a_plan_without_key_fetch_or_endpoint(
    recipe: str, nothing_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = plan(capsys, "--recipe", recipe).splitlines()
    named = [line.split("  ")[0] for line in lines[6:14]]
    assert [name for name in named if name not in {"benign twins", "verdicts"}][:5] == [
        "red-team prompts",
        "initial responses",
        "critiques",
        "revisions",
        "rewrites",
    ]
    assert max(map(len, lines)) <= 110
    assert {len(line) for line in lines[3:13]} == {110}
    assert not nothing_set.exists()


def test_a_file_of_initial_responses_takes_no_request() -> None:
    step = step_named("initial responses", load_recipe("mistral-7b"))
    assert step.requests.most == step.tokens_in.most == step.tokens_out.most == 0


def test_prices_discount_and_age_are_told(nothing_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--set", "teacher.mode=batch", "--set", "teacher.price.batch_discount=0.25"]
    recipe = load_recipe("smollm2-135m")
    step = step_named("revisions", recipe)
    whole, batch = dollars(step, recipe), dollars(step, load_recipe("smollm2-135m", sets[1::2]))
    assert whole
    assert batch
    assert batch.most == pytest.approx(0.75 * whole.most)
    assert whole.likely == pytest.approx((step.tokens_in.likely * 0.15 + step.tokens_out.likely * 0.6) / 1e6)
    text = plan(capsys, "--recipe", "smollm2-135m", *sets)
    assert "teacher.price of 2025-01-31: $0.15 in, $0.6 out per million tokens, 25% less as a batch" in text
    assert "read the prices again" in text
    today = datetime.now(UTC).date().isoformat()
    assert "read the prices again" not in plan(
        capsys, "--recipe", "smollm2-135m", "--set", f"teacher.price.dated='{today}'"
    )


def test_a_missing_price_is_unknown_and_named(nothing_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ("--set", "initial.endpoint=https://models.example.com/v1", "--set", "budget_usd=9")
    text = plan(capsys, "--recipe", "smollm2-135m", *sets)
    assert "dollars: unknown, put initial.price in the recipe" in text
    assert next(line for line in text.splitlines() if line.startswith("initial responses")).count("unknown") == 1
    assert "budget_usd 9: cannot be kept without a price" in text


def test_a_student_in_the_users_own_network_is_free_as_it_is_in_the_run(
    nothing_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ("--set", "initial.endpoint=http://10.0.0.7:8000/v1", "--set", "budget_usd=99")
    text = plan(capsys, "--recipe", "smollm2-135m", *sets)
    assert "dollars: a student in your own network counts as free, without an initial.price" in text
    assert "unknown" not in text
    assert "budget_usd 99: fits even the worst case" in text


@pytest.mark.parametrize(
    ("usd", "said"),
    [(0.001, "below the likely case"), (2, "fits the likely case (1."), (99, "fits even the worst case")],
)
def test_a_budget_is_judged(usd: float, said: str, nothing_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = plan(capsys, "--recipe", "smollm2-135m", "--set", f"budget_usd={usd}")
    assert f"budget_usd {usd}: {said}" in text
    assert "budget_tokens: not set" in text


def test_what_the_journal_holds_replaces_the_assumption(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = open_journal(tmp_path / "journal")
    for number in range(LEAST_REPLIES):
        attempt = Attempt(f"{number:064x}", "other", "api.openai.com", "gpt-4o-mini", "critique", 900, 384)
        reply = Reply(text="x", finish_reason="stop", prompt_tokens=5, reply_tokens=100 + number, model="gpt-4o-mini")
        journal.settle(journal.begin(attempt), reply)
    journal.close()
    habits = read_habits(load_recipe("smollm2-135m"), tmp_path / "journal")
    assert habits.journalled == {"critique": LEAST_REPLIES}
    assert habits.written["critique"] == 100 + (LEAST_REPLIES - 1) / 2
    text = plan(capsys, "--recipe", "smollm2-135m", "--runs", str(tmp_path))
    assert f"critique 110* (of {LEAST_REPLIES}), revision 280 (* mean of the latest" in " ".join(text.split())


@pytest.mark.parametrize("change", ["initial.endpoint=nowhere", "teacher.tries=2", "constitution=atlantis"])
def test_a_bad_recipe_is_one_line(change: str, nothing_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--set", change]) == 78
    found = capsys.readouterr()
    assert found.out == ""
    assert len(found.err.strip().splitlines()) == 1


def test_a_student_at_the_teachers_host_is_charged_like_the_teacher(nothing_set: Path) -> None:
    recipe = load_recipe("smollm2-135m", ["initial.endpoint=http://127.0.0.1:9/v1"])
    cost = dollars(step_named("initial responses", recipe), recipe)
    assert cost
    assert cost.likely > 0


def test_limits_per_minute_lengthen_the_run(nothing_set: Path) -> None:
    limited = load_recipe("smollm2-135m", ["teacher.requests_per_minute=10", "teacher.tokens_per_minute=1000"])
    critiques = step_named("critiques", limited)
    tokens = critiques.tokens_in.likely + critiques.tokens_out.likely
    assert minutes(critiques, limited).likely == pytest.approx(max(critiques.requests.likely / 10, tokens / 1000))
