"""Read the original authors' three JSON files for an import; rows are joined to their prompts by key and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.common.constitution import Constitution
from jobs.common.errors import DataError
from jobs.common.original import PREFERENCE_FIELDS, SFT_FIELDS, Row, read_red_team, read_rows
from jobs.prepare.import_found import BROKEN, Found, FoundPrompt, broken, differs

Prompts = dict[str, FoundPrompt]
"""By the original's key, such as `3_4`."""


def read_original(found: Found, constitution: Constitution, red_team: Path, sft: Path, preferences: Path) -> None:
    """Add what the three files hold; a row that cannot be trusted is dropped with its reason, never mended.

    White space around an answer is no part of it.

    Raises:
        DataError: a file has another shape, or a key points past the constitution.
    """
    prompts = _prompts(found, constitution, red_team)
    for row in read_rows(sft, SFT_FIELDS):
        if prompt := _usable(row, prompts, found):
            found.add_chain(prompt, {name: text for name, text in row.texts.items() if name != "prompt"})
            found.add_example(prompt, row.texts["revision"].strip())
    for row in read_rows(preferences, PREFERENCE_FIELDS):
        if prompt := _usable(row, prompts, found):
            found.add_pair(prompt, row.texts["chosen"].strip(), row.texts["rejected"].strip())


def _prompts(found: Found, constitution: Constitution, path: Path) -> Prompts:
    prompts: Prompts = {}
    for key, text in read_red_team(path).items():
        principle_id = _principle_id(constitution, key, path)
        if broken([text]):
            found.drop(key, "bad_shape", f"{path.name} {key}: {BROKEN}", {"prompt": text}, principle_id)
        elif text.strip():
            prompts[key] = found.prompt(principle_id, text, ("sft", "dpo"))
        else:
            found.drop(key, "no_prompt", f"{path.name} {key}: empty red-team prompt", {"prompt": text}, principle_id)
    return prompts


def _principle_id(constitution: Constitution, key: str, path: Path) -> str:
    position = int(key.split("_")[0])
    if position >= len(constitution.principles):
        count = len(constitution.principles)
        raise DataError(
            f"{path}: key {position} is principle number {position + 1}, but {constitution.name} has {count}. "
            "Choose the constitution the data was made for: --set constitution=..."
        )
    return constitution.principles[position].id


def _usable(row: Row, prompts: Prompts, found: Found) -> FoundPrompt | None:
    """The red-team prompt a row belongs to, or None after noting why the row was dropped."""
    candidates = _candidates(row, prompts)
    prompt = next((one for one in candidates if one.text == row.texts["prompt"]), None)
    reason, detail = _fault(row, candidates, prompt)
    if reason is None and not found.is_new(*sorted(row.texts), *row.texts.values(), candidates[0].principle_id):
        reason, detail = "duplicate", "the same row came before"
    if reason is None:
        return prompt
    near = prompt or (candidates[0] if "_" in row.key and candidates else None)
    principle_id = candidates[0].principle_id if candidates else "unknown"
    row_id = near.id if near else row.key
    found.drop(row_id, reason, f"{row.path.name} {row.key}: {detail}", dict(row.texts), principle_id)
    return None


def _candidates(row: Row, prompts: Prompts) -> Sequence[FoundPrompt]:
    """The one prompt with the row's key, or every prompt of its principle where the file does not number them."""
    if "_" in row.key:
        return [prompts[row.key]] if row.key in prompts else []
    return [prompt for key, prompt in prompts.items() if key.split("_")[0] == row.principle]


def _fault(row: Row, candidates: Sequence[FoundPrompt], prompt: FoundPrompt | None) -> tuple[str | None, str]:
    if not candidates:
        return "unknown_key", "no red-team prompt has this key"
    if row.missing:
        return "bad_shape", f"{', '.join(row.missing)} missing or not a text"
    if broken(row.texts.values()):
        return "bad_shape", BROKEN
    if empty := [name for name, text in row.texts.items() if not text.strip()]:
        return "empty", f"empty {', '.join(empty)}"
    if prompt is None:
        reasons = {differs(row.texts["prompt"], one.text): one for one in candidates}
        reason = min(reasons, key=lambda name: name == "prompt_differs")
        of = f"{reasons[reason].text[:80]!r}" if len(candidates) == 1 else f"one of {len(candidates)} of its principle"
        return reason, f"prompt {row.texts['prompt'][:80]!r} is not the red-team prompt {of}"
    if row.texts.get("chosen", "").strip() == row.texts.get("rejected", "-").strip():
        return "same_sides", "chosen and rejected are the same"
    return None, ""
