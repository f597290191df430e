"""The Hugging Face hub, asked by fetch alone: weights as safetensors at a resolved commit, datasets as rows.

The read token comes from `HF_TOKEN`, or from the file `HF_TOKEN_PATH` names; it is never printed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from jobs.common.errors import ConfigError, UnavailableError
from jobs.common.jsonl import sha256_file
from jobs.common.settings import MixInSettings

WEIGHT_FILES = ["*.safetensors", "*.json", "*.txt", "tokenizer.model", "*.jinja"]
"""Everything transformers needs, and no format that can run code."""
SECOND_COPIES = ["consolidated*.safetensors"]
"""The same weights once more under their maker's own names (Mistral: 14 GB), which transformers never reads."""


def read_token() -> str | None:
    """The hub's read token where there is one; an empty file counts as none.

    Raises:
        ConfigError: the token's file cannot be read.
    """
    from huggingface_hub import get_token

    try:
        return get_token()
    except OSError as error:
        raise ConfigError(f"HF_TOKEN_PATH: cannot read {error.filename} ({error.strerror}). Run: make key") from error


def fetch_model(repo: str, revision: str, models: Path) -> tuple[Path, str]:
    """Download a model's safetensors, config and tokenizer.

    Returns:
        The folder below `models`, named after the commit, and the commit.

    Raises:
        ConfigError: no such repository or revision, or it is gated for this token.
        UnavailableError: the hub does not answer.
    """
    from huggingface_hub import HfApi, snapshot_download

    token = read_token()
    with _hub_errors("student.model", repo, revision):
        commit = HfApi(token=token).model_info(repo, revision=revision).sha or revision
        folder = models / f"{repo.rsplit('/', 1)[-1].lower()}-{commit[:12]}"
        snapshot_download(
            repo,
            revision=commit,
            allow_patterns=WEIGHT_FILES,
            ignore_patterns=SECOND_COPIES,
            local_dir=folder,
            token=token,
        )
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return folder, commit


def fetch_file(repo: str, name: str, revision: str, models: Path) -> Path:
    """Download one file of a model repository, such as a GGUF; errors as in `fetch_model`."""
    from huggingface_hub import HfApi, hf_hub_download

    token = read_token()
    with _hub_errors("initial.gguf_repo", repo, revision):
        commit = HfApi(token=token).model_info(repo, revision=revision).sha or revision
        # Named after the commit: another revision must not change the file under a run that has finished with this one.
        folder = models / "gguf" / f"{repo.rsplit('/', 1)[-1].lower()}-{commit[:12]}"
        return Path(hf_hub_download(repo, name, revision=commit, local_dir=folder, token=token))


def fetch_rows(mix_in: MixInSettings, folder: Path) -> Path:
    """Put one mix-in dataset's rows into `folder` as one file named after its content.

    Raises:
        ConfigError: a local file that is neither .jsonl nor .parquet, or no such dataset.
        UnavailableError: the hub does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    local = Path(mix_in.dataset)
    if local.is_file():
        if local.suffix not in {".jsonl", ".parquet"}:
            raise ConfigError(f"mix_in.dataset: {local} ends in {local.suffix!r}, expected .jsonl or .parquet.")
        return _keep(local, folder)
    if mix_in.dataset.startswith((".", "/")) or local.suffix:
        raise ConfigError(f"mix_in.dataset: no file {mix_in.dataset}. Give a .jsonl or .parquet file, or a hub id.")
    with _hub_errors("mix_in.dataset", mix_in.dataset, mix_in.revision):
        rows = _load_split(mix_in)
    temporary = folder / f".{token_hex(8)}.parquet"  # not the process id: two containers have the same
    rows.to_parquet(str(temporary))
    try:
        return _keep(temporary, folder)
    finally:
        temporary.unlink(missing_ok=True)


def _load_split(mix_in: MixInSettings) -> Any:
    """The rows of one split; `load_dataset` alone would download every split of the dataset."""
    from datasets import load_dataset, load_dataset_builder

    where = {"revision": mix_in.revision, "token": read_token()}
    files = load_dataset_builder(mix_in.dataset, **where).config.data_files
    if mix_in.split not in files:
        raise ValueError(f"no split {mix_in.split!r}; there are {', '.join(files)}")
    return load_dataset(
        mix_in.dataset,
        data_files={mix_in.split: list(files[mix_in.split])},
        split=mix_in.split,
        verification_mode="no_checks",  # the card's sizes are those of all splits
        **where,
    )


def _keep(source: Path, folder: Path) -> Path:
    target = folder / f"{sha256_file(source)[:16]}{source.suffix}"
    if not target.exists():
        temporary = target.with_name(f".{target.name}.{token_hex(8)}.tmp")
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    return target


@contextmanager
def _hub_errors(key: str, repo: str, revision: str) -> Iterator[None]:
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
    from huggingface_hub import errors

    where = f"{key}: {repo} at revision {revision!r}"
    # HTTPError is the hub client's own transport error, whichever HTTP library it uses; it is not re-exported.
    no_answer: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    unreachable = (
        no_answer, errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled,
        ConnectionError, TimeoutError,
    )  # fmt: skip
    try:
        yield
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"{where} is gated. Accept its licence on the hub, then give a read token: HF_TOKEN."
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, DatasetNotFoundError) as error:
        raise ConfigError(f"{where} does not exist on the hub, or this token may not see it (HF_TOKEN).") from error
    except DataFilesNotFoundError as error:
        raise ConfigError(f"{where}: no parquet, JSON or CSV rows in that repository.") from error
    except errors.RemoteEntryNotFoundError as error:
        raise ConfigError(f"{where}: no such file in that repository. Check initial.gguf_file.") from error
    except unreachable as error:
        raise UnavailableError(
            f"{where}: the hub does not answer ({type(error).__name__}). Check the network, then run fetch again."
        ) from error
    except ValueError as error:  # no hub id; a dataset without this split, or with several configurations
        raise ConfigError(f"{where}: {' '.join(str(error).split())[:200]}") from error
