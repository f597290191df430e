"""What becomes of an old file's loss."""

from __future__ import annotations

from typing import Any

from jobs.common.errors import ConfigError
from jobs.prepare.recipe_import_draft import Draft, Line, shown


def loss_type(draft: Draft, key: str, value: Any) -> Line:
    """`loss_type`: preference losses by TRL's name; of an sft file only the plain one."""
    if draft.stage == "dpo":
        if draft.old.get("rpo_alpha") is not None:
            return Line(key, value, "renamed", _with_likelihood(draft))
        return Line(key, value, "kept", draft.put_here(key, value))
    return Line(key, value, "dead" if value in ("nll", "chunked_nll") else "lost", "sft's loss is the likelihood")


def rpo_alpha(draft: Draft, key: str, value: Any) -> Line:
    """`rpo_alpha`: the weight of an added likelihood of the chosen side."""
    return Line(key, value, "renamed", _with_likelihood(draft))


def _with_likelihood(draft: Draft) -> str:
    """The file's one loss with the likelihood of the chosen side beside it, weighted by `rpo_alpha`.

    Raises:
        ConfigError: the file has several losses already; names the line.
    """
    found = draft.old.get("loss_type") or "sigmoid"
    losses = found if isinstance(found, list) else [found]
    if len(losses) > 1:
        raise ConfigError(
            f"{draft.file.where(('rpo_alpha',))}: rpo_alpha beside a list of losses ({shown(losses)}). "
            "Add sft to loss_type and its weight to loss_weights, remove rpo_alpha, then import again."
        )
    put = draft.put_here("loss_type", [*losses, "sft"])
    return f"{put}; {draft.put_here('loss_weights', [1.0, draft.number('rpo_alpha', 0.0)])}"
