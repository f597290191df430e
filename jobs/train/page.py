"""Before and after, for people: page.md with every held-out prompt, and a few of them side by side in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.common.held_out import Response, System
from jobs.common.jsonl import write_atomic

SYSTEMS: tuple[System, ...] = ("base", "sft", "dpo")


def by_prompt(responses: Sequence[Response]) -> list[dict[System, Response]]:
    """Responses of every system to each prompt, in the order of the prompts."""
    grouped: dict[str, dict[System, Response]] = {}
    for response in responses:
        grouped.setdefault(response.id, {})[response.system] = response
    return list(grouped.values())


def write_page(path: Path, responses: Sequence[Response], run: str) -> None:
    """Write page.md: a table of lengths, then every prompt with its answers."""
    lines = [f"# Answers to held-out prompts: run {run}", "", *_lengths(responses), ""]
    for answers in by_prompt(responses):
        first = next(iter(answers.values()))
        lines += [f"## {first.principle_id}", "", f"> {_cell(first.prompt)}", ""]
        lines += ["| " + " | ".join(answers) + " |", "|" + " --- |" * len(answers)]
        lines += ["| " + " | ".join(_cell(answer.response) for answer in answers.values()) + " |", ""]
    write_atomic(path, "\n".join(lines).encode())


def print_side_by_side(responses: Sequence[Response], count: int) -> None:
    """Print the first prompts with the answers of every system beside each other, to stdout."""
    console = Console()
    for answers in by_prompt(responses)[:count]:
        first = next(iter(answers.values()))
        table = Table(title=Text(f"{first.principle_id}: {first.prompt}"), title_justify="left", expand=True)
        for system in answers:
            table.add_column(system, ratio=1, overflow="fold")
        table.add_row(*(Text(answer.response + (" …" if answer.truncated else "")) for answer in answers.values()))
        console.print(table)


def _lengths(responses: Sequence[Response]) -> list[str]:
    lines = ["| system | answers | mean tokens | cut at the limit | same as base |", "| --- | --- | --- | --- | --- |"]
    base = {it.id: it.response for it in responses if it.system == "base"}
    for system in SYSTEMS:
        found = [it for it in responses if it.system == system]
        if found:
            mean = sum(it.response_tokens for it in found) / len(found)
            cut, same = sum(it.truncated for it in found), sum(it.response == base.get(it.id) for it in found)
            lines.append(f"| {system} | {len(found)} | {mean:.1f} | {cut} | {same} |")
    return lines


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>")
