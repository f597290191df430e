"""All measures of a dataset, in one call.

Everything is counted on all rows, but for three measures that a sample answers as well; `Measured.notes` says which.
"""

from __future__ import annotations

from jobs.measure import blind as blind_module
from jobs.measure import meaning
from jobs.measure.data import Data
from jobs.measure.families import families
from jobs.measure.leaks import leaks
from jobs.measure.lengths import lengths
from jobs.measure.malformed import malformed
from jobs.measure.measured import Measured
from jobs.measure.minhash import SAME_PIECES, proposed
from jobs.measure.near import clusters, near_pairs
from jobs.measure.openings import openings, types
from jobs.measure.phrases import SPEAKS_OF_PRINCIPLE

_PROPOSED_SHOWN = 5000
"""Most prompts for which the MinHash bands are counted a second time, for the note."""


def measure(data: Data, *, seed: int = 0) -> Measured:
    """Measure everything the report shows.

    Args:
        data: the rows; needs no order and no field beyond prompt and answers.
        seed: seed of the samples; the same data and seed give the same figures.
    """
    texts = [prompt.text for prompt in data.prompts]
    siblings = families(data.prompts)
    near = near_pairs(texts, siblings)
    cluster_of = clusters(len(texts), near, siblings)
    shared, matrix = leaks(data, cluster_of)
    chosen = {pair.chosen for pair in data.pairs}
    return Measured(
        malformed=malformed(data),
        near=near,
        clusters=cluster_of,
        leaks=shared,
        leak_matrix=matrix,
        reused=len(chosen & {pair.rejected for pair in data.pairs if pair.rejected.strip()}),
        coverage={name: dict(counts) for name, counts in meaning.coverage(data).items()},
        openings=openings(data),
        types=types(data),
        diversity=meaning.diversity(data, seed),
        lengths=lengths(data),
        blind=blind_module.blind(data, seed),
        identified=meaning.identified(data, seed),
        grounding=meaning.grounding(data),
        notes=_notes(data, sum(link.method == "minhash" for link in near)),
    )


def _notes(data: Data, confirmed: int) -> list[str]:
    notes = []
    samples = (
        ("The prompt-blind classifier reads", len(data.pairs), blind_module.SAMPLE, "pairs"),
        ("The variety of prompts, by words, is that of", len(data.prompts), meaning.SAMPLE, "prompts"),
        ("Held against the principles, by words, are", len(data.prompts), meaning.IDENTIFIED_SAMPLE, "prompts"),
    )
    for what, total, most, unit in samples:
        if total > most:
            notes.append(f"{what} {most:,} {unit} of {total:,}, drawn at random with the seed.")
    if len(data.prompts) <= _PROPOSED_SHOWN:
        found = len(set(proposed([prompt.text for prompt in data.prompts])))
        notes.append(
            f"Pairs of prompts that MinHash bands propose: {found:,}; links of a true five-character Jaccard index of "
            f"{SAME_PIECES} or more, besides exact ones: {confirmed:,}."
        )
    if speaks := sum(SPEAKS_OF_PRINCIPLE.search(row.completion) is not None for row in data.examples):
        notes.append(
            f"{speaks:,} of {len(data.examples):,} completions speak of a principle or a critique. Read them: that can "
            "be right, so they are not counted as malformed."
        )
    return notes
