"""The Hub, written to by publish alone: one repository, one commit.

The write token comes from `HF_WRITE_TOKEN`, or from the file `HF_WRITE_TOKEN_FILE` names; it is never printed, and
neither fetch's read token nor a login of huggingface_hub stands in for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jobs.common.errors import ConfigError, DataError, UnavailableError

REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
VARIABLE = "HF_WRITE_TOKEN"


def write_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """The write token, None where there is none; an empty file counts as none.

    Raises:
        ConfigError: its file cannot be read.
    """
    if token := environment.get(VARIABLE, "").strip():
        return token
    name = environment.get(f"{VARIABLE}_FILE")
    if not name:
        return None
    try:
        return Path(name).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{VARIABLE}_FILE: cannot read {name} ({reason}).") from error


def push(folder: Path, repo: str, token: str, *, private: bool) -> str:
    """Upload a folder as one commit of a dataset repository, made where it does not exist.

    Returns:
        The commit's address.

    Raises:
        ConfigError: the Hub refuses the token or the name, or the repository is public and `private` was asked for.
        DataError: the Hub refuses the files or the card.
        UnavailableError: the Hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    api = HfApi(token=token)
    with _hub_errors(repo):
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.repo_info(repo, repo_type="dataset").private:
            raise ConfigError(
                f"{repo} exists and is public, and an upload would not change that. Make it private on the Hub first, "
                f"or leave out --private."
            )
        commit = api.upload_folder(
            repo_id=repo, repo_type="dataset", folder_path=folder, commit_message="Data and card from cai publish data"
        )
    return str(commit.commit_url)


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    from huggingface_hub import errors

    # HTTPError is the hub client's own transport error, whichever HTTP library it uses; it is not re-exported.
    no_answer: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        yield
    except errors.HfHubHTTPError as error:
        raise _refused(repo, error.response.status_code) from error
    except (no_answer, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError) as error:
        raise UnavailableError(
            f"{repo}: the Hub does not answer ({type(error).__name__}). Check the network, then run the command again."
        ) from error
    except ValueError as error:  # the name or the card's front matter
        raise DataError(f"{repo}: the Hub takes no such name or card: {' '.join(str(error).split())[:200]}") from error


def _refused(repo: str, status: int) -> ConfigError | DataError | UnavailableError:
    if status in {401, 403, 404}:
        return ConfigError(
            f"{repo}: the Hub refuses the token ({status}). Give one that may write to {repo.split('/')[0]}'s datasets "
            f"in {VARIABLE} or {VARIABLE}_FILE."
        )
    if status == 429 or status >= 500:
        return UnavailableError(f"{repo}: the Hub answers {status}. Run the same command again later.")
    return DataError(f"{repo}: the Hub refuses the upload ({status}). The files stay below publish/data in the run.")
