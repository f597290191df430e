"""Log-probabilities under the reference, computed once and kept for every later DPO run: RUNS/reference/<key>/.

The reference never changes while DPO trains, so its log-probabilities are data. They depend on the frozen weights, the
SFT adapter, the dtype and the token ids of a pair, on nothing of DPO's own settings: a run with another beta, loss or
learning rate finds them here and runs no reference forward at all.

A key's folder holds shards that are named after the hash of their content, so processes can add to it side by side,
and a shard that is damaged is known by its name.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.common.console import say
from jobs.common.errors import DataError
from jobs.common.jsonl import read_json, sha256_file, sha256_json, write_atomic, write_json
from jobs.train.engine.pack import PairIds

FORMAT = 1
"""Changes when stored values change their meaning."""

SHARD_S = 60.0
"""Seconds of work that a kill can lose."""


class Logps(BaseModel):
    """What the reference says of one pair."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pair: str
    """SHA-256 of the pair's token ids."""
    chosen: float
    """Summed log-probability of the chosen side, an fp32 value."""
    rejected: float
    """The same of the rejected side."""
    chosen_tokens: int
    """Tokens behind `chosen`."""
    rejected_tokens: int
    """Tokens behind `rejected`."""


@dataclass(frozen=True)
class Key:
    """What can change a reference log-probability, besides the tokens."""

    base: str
    """Revision of the frozen weights."""
    quantization: str
    precision: str
    adapter_sha256: str
    """Of the SFT adapter's weights."""
    template_sha256: str
    format: int = FORMAT

    @property
    def sha256(self) -> str:
        """Name of the key's folder."""
        return sha256_json(asdict(self))


def pair_sha256(pair: PairIds) -> str:
    """SHA-256 of a pair's token ids, as they are trained."""
    return sha256_json([list(pair.prompt), list(pair.chosen), list(pair.rejected)])


class Store:
    """The stored log-probabilities of one key."""

    def __init__(self, folder: Path, key: Key) -> None:
        """Read what is there.

        Args:
            folder: RUNS/reference, shared by all runs.
            key: whose values.
        """
        self.folder = folder / key.sha256[:32]
        self._known: dict[str, Logps] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for found in _shard(path):
                self._known.setdefault(found.pair, found)

    def missing(self, pairs: Iterable[PairIds]) -> list[PairIds]:
        """The pairs that are not here, each once."""
        wanted = {pair_sha256(pair): pair for pair in pairs}
        return [pair for name, pair in wanted.items() if name not in self._known]

    def fill(self, pairs: list[PairIds], compute: Callable[[list[PairIds]], Iterator[list[Logps]]]) -> None:
        """Have pairs computed and keep their values.

        Args:
            pairs: what is missing.
            compute: runs the reference over pairs, some at a time, in any order.
        """
        fresh: list[Logps] = []
        saved = time.monotonic()
        try:
            for found in compute(pairs):
                fresh += found
                if time.monotonic() - saved >= SHARD_S:
                    self._add(fresh)
                    fresh, saved = [], time.monotonic()
        finally:  # what a signal interrupts is kept too
            self._add(fresh)

    def pick(self, pairs: Iterable[PairIds]) -> dict[str, Logps]:
        """The values of these pairs, which are all there."""
        return {name: self._known[name] for name in map(pair_sha256, pairs)}

    def _add(self, fresh: list[Logps]) -> None:
        if fresh:
            data = _lines(fresh)
            write_atomic(self.folder / f"{sha256(data).hexdigest()}.jsonl", data)
            self._known |= {one.pair: one for one in fresh}


def pin(path: Path, pairs: Sequence[PairIds], find: Callable[[], Mapping[str, Logps]], again: str) -> list[Logps]:
    """The values one run trains with, written beside it when it begins: a resumed run reads the same bits.

    Args:
        path: the run's own copy.
        pairs: what it trains and evaluates.
        find: where the values come from at the start.
        again: the command that trains dpo anew; for messages.

    Returns:
        One per pair, in their order.

    Raises:
        DataError: the copy is damaged, or is about other pairs.
    """
    names = list(map(pair_sha256, pairs))
    if not path.exists():
        found = find()
        write_json(path, {name: found[name].model_dump(exclude={"pair"}) for name in names})
    kept = read_json(path)
    try:
        return [Logps(pair=name, **kept[name]) for name in names]
    except (KeyError, TypeError, ValidationError) as error:
        raise DataError(f"{path} is damaged ({_first(error)}). Run: {again}") from error


def _shard(path: Path) -> list[Logps]:
    try:
        if sha256_file(path) != path.stem:
            raise ValueError("its content does not match its name")
        return _parse(path.read_bytes())
    except ValueError as error:
        say(f"{path} is damaged ({_first(error)}): its reference log-probabilities are computed again")
        with contextlib.suppress(FileNotFoundError):  # another process may have done so
            path.rename(path.with_suffix(".damaged"))
        return []


def _parse(data: bytes) -> list[Logps]:
    if data and not data.endswith(b"\n"):
        raise ValueError("its last line is cut off")
    return [Logps.model_validate_json(line) for line in data.splitlines()]


def _first(error: Exception) -> str:
    return error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)


def _lines(values: Iterable[Logps]) -> bytes:
    return b"".join((json.dumps(one.model_dump(), sort_keys=True) + "\n").encode() for one in values)


def summed(values: Sequence[Logps]) -> Any:
    """(2, pairs) fp32: chosen, rejected."""
    import torch

    return torch.tensor([[one.chosen for one in values], [one.rejected for one in values]], dtype=torch.float32)
