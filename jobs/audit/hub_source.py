"""A dataset on the Hugging Face hub: `hub:owner/name[@revision][:split]`, as files in the hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.common.errors import ConfigError, DataError, UnavailableError

NAME = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<split>[\w.-]+))?")
ENDINGS = (".parquet", ".jsonl", ".jsonl.gz")
CONVERTED = "refs/convert/parquet"
"""Revision under which the hub keeps any public dataset as parquet."""


@dataclass(frozen=True)
class HubFiles:
    """Files that were brought."""

    files: list[tuple[Path, str]]
    """Where each lies, and its path in the repository."""
    datasheet: dict[str, Any]


def hub_files(source: str) -> HubFiles:
    """Bring a dataset's files.

    Raises:
        ConfigError: the name is none, or the hub has no such dataset or revision, or it is gated.
        DataError: the dataset has no file whose rows can be read, or none of that split.
        UnavailableError: the hub does not answer.
    """
    named = NAME.fullmatch(source)
    if named is None:
        raise ConfigError(f"{source!r} is no dataset's name. Write hub:owner/name, hub:owner/name@revision or …:split.")
    repo, revision, split = named["repo"], named["revision"], named["split"]
    from huggingface_hub import HfApi, errors, hf_hub_download

    api = HfApi()
    with _hub_errors(source):
        info = api.dataset_info(repo, revision=revision)
        names = _tables(info, split)
        if not names and revision is None:
            try:
                converted = api.dataset_info(repo, revision=CONVERTED)
            except errors.RevisionNotFoundError:
                converted = info
            names, commit = _tables(converted, split), converted.sha
        else:
            commit = info.sha
        if not names:
            which = f" of a split {split!r}" if split else ""
            raise DataError(f"{source}: no .parquet or .jsonl file{which} in that dataset.")
        files = [(Path(hf_hub_download(repo, name, repo_type="dataset", revision=commit)), name) for name in names]
    licence = info.card_data.get("license") if info.card_data else None
    return HubFiles(files, {"repository": repo, "revision": commit, "licence": licence, "files": names})


def _tables(info: Any, split: str | None) -> list[str]:
    names = sorted(sibling.rfilename for sibling in info.siblings or [])
    return [name for name in names if name.endswith(ENDINGS) and (split is None or _of_split(name, split))]


def _of_split(name: str, split: str) -> bool:
    """Whether `data/train_sft-00000-of-00001.parquet` or `default/train_sft/0000.parquet` belongs to a split."""
    path = PurePosixPath(name)
    return split in {path.name.split(".")[0].split("-")[0], path.parent.name}


@contextmanager
def _hub_errors(source: str) -> Iterator[None]:
    from huggingface_hub import errors

    # HTTPError is the hub client's own transport error, whichever HTTP library it uses; it is not re-exported.
    no_answer: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        yield
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"{source} is gated. Accept its licence on the hub, then give a read token: HF_TOKEN."
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ConfigError(f"{source} does not exist on the hub, or this token may not see it (HF_TOKEN).") from error
    except (
        no_answer, errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled,
        ConnectionError, TimeoutError,
    ) as error:  # fmt: skip
        raise UnavailableError(
            f"{source}: the hub does not answer ({type(error).__name__}). Check the network, then run the same command."
        ) from error
