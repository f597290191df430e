"""Shared five-character pieces of two texts, estimated by MinHash (Broder 1997) and then counted.

MinHash signatures of 128 values in 25 bands of 5 propose pairs; a pair counts where the exact Jaccard index of its
pieces is `SAME_PIECES` or more, because bands alone also propose one in twenty pairs of an index of 0.3. One text after
another goes through datasketch; many at once through numpy, with the same permutations and the same values, eight times
as fast.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH

SAME_PIECES = 0.5
"""Jaccard index of the five-character pieces from which two texts count as nearly the same."""
_PIECE = 5
_PERMUTATIONS = 128
_SCHEME = "affine32"
_FIRST = MinHash(num_perm=_PERMUTATIONS, scheme=_SCHEME)
_BUCKET = 50
_TEXTS = 1000
"""Texts at once: their pieces stay in the processor's cache."""


def pieces(text: str) -> set[str]:
    """All runs of five characters, in small letters, white space as one blank."""
    flat = _flat(text)
    return {flat[start : start + _PIECE] for start in range(max(1, len(flat) - _PIECE + 1))}


def shared_pieces(one: str, other: str) -> float:
    """Exact Jaccard index of two texts' pieces."""
    first, second = _numbers(one), _numbers(other)
    places = np.minimum(np.searchsorted(second, first), len(second) - 1)
    both = int(np.count_nonzero(second[places] == first))
    return both / (len(first) + len(second) - both)


def signature(text: str) -> MinHash:
    """MinHash of a text's pieces, the same in every process."""
    sketch = MinHash(num_perm=_PERMUTATIONS, permutations=_FIRST.permutations, scheme=_SCHEME, hashfunc=_hash)
    sketch.update_batch(pieces(text))
    return sketch


def signatures(texts: Sequence[str]) -> Any:
    """The values of `signature` for many texts: uint32, texts x 128."""
    values = np.empty((len(texts), _PERMUTATIONS), dtype=np.uint32)
    for start in range(0, len(texts), _TEXTS):
        hashes, firsts = _hashes(texts[start : start + _TEXTS])
        for at, (factor, shift) in enumerate(zip(*_FIRST.permutations, strict=True)):
            values[start : start + _TEXTS, at] = np.minimum.reduceat(hashes * factor + shift, firsts)
    return values


def bands() -> MinHashLSH:
    """An empty index that proposes pairs around `SAME_PIECES`."""
    return MinHashLSH(threshold=SAME_PIECES, num_perm=_PERMUTATIONS)


def proposed(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of positions that share a band, smaller first; a pair may come more than once.

    Of a bucket with more than 50 texts only neighbours and the first are paired, so that thousands of equal texts
    stay linear; they still end in one cluster.
    """
    index, values = bands(), signatures(texts)
    for band in range(index.b if len(texts) > 1 else 0):
        rows = values[:, band * index.r : (band + 1) * index.r]
        order = np.lexsort(rows.T)
        same = (rows[order[1:]] == rows[order[:-1]]).all(axis=1)
        # Where equal neighbours begin and end: most texts are alone, and only the others are walked in Python.
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]))).tolist()
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            yield from _pairs(sorted(order[start : end + 1].tolist()))


def _pairs(rows: Sequence[int]) -> Iterable[tuple[int, int]]:
    if len(rows) <= _BUCKET:
        return ((one, other) for at, other in enumerate(rows) for one in rows[:at])
    return ((one, other) for at, other in enumerate(rows) for one in {rows[0], rows[at - 1]} if at)


def _flat(text: str) -> str:
    return re.sub(r"[\s\0]+", " ", text.lower())


def _hashes(texts: Sequence[str]) -> tuple[Any, Any]:
    """Mixed hashes of the texts' pieces one after another, and where each text's begin."""
    # A text shorter than a piece is one piece: filled up here, stripped again before it is hashed.
    flat = [_flat(text).ljust(_PIECE, "\0") for text in texts]
    joined = "".join(flat)
    sizes = np.array([len(text) for text in flat])
    counts = sizes - _PIECE + 1
    firsts = np.cumsum(counts) - counts
    starts = np.arange(counts.sum()) - np.repeat(firsts, counts) + np.repeat(np.cumsum(sizes) - sizes, counts)
    _, where, which = np.unique(_keys(joined)[starts], return_index=True, return_inverse=True)
    begins = starts[where].tolist()
    hashes = np.array([_hash(joined[begin : begin + _PIECE].rstrip("\0")) for begin in begins], dtype=np.uint32)
    return _mixed(hashes)[which], firsts


def _keys(flat: str) -> Any:
    """A number for each piece; numbers of different pieces differ, but for one chance in 2**64."""
    letters = np.frombuffer(flat.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    count = len(letters) - _PIECE + 1
    keys = np.zeros(count, dtype=np.uint64)
    for at in range(_PIECE):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + letters[at : at + count]
    return keys


@lru_cache(maxsize=1 << 13)
def _numbers(text: str) -> Any:
    """The keys of a text's pieces, each once: kept, because a text is held against many where prompts begin alike."""
    return np.unique(_keys(_flat(text).ljust(_PIECE, "\0")))


def _mixed(hashes: Any) -> Any:
    """The finalizer of MurmurHash3, with which datasketch prepares hashes for its permutations."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


@lru_cache(maxsize=1 << 18)
def _hash(piece: str) -> int:
    # 32 bits of SHA-1, as datasketch's own default: most pieces come again, so most are looked up.
    data = piece.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest()[:4], "little")
