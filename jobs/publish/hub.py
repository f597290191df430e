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
from typing import Literal

from jobs.common.errors import ConfigError, DataError, UnavailableError
from jobs.publish.secret import read_secret

REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
VARIABLE = "HF_WRITE_TOKEN"

Kind = Literal["dataset", "model"]


def write_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """The write token, None where there is none; an empty file counts as none.

    Raises:
        ConfigError: its file cannot be read.
    """
    return read_secret(VARIABLE, environment)


def push(folder: Path, repo: str, token: str, *, kind: Kind, private: bool) -> str:
    """Upload a folder as one commit of a repository of this kind, made where it does not exist.

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
    with _hub_errors(repo, kind):
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        if private and not api.repo_info(repo, repo_type=kind).private:
            raise ConfigError(
                f"{repo} exists and is public, and an upload would not change that. Make it private on the Hub first, "
                f"or leave out --private."
            )
        commit = api.upload_folder(
            repo_id=repo,
            repo_type=kind,
            folder_path=folder,
            commit_message=f"Files and card from cai publish {folder.name}",
        )
    return str(commit.commit_url)


@contextmanager
def _hub_errors(repo: str, kind: Kind) -> Iterator[None]:
    from huggingface_hub import errors

    # HTTPError is the hub client's own transport error, whichever HTTP library it uses; it is not re-exported.
    no_answer: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        yield
    except errors.HfHubHTTPError as error:
        raise _refused(repo, kind, error.response.status_code) from error
    except (no_answer, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError) as error:
        raise UnavailableError(
            f"{repo}: the Hub does not answer ({type(error).__name__}). Check the network, then run the command again."
        ) from error
    except ValueError as error:  # the name or the card's front matter
        raise DataError(f"{repo}: the Hub takes no such name or card: {' '.join(str(error).split())[:200]}") from error


def _refused(repo: str, kind: Kind, status: int) -> ConfigError | DataError | UnavailableError:
    if status in {401, 403, 404}:
        return ConfigError(
            f"{repo}: the Hub refuses the token ({status}). Give one that may write to {repo.split('/')[0]}'s {kind}s "
            f"in {VARIABLE} or {VARIABLE}_FILE."
        )
    if status == 429 or status >= 500:
        return UnavailableError(f"{repo}: the Hub answers {status}. Run the same command again later.")
    return DataError(f"{repo}: the Hub refuses the upload ({status}). The files stay below publish/ in the run.")
