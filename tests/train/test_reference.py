"""The store of reference log-probabilities: exact values, damaged shards named, safe for several processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from jobs.common.errors import DataError
from jobs.common.jsonl import read_json, write_json
from jobs.train.engine.pack import PairIds
from jobs.train.reference import Key, Logps, Store, pair_sha256, pin, summed

AGAIN = "cai dpo --run r --recipe mine.yaml --redo"
KEY = Key(base="rev", quantization="none", precision="fp32", adapter_sha256="a", template_sha256="t")


def pairs(count: int, first: int = 0) -> list[PairIds]:
    return [PairIds([1, 2], [3, first + i], [4]) for i in range(count)]


def said(pair: PairIds, chosen: float = -1.5) -> Logps:
    return Logps(pair=pair_sha256(pair), chosen=chosen, rejected=-2.0, chosen_tokens=2, rejected_tokens=1)


def compute(wanted: list[PairIds]) -> Iterator[list[Logps]]:
    for pair in wanted:
        yield [said(pair)]


def fill(folder: Path, wanted: list[PairIds]) -> None:
    store = Store(folder, KEY)
    store.fill(store.missing(wanted), compute)


def test_what_was_computed_once_is_never_missing_again(tmp_path: Path) -> None:
    fill(tmp_path, pairs(3))
    again = Store(tmp_path, KEY)

    assert again.missing(pairs(5)) == pairs(2, first=3)
    assert again.pick(pairs(3)) == {pair_sha256(pair): said(pair) for pair in pairs(3)}


def test_the_same_pair_twice_is_missing_once(tmp_path: Path) -> None:
    assert Store(tmp_path, KEY).missing([*pairs(2), *pairs(2)]) == pairs(2)


@pytest.mark.parametrize("field", [field.name for field in fields(Key)])
def test_every_part_of_the_key_counts(tmp_path: Path, field: str) -> None:
    fill(tmp_path, pairs(2))
    changed: dict[str, Any] = {field: 2 if field == "format" else "other"}
    other = replace(KEY, **changed)

    assert Store(tmp_path, other).missing(pairs(2)) == pairs(2)


@given(some.lists(some.integers(0, 9), min_size=1, max_size=4), some.lists(some.integers(0, 9), min_size=1, max_size=4))
def test_ids_that_are_cut_elsewhere_are_other_pairs(prompt: list[int], chosen: list[int]) -> None:
    whole = PairIds(prompt, chosen, [1])

    assert pair_sha256(whole) != pair_sha256(PairIds([*prompt, chosen[0]], chosen[1:], [1]))
    assert pair_sha256(whole) == pair_sha256(PairIds(tuple(prompt), tuple(chosen), (1,)))


@settings(max_examples=50)
@given(some.floats(width=32, allow_nan=False, allow_infinity=False, max_value=0))
def test_fp32_values_come_back_to_the_bit(value: float) -> None:
    text = json.dumps(said(pairs(1)[0], value).model_dump())
    kept = Logps.model_validate_json(text)

    assert numpy.float32(summed([kept])[0, 0].item()).tobytes() == numpy.float32(value).tobytes()


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: data.replace(b"-1.5", b"-1.6"), lambda _: b""])
def test_a_damaged_shard_is_named_set_aside_and_missing(
    tmp_path: Path, damage: object, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, pairs(2))
    fill(tmp_path, pairs(4))
    shard = next(path for path in sorted(tmp_path.rglob("*.jsonl")) if pair_sha256(pairs(1)[0]) in path.read_text())
    shard.write_bytes(damage(shard.read_bytes()))  # type: ignore[operator]

    store = Store(tmp_path, KEY)

    assert store.missing(pairs(4)) == pairs(2)
    assert f"{shard} is damaged" in capsys.readouterr().err
    assert shard.with_suffix(".damaged").exists()
    fill(tmp_path, pairs(4))
    assert Store(tmp_path, KEY).missing(pairs(4)) == []


def test_work_that_is_interrupted_keeps_what_it_had(tmp_path: Path) -> None:
    def stops(wanted: list[PairIds]) -> Iterator[list[Logps]]:
        yield [said(wanted[0])]
        raise KeyboardInterrupt

    store = Store(tmp_path, KEY)
    with pytest.raises(KeyboardInterrupt):
        store.fill(pairs(3), stops)

    assert Store(tmp_path, KEY).missing(pairs(3)) == pairs(2, first=1)


def test_processes_add_side_by_side(tmp_path: Path) -> None:
    context = get_context("fork")
    workers = [context.Process(target=fill, args=(tmp_path, pairs(20, first=10 * i))) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)

    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert Store(tmp_path, KEY).missing(pairs(50)) == []


def test_a_pinned_copy_does_not_change_when_the_store_does(tmp_path: Path) -> None:
    path, wanted = tmp_path / "reference.json", pairs(2)
    first = pin(path, wanted, lambda: {pair_sha256(pair): said(pair) for pair in wanted}, AGAIN)

    again = pin(path, wanted, lambda: pytest.fail("asked again"), AGAIN)

    assert again == first == [said(pair) for pair in wanted]


@pytest.mark.parametrize("change", [{"chosen": "x"}, {"chosen": float("inf")}, {"more": 1}])
def test_a_pinned_copy_that_is_damaged_or_about_other_pairs_stops(tmp_path: Path, change: dict[str, object]) -> None:
    path, wanted = tmp_path / "reference.json", pairs(2)
    pin(path, wanted, lambda: {pair_sha256(pair): said(pair) for pair in wanted}, AGAIN)

    with pytest.raises(DataError, match=f"reference.json is damaged .* Run: {AGAIN}"):
        pin(path, pairs(3), dict, AGAIN)
    found = read_json(path)
    write_json(path, found | {pair_sha256(wanted[0]): found[pair_sha256(wanted[0])] | change})
    with pytest.raises(DataError, match=f"reference.json is damaged .* Run: {AGAIN}"):
        pin(path, wanted, dict, AGAIN)


def test_processes_share_what_the_first_found_missing_however_late_they_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.train import start

    wanted, told = pairs(6), []

    def of_first(value: Any) -> Any:
        told.append(value)
        return told[0]

    def reference(rank: int, wait: Any) -> Any:
        where: Any = SimpleNamespace(process_index=rank, num_processes=2, wait_for_everyone=wait)
        nothing: Any = None
        return start.Reference(tmp_path, KEY, nothing, nothing, nothing, where, AGAIN)

    monkeypatch.setattr(start, "of_first", of_first)
    monkeypatch.setattr(start.Reference, "_compute", lambda _, given: compute(given))
    late = reference(1, lambda: None)

    found = reference(0, lambda: late.find(wanted)).find(wanted)  # the second looks when the first has stored its share

    assert found.keys() == {pair_sha256(pair) for pair in wanted}
