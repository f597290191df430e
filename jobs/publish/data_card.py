"""The dataset card: what the rows are, what the data report measured, who wrote them and under which terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.common.hosts import is_private_host
from jobs.publish.card_figures import cell, gate_lines, measure_lines
from jobs.publish.evidence import Evidence
from jobs.publish.shareable import shareable_text

CONFIGS = {"sft": ("train_sft", "test_sft"), "prefs": ("train_prefs", "test_prefs")}
"""Configuration of the dataset → the files of its train and test split."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def data_card(evidence: Evidence, rows: Mapping[str, int], licence: str) -> str:
    """The card's text.

    Args:
        evidence: what the run can prove.
        rows: rows of each parquet file, by its name without ending.
        licence: the Hub's identifier.
    """
    constitution = evidence.constitution
    parts = [
        *_front_matter(evidence, rows, licence),
        *_warning(evidence),
        f"# {constitution.title}: critiques, revisions and preference pairs",
        "",
        f"Made by Constitutional AI ([arXiv 2212.08073](https://arxiv.org/abs/2212.08073)) from `constitution.yaml`, "
        f"{len(constitution.principles)} principles. {constitution.description}",
        "",
        *_use(evidence, rows),
        *gate_lines(evidence.figures),
        *measure_lines(evidence.figures, evidence.written["measures"] | evidence.manifest["measures"]),
        *_provenance(evidence),
        *_terms(evidence, licence),
    ]
    return "\n".join(parts) + "\n"


def _front_matter(evidence: Evidence, rows: Mapping[str, int], licence: str) -> Iterator[str]:
    constitution = evidence.constitution
    asked = evidence.written["recipe"].get("generate", {}).get("languages") or []
    yield "---"
    yield f"license: {licence}"
    yield f"language: [{', '.join(map(_quoted, dict.fromkeys(asked or [constitution.language])))}]"
    yield f"pretty_name: {_quoted(constitution.title)}"
    yield "task_categories: [text-generation]"
    yield "tags: [constitutional-ai, preference, dpo, sft, synthetic]"
    total = sum(rows.values())
    yield f"size_categories: [{next((name for most, name in SIZES if total < most), '1M<n<10M')}]"
    yield "configs:"
    for name, files in CONFIGS.items():
        yield f"  - config_name: {name}"
        if name == "sft":
            yield "    default: true"
        yield "    data_files:"
        for split, file in zip(("train", "test"), files, strict=True):
            yield f"      - {{split: {split}, path: data/{file}.parquet}}"
    yield "---"
    yield ""


def _warning(evidence: Evidence) -> Iterator[str]:
    if evidence.figures is None:
        yield "> **Not audited.** No data report was made of these rows: leaks and shortcuts are unknown."
        yield ""
    elif evidence.red:
        count = len(evidence.red)
        yield (
            f"> **{count} of {len(evidence.figures['gates'])} quality gates {'fail' if count > 1 else 'fails'}**, and "
            "the rows are published all the same (`audit.on_failure: report`):"
        )
        yield from (f"> - {cell(gate['says'])}" for gate in evidence.red)
        yield ""


def _use(evidence: Evidence, rows: Mapping[str, int]) -> list[str]:
    gates = (evidence.figures or {}).get("gates", [])
    apart = any(gate["name"] == "leaks" and gate["light"] == "green" for gate in gates)
    held_out = "hold prompts that no training split has, not even nearly" if apart else "are for evaluation"
    return [
        "| configuration | split | rows | file |",
        "|---|---|---|---|",
        *(
            f"| `{name}` | {split} | {rows[file]:,} | `data/{file}.parquet` |"
            for name, files in CONFIGS.items()
            for split, file in zip(("train", "test"), files, strict=True)
        ),
        "",
        "Columns are those of `HuggingFaceH4/cai-conversation-harmless`, then ours. `prefs` has `prompt`, `chosen` and "
        f"`rejected` as chats, `sft` has `messages`. The test splits {held_out}: train on none of them.",
        "",
    ]


def _provenance(evidence: Evidence) -> Iterator[str]:
    manifest, written, constitution = evidence.manifest, evidence.written, evidence.constitution
    measures = written["measures"] | manifest["measures"]
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(manifest["dropped"].items())) or "none"
    digest, commit = evidence.manifest_sha256, manifest["git_commit"] or "unknown"
    version = written["ingredients"].get("prompt_version", "none (imported)")
    yield from ("## Where the rows come from", "", "| | |", "|---|---|")
    yield f"| constitution | `{constitution.name}` version {constitution.version}, sha256 `{constitution.sha256}` |"
    yield f"| prompts, critiques, revisions | {_writer(measures.get('teacher'), measures.get('teacher_endpoint'))} |"
    yield f"| initial responses | {_initial(measures)} |"
    yield f"| judge | {_judge(measures)} |"
    yield f"| wording of the requests | version {version} |"
    yield f"| used | {_used([written] if manifest is written else [written, manifest])} |"
    yield f"| rows made by | stage `{evidence.stage}`, finished {manifest['finished']}, seed {manifest['seed']} |"
    yield f"| dropped | {dropped} |"
    yield f"| manifest of that stage | `manifest.json`, before private paths were cut its sha256 was `{digest}` |"
    yield f"| code | source tree sha256 `{manifest['source_tree_sha256']}`, commit {commit} |"
    yield f"| packages | `{manifest['lock']}`, sha256 `{manifest['lock_sha256']}` |"
    yield ""


def _used(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Tokens and cost of every stage behind the rows."""
    tokens = {name: sum(one["tokens"].get(name, 0) for one in manifests) for name in ("prompt_tokens", "reply_tokens")}
    costs = [one["cost_usd"] for one in manifests]
    cost = "unknown" if None in costs else f"${sum(costs):.2f}"
    return f"{tokens['prompt_tokens']:,} tokens in, {tokens['reply_tokens']:,} out, cost {cost}"


def _terms(evidence: Evidence, licence: str) -> list[str]:
    endpoint = shareable_text(str(evidence.written["measures"].get("teacher_endpoint") or "the teacher's endpoint"))
    return [
        "## Licence and terms",
        "",
        f"The rows are under `{licence}`. They were written by the models above: the licences of those models, and the "
        f"terms of whoever serves them ({_place(endpoint)}), may limit what their text can be used for, training other "
        "models included. Read them before you build on it. The prompts are made to strain a model and can offend.",
    ]


def _writer(model: str | None, endpoint: str | None) -> str:
    return f"`{model}` at {_place(endpoint or 'an unknown place')}" if model else "unknown"


def _place(endpoint: str) -> str:
    if endpoint.startswith("embedded:"):
        return f"the embedded server (weights sha256 `{endpoint.removeprefix('embedded:')[:12]}`)"
    host = endpoint.partition(":")[0]
    private = is_private_host(host) and " " not in host
    return "a server in a private network" if private else endpoint


def _initial(measures: Mapping[str, Any]) -> str:
    kind, model = measures.get("initial_kind"), measures.get("initial_model")
    if kind == "teacher":
        return "**invented by the teacher**, which played a careless assistant; no student spoke"
    return f"`{model}`, the student ({kind})" if model else "unknown"


def _judge(measures: Mapping[str, Any]) -> str:
    if not measures.get("judge"):
        return "none: nobody compared the two sides"
    return f"`{measures['judge']}`, blind, rule `{measures.get('judge_rule')}`"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
