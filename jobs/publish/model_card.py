"""The model card: how to load it, how it was trained, what was measured, where it comes from and what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobs.common.jsonl import sha256_json
from jobs.publish.card_figures import cell
from jobs.publish.model_evidence import ModelEvidence
from jobs.publish.model_figures import (
    FEW_PAIRS,
    answer_lines,
    export_lines,
    preference_lines,
    training_lines,
)
from jobs.publish.shareable import shareable_text


def model_card(evidence: ModelEvidence, repo: str, licence: str, curves: Sequence[str]) -> str:
    """The card's text.

    Args:
        evidence: what the run can prove.
        repo: where it is published, for the code that loads it.
        licence: the Hub's identifier.
        curves: names of pictures beside the card.
    """
    constitution, stages = evidence.constitution, evidence.stages
    parts = [
        *_front_matter(evidence, licence),
        f"# {constitution.title}: {evidence.student.name}",
        "",
        f"Trained by Constitutional AI ([arXiv 2212.08073](https://arxiv.org/abs/2212.08073)) to follow "
        f"`constitution.yaml`, {len(constitution.principles)} principles: supervised on revisions, then DPO on "
        f"preference pairs. {constitution.description}",
        "",
        *_use(evidence, repo),
        *training_lines(stages["sft"], stages["dpo"]),
        *(line for name in curves for line in (f"![{name}]({name})", "")),
        *preference_lines(stages["dpo"]),
        *answer_lines(stages.get("respond")),
        *export_lines(evidence.exported),
        *_provenance(evidence),
        *_limits(evidence, licence),
    ]
    return "\n".join(parts) + "\n"


def _front_matter(evidence: ModelEvidence, licence: str) -> Iterator[str]:
    data = evidence.stages["sft"]["recipe"]
    mixed = [mix["dataset"] for section in ("sft", "dpo") for mix in data[section]["mix_in"]]
    # A local file of the user's own is no dataset of the Hub.
    hub = [name for name in mixed if name.count("/") == 1 and not name.startswith((".", "~", "/")) and "." not in name]
    yield "---"
    yield f"license: {licence}"
    if evidence.base:
        yield f"base_model: {evidence.base}"
        yield f"base_model_relation: {'finetune' if evidence.exported else 'adapter'}"
    yield f"library_name: {'transformers' if evidence.exported else 'peft'}"
    yield "pipeline_tag: text-generation"
    yield f"language: [{evidence.constitution.language}]"
    yield "tags: [constitutional-ai, sft, dpo, lora, trl]"
    if datasets := list(dict.fromkeys([*([evidence.data_repo] if evidence.data_repo else []), *hub])):
        yield f"datasets: [{', '.join(datasets)}]"
    yield "---"
    yield ""


def _use(evidence: ModelEvidence, repo: str) -> Iterator[str]:
    yield from ("## Use", "", "```python")
    if evidence.exported:
        yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
        yield ""
        yield f'tokenizer = AutoTokenizer.from_pretrained("{repo}")'
        yield f'model = AutoModelForCausalLM.from_pretrained("{repo}", dtype="auto")'
    else:
        revision = f', revision="{evidence.student.revision}"' if evidence.student.revision else ""
        base = evidence.base or "path/of/the/base"
        packed = evidence.stages["dpo"]["recipe"]["dpo"]["quantization"] == "nf4"
        yield "from peft import PeftModel"
        yield f"from transformers import AutoModelForCausalLM, AutoTokenizer{', BitsAndBytesConfig' if packed else ''}"
        yield ""
        yield f'tokenizer = AutoTokenizer.from_pretrained("{repo}", subfolder="dpo")'
        if packed:
            dtype = evidence.stages["dpo"]["measures"]["weights_dtype"]
            yield "four_bit = BitsAndBytesConfig(  # as it was trained; over other weights the adapter is another model"
            yield '    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,'
            yield f'    bnb_4bit_compute_dtype="{dtype}",'
            yield ")"
        loaded = ", quantization_config=four_bit" if packed else ""
        yield f'base = AutoModelForCausalLM.from_pretrained("{base}"{revision}, dtype="auto"{loaded})'
        yield f'model = PeftModel.from_pretrained(base, "{repo}", subfolder="dpo")'
    yield from ("```", "", "| folder | what it is |", "|---|---|")
    if evidence.exported:
        yield f"| `.` | base and `{evidence.exported['measures']['system']}` adapter merged |"
    yield "| `sft` | LoRA adapter after supervised training |"
    yield "| `dpo` | LoRA adapter after DPO; it replaces `sft`, it is not added to it |"
    yield ""


def _provenance(evidence: ModelEvidence) -> Iterator[str]:
    sft, constitution, student = evidence.stages["sft"], evidence.constitution, evidence.student
    yield from ("## Where it comes from", "", "| | |", "|---|---|")
    revision = f", revision `{student.revision}`" if student.revision else ""
    weights = "its GGUF, dequantised" if student.kind == "gguf" else "safetensors"
    yield f"| base | `{evidence.base or student.name}`{revision} ({weights}) |"
    yield f"| constitution | `{constitution.name}` version {constitution.version}, sha256 `{constitution.sha256}` |"
    rows = f" published as `{evidence.data_repo}`" if evidence.data_repo else ""
    teacher = evidence.written["measures"].get("teacher")
    writer = f", written by `{shareable_text(teacher)}`" if teacher else ""
    yield f"| rows | stage `{evidence.data_stage}`{writer}{rows} |"
    recipe = sha256_json(evidence.stages["dpo"]["recipe"])
    yield f"| recipe | sha256 `{recipe}`, in every manifest; seed {sft['seed']} |"
    for name, digest in evidence.digests.items():
        before = "before private paths were cut its sha256 was"
        yield f"| manifest of {name} | `{name}-manifest.json`; {before} `{digest}` |"
    for stage in ("sft", "dpo"):
        outputs = evidence.stages[stage]["outputs"]
        yield f"| adapter of {stage} | sha256 `{outputs['adapter/adapter_model.safetensors']}` |"
    packages = ", ".join(f"{name} {found}" for name, found in sorted(sft["packages"].items()) if found)
    yield f"| code | source tree sha256 `{sft['source_tree_sha256']}`, commit {sft['git_commit'] or 'unknown'} |"
    yield f"| packages | {packages}; `{sft['lock']}`, sha256 `{sft['lock_sha256']}` |"
    yield ""


def _limits(evidence: ModelEvidence, licence: str) -> Iterator[str]:
    dpo = evidence.stages["dpo"]
    pairs = dpo["counts"].get("held_out_rows", 0)
    yield from ("## Limits and terms", "")
    yield "- No judge has compared its answers with the base's: the figures above do not say that it is better."
    if evidence.student.kind == "gguf":
        yield (
            "- The adapters were trained on a quantised GGUF of the base, dequantised: on the base's own weights they "
            "answer otherwise."
        )
    if pairs < FEW_PAIRS:
        yield f"- {pairs} held-out pairs: too few for a share to mean much."
    if dpo["measures"]["likelihood_displacement"]:
        lost = -dpo["measures"]["chosen_logp_per_token_gained"]
        yield f"- Likelihood displacement: in DPO the chosen held-out answers lost {lost:.3f} nats per token."
    red = [gate for gate in evidence.gates if gate["light"] == "red"]
    yield from (f"- The data it was trained on fails a quality gate: {cell(gate['says'])}." for gate in red)
    if not evidence.gates:
        yield "- The data it was trained on was not audited: leaks and shortcuts are unknown."
    if evidence.written["measures"].get("initial_kind") == "teacher":
        yield "- Rejected answers were invented by the teacher: the base itself may never have said them."
    yield (
        f"- Under `{licence}`. The base's licence, and the terms of whoever served the models that wrote the rows, may "
        "limit what it can be used for."
    )
