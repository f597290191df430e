"""The student, brought and looked at before a token is paid: what sft could not train is refused here.

Weights are safetensors, the tokenizer is a tokenizer.json with the special tokens of the recipe's chat template, and
rows are no longer than the student reads. Its template's turns are compared in sft, which has a tokenizer to run.
"""

from __future__ import annotations

from pathlib import Path

from jobs.common.chat_tokens import TURN_TOKENS
from jobs.common.context import RunContext
from jobs.common.errors import ConfigError, DataError
from jobs.common.fetched import FetchedStudent, relative
from jobs.common.jsonl import read_json, sha256_file
from jobs.common.row_limit import require_rows_fit
from jobs.prepare import hub
from jobs.prepare.embedded_weights import EMBEDDED_NAME, place_embedded_gguf


def fetch_student(context: RunContext) -> FetchedStudent:
    """Bring the recipe's student.

    Raises:
        ConfigError: no such student, its weights or tokenizer are missing, or the recipe does not fit it.
        DataError: its config.json or tokenizer.json is damaged.
    """
    settings = context.recipe.student
    if settings.model == "embedded":
        path = place_embedded_gguf(context.models)
        digests = {path.name: sha256_file(path)}
        shown = relative(context, path)
        return FetchedStudent(kind="gguf", path=shown, name=EMBEDDED_NAME, revision=None, sha256=digests)
    if own := own_folder(context):
        folder, revision, shown = own, None, str(own)
    else:
        folder, revision = hub.fetch_model(settings.model, settings.revision, context.models)
        shown = relative(context, folder)
        _require_fit(folder, context)
    return FetchedStudent(
        kind="folder",
        path=shown,
        name=settings.model.rsplit("/", 1)[-1].lower(),
        revision=revision,
        sha256={path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file()},
    )


def own_folder(context: RunContext) -> Path | None:
    """The user's own folder, where the recipe's student is one; it has been looked at.

    Raises:
        ConfigError: no such folder, its weights or tokenizer are missing, or the recipe does not fit it.
        DataError: its config.json or tokenizer.json is damaged.
    """
    model = context.recipe.student.model
    if model == "embedded":
        return None
    if not Path(model).is_dir():
        if model.startswith((".", "/")):
            raise ConfigError(f"student.model: no folder {model}. Give a folder, a hub id or `embedded`.")
        return None
    folder = Path(model).resolve()
    _require_fit(folder, context)
    return folder


def _require_fit(folder: Path, context: RunContext) -> None:
    _require_files(folder)
    _require_rows_fit(folder, context)
    _require_tokens(folder, context)


def _require_files(folder: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"student.model: {folder} has no {name}. Give a folder that transformers can load.")
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"student.model: {folder} has no *.safetensors; other weight formats can run code and are refused."
        )


def _require_rows_fit(folder: Path, context: RunContext) -> None:
    config, again = read_json(folder / "config.json"), context.command("fetch")
    for section, settings in (("sft", context.recipe.sft), ("dpo", context.recipe.dpo)):
        require_rows_fit(config, section, settings.max_length, again)


def _require_tokens(folder: Path, context: RunContext) -> None:
    path, template = folder / "tokenizer.json", context.recipe.student.chat_template
    try:
        known = _vocabulary(path)
    except DataError as error:
        raise DataError(f"{error} Put a whole one there, then run: {context.command('fetch')}") from error
    if missing := next((token for token in TURN_TOKENS[template] if token not in known), None):
        others = [other for other, tokens in TURN_TOKENS.items() if other != template and known.issuperset(tokens)]
        raise ConfigError(
            f"student.chat_template: {template} needs {missing}, which {path} does not have. Set the template that "
            f"the student was trained on ({', '.join(others)}), or choose another student."
        )


def _vocabulary(path: Path) -> set[str]:
    """Every token of a tokenizer.json, added ones too; its vocabulary is a mapping, or a list of tokens with scores."""
    found = read_json(path)
    try:
        words = {word if isinstance(word, str) else word[0] for word in found["model"]["vocab"]}
        return words | {added["content"] for added in found.get("added_tokens") or ()}
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path} is damaged: it has no vocabulary ({error!r}).") from error
