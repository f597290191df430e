"""Cases about not paying twice: kill -9 and rerun, a changed prompt, a budget that ends in the middle."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

from benchmarks.children import run_child
from benchmarks.command import Command
from benchmarks.measures import Bench, Case, Measure
from tests.fakes.load_behaviour import Behaviour
from tests.fakes.load_server import LoadServer

SLOW = Behaviour(latency_s=0.3)
KILLS, QUICK_KILLS = 20, 3
PROMPTS = 40
"""For each of three principles: 360 requests in chains."""
REDONE = 200
CHANGED = "thrift"
"""The principle whose critique request changes."""
STOPPED, DONE = 75, 0


def _kill(bench: Bench) -> Measure:
    draw = random.Random(bench.repeat)
    needless, different, in_flight, codes = 0, 0, [], set()
    wanted, tries = QUICK_KILLS if bench.quick else KILLS, 0
    with LoadServer(SLOW) as server:
        undisturbed = Command(bench.folder / "undisturbed", server.url, PROMPTS).prepare()
        codes.add(undisturbed.finish()[0])
        stats, expected = server.stats(), undisturbed.outputs()
        while len(in_flight) < wanted and tries < 2 * wanted:
            server.reset()
            tries += 1
            command = Command(bench.folder / f"kill-{tries}", server.url, PROMPTS).prepare()
            moment_s = draw.uniform(0.0, stats.last_reply_at - stats.first_at)
            if not command.kill_after(moment_s, lambda: server.stats().attempts > 0):
                continue  # it had ended before
            while server.stats().in_flight:
                time.sleep(0.01)
            in_flight.append(len(command.in_flight()))
            codes.add(command.finish()[0])
            needless += max(0, server.stats().repeated - in_flight[-1])
            different += command.outputs() != expected
    return Measure(
        value=needless,
        holds=different == 0 and codes == {DONE} and len(in_flight) == wanted,
        note=f"{len(in_flight)} kills with {min(in_flight)}-{max(in_flight)} requests in flight; "
        f"{different} outputs differ; exit {sorted(codes)}",
    )


def _changed(bench: Bench) -> Measure:
    texts = []
    with LoadServer() as server:
        for system in ("You are brief.", "You are thorough."):
            server.reset()
            spec = {"url": server.url, "folder": str(bench.folder), "requests": REDONE, "system": system}
            child = run_child("benchmarks.engine_run", spec)
            rows = map(json.loads, Path(bench.folder, "rows.jsonl").read_text(encoding="utf-8").splitlines())
            texts.append({row["number"]: row["text"] for row in rows})
        attempts = server.stats().attempts
    dependent = range(0, REDONE, 2)  # every second request has the system prompt
    stale = sum(texts[0][number] == texts[1][number] for number in dependent)
    changed = sum(texts[0][number] != texts[1][number] for number in range(1, REDONE, 2))
    return Measure(
        value=stale + changed + abs(attempts - len(dependent)),
        holds=child.said["rows"] == REDONE,
        rows=child.said["rows"],
        note=f"{attempts} of {len(dependent)} dependent items asked again, {stale} stale, {changed} others changed",
    )


def _principle(bench: Bench) -> Measure:
    with LoadServer() as server:
        command = Command(bench.folder, server.url, PROMPTS).prepare()
        codes, before = [command.finish()[0]], _revisions(command)
        text = command.constitution.read_text(encoding="utf-8")
        asked = f"Where does your last answer lack {CHANGED}?"
        command.constitution.write_text(text.replace(asked, f"{asked} Be exact."), encoding="utf-8")
        server.reset()
        codes.append(command.finish("--redo")[0])
        attempts, after = server.stats().attempts, _revisions(command)
    dependent = {name for name in before if name.startswith(CHANGED)}
    redone = {name for name in before if before[name] != after.get(name)}
    needed = 2 * len(dependent)  # critique and revision
    return Measure(
        value=len(redone ^ dependent) + abs(attempts - needed),
        holds=codes == [DONE, DONE] and text != command.constitution.read_text(encoding="utf-8"),
        rows=len(after),
        note=f"{attempts} of {needed} dependent requests sent, {len(redone)} of {len(dependent)} rows changed",
    )


def _revisions(command: Command) -> dict[str, str]:
    """Revision by id, over all tables of the stage."""
    found = {}
    for name in ("sft.jsonl", "pairs.jsonl", "held_out_sft.jsonl", "held_out_pairs.jsonl"):
        for line in (command.stage / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[row["id"]] = row.get("completion") or row["chosen"]
    return found


def _budget(bench: Bench) -> Measure:
    with LoadServer() as server:
        whole = Command(bench.folder / "whole", server.url, PROMPTS).prepare()
        whole_code, _ = whole.finish()
        need = _charged(server)
        server.reset()
        capped = Command(bench.folder / "capped", server.url, PROMPTS).prepare()
        cap = need // 2
        stop_code, said = capped.finish("--set", f"budget_tokens={cap}")
        spent = _charged(server)
        end_code, _ = capped.finish("--set", f"budget_tokens={100 * need}")
        total, stats = _charged(server), server.stats()
    same = capped.outputs() == whole.outputs()
    return Measure(
        value=spent / cap,
        holds=(whole_code, stop_code, end_code) == (DONE, STOPPED, DONE)
        and same
        and total == need
        and stats.repeated == 0
        and spent > 0,
        note=f"exit {stop_code} at {spent} of {cap} tokens, then exit {end_code}; "
        f"outputs {'identical' if same else 'DIFFER'}, {total - need} tokens paid twice"
        + ("" if stop_code == STOPPED else f"; said: {said[:120]}"),
    )


def _charged(server: LoadServer) -> int:
    stats = server.stats()
    sure = stats.charged_prompt_tokens + stats.charged_reply_tokens
    return sure + stats.maybe_prompt_tokens + stats.maybe_reply_tokens


CASES = [
    Case(
        "kill",
        f"kill -9 at {KILLS} random moments, rerun: requests sent again that were not in flight",
        "requests",
        0,
        "at most",
        _kill,
        0,
        once=True,
        condition="outputs byte for byte as undisturbed, exit 0",
    ),
    Case(
        "changed",
        "system prompt changed, rerun: items stale or asked in vain",
        "items",
        0,
        "at most",
        _changed,
        0,
        condition=f"{REDONE} rows",
    ),
    Case(
        "principle",
        "critique request of 1 of 3 principles changed, redone: rows and requests stale or in vain",
        "items",
        0,
        "at most",
        _principle,
        0,
        condition="exit 0",
    ),
    Case(
        "budget",
        "budget at half the need: spent / cap",
        "x",
        1.0,
        "at most",
        _budget,
        condition="exit 75, raised: exit 0, same data, nothing paid twice",
    ),
]
