"""The keys of an old file that name its datasets: they become mix-ins, and the run's own rows come first.

There a dataset came with the fraction of its rows to take; here with a multiple of our own rows. Where the sizes are
known, the proportions stay, and our own rows count as many as the constitutional rows did there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

from jobs.common.errors import ConfigError
from jobs.common.train_split import is_train_split
from jobs.prepare.recipe_import_draft import Draft, Line

ROWS = {
    ("HuggingFaceH4/ultrachat_200k", "train_sft"): 207_865,
    ("HuggingFaceH4/ultrafeedback_binarized", "train_prefs"): 61_135,
    ("HuggingFaceH4/ultrafeedback_binarized", "train_sft"): 61_135,
    ("HuggingFaceH4/cai-conversation-harmless", "train_sft"): 21_268,
    ("HuggingFaceH4/cai-conversation-harmless", "train_prefs"): 21_269,
}
"""Rows of the splits that published recipes mix, as of 2024."""


@dataclass(frozen=True)
class Part:
    """One split of one dataset, as the old file names it."""

    dataset: str
    split: str
    fraction: float
    """Share of its rows."""
    config: str = "default"

    @property
    def rows(self) -> float | None:
        """How many rows that is, where the size is known."""
        size = ROWS.get((self.dataset, self.split))
        return None if size is None else self.fraction * size


def datasets(draft: Draft, key: str, value: Any) -> Line:
    """`dataset_mixer`, `dataset_mixture`, `datasets` or `dataset_name`: mix-ins of this stage.

    Raises:
        ConfigError: the value has none of the known shapes.
    """
    try:
        parts = _parts(draft, key, value)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{draft.file.where((key,))}: {key}: not a list of datasets, found {value!r}.") from error
    refused = [f"{it.dataset}:{it.split} is no train split" for it in parts if not is_train_split(it.split)]
    refused += [f"{it.dataset} has no configuration here ({it.config})" for it in parts if it.config != "default"]
    taken = [it for it in parts if is_train_split(it.split) and it.config == "default" and it.fraction > 0]
    weights = _weights(taken)
    mixed = [
        {"dataset": it.dataset, "split": it.split, "weight": weight} for it, weight in zip(taken, weights, strict=True)
    ]
    if mixed:
        draft.put_here("mix_in", mixed)
    named = [f"{it.dataset}:{it.split} x {weight:g}" for it, weight in zip(taken, weights, strict=True)]
    became = f"{draft.stage}.mix_in: our own rows x 1, {', '.join(named)}" if named else "nothing"
    return Line(key, _short(parts), "lost" if refused else "renamed", "; ".join([became, *refused]))


def splits(draft: Draft, key: str, value: Any) -> Line:
    """`dataset_splits` or `dataset_train_split`: the training ones go into the mix-ins."""
    listed = value if isinstance(value, list) else [value]
    train = [str(split) for split in listed if is_train_split(str(split))]
    tests = [str(split) for split in listed if not is_train_split(str(split))]
    never = f"; never {', '.join(tests)}: held-out rows are the run's own" if tests else ""
    return Line(key, value, "renamed", f"{draft.stage}.mix_in.split: {', '.join(train) or 'none'}{never}")


def configuration(draft: Draft, key: str, value: Any) -> Line:
    """`dataset_config` or `dataset_configs`: only the default one can be mixed in."""
    default = all(one in (None, "default") for one in (value if isinstance(value, list) else [value]))
    return Line(key, value, "dead" if default else "lost", "mix-ins are read in their default configuration")


def _parts(draft: Draft, key: str, value: Any) -> list[Part]:
    if key == "dataset_name":
        split = draft.old.get("dataset_train_split") or "train"
        return [Part(str(value), str(split), 1.0, str(draft.old.get("dataset_config") or "default"))]
    if key == "dataset_mixer":
        named = draft.old.get("dataset_splits") or ["train"]
        trained = [str(split) for split in named if is_train_split(str(split))]
        return [Part(str(it), split, float(share)) for (it, share), split in product(value.items(), trained)]
    return list(_listed(value["datasets"] if key == "dataset_mixture" else value))


def _listed(items: Iterable[dict[str, Any]]) -> Iterable[Part]:
    for item in items:
        weight = item.get("weight")
        yield Part(
            str(item["id"] if "id" in item else item["path"]),
            str(item.get("split") or "train"),
            1.0 if weight is None else float(weight),
            str(item.get("config") or item.get("name") or "default"),
        )


def _weights(parts: list[Part]) -> list[float]:
    rows = [it.rows for it in parts]
    known = [count for count in rows if count is not None]
    if len(known) < len(rows):
        return [it.fraction for it in parts]
    constitutional = [count for it, count in zip(parts, known, strict=True) if "cai-" in it.dataset]
    return [max(round(count / (constitutional or known)[0], 2), 0.01) for count in known]


def _short(parts: list[Part]) -> str:
    return ", ".join(f"{it.dataset.rsplit('/', 1)[-1]} {it.fraction:g}" for it in parts)
