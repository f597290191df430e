"""What the measures found; `measure.py` fills it, the report shows it, repair works through it.

Shares and accuracies are 0 to 1; what names single rows is in jobs/measure/findings.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jobs.measure.findings import Leak, Malformed, Near


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its Wilson 95 % interval (Wilson 1927)."""

    count: float
    """A half more where an odd number of ties counts half each."""
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share; 0 where there is nothing."""
        return self.count / self.total if self.total else 0.0


@dataclass(frozen=True)
class Lengths:
    """Lengths of both sides of the pairs, and of revision against initial response."""

    chosen_words: float
    """Mean."""
    rejected_words: float
    ratio: float
    """Mean chosen over mean rejected."""
    typical_ratio: float
    """Median of the pairs' own ratios: one endless text does not move it."""
    longer_words: Share
    """Chosen longer in words."""
    wilcoxon_p: float | None
    """Paired signed-rank test on words, two-sided; None under 6 pairs."""
    length_only: Share
    """Pairs that the better of "longer" and "shorter" in characters gets right; a tie counts half."""
    longer_is_chosen: bool
    """Which of the two rules that was."""
    within_tenth: int
    """Pairs whose sides differ by at most 10 % in characters."""
    by_principle: dict[str, float]
    """Ratio by principle."""
    initial_words: float | None
    """Mean words of initial responses; None where the source has none."""
    completion_words: float | None
    completion_longer: Share | None


@dataclass(frozen=True)
class Blind:
    """A classifier that never sees the prompt: TF-IDF + logistic regression, folds never divide a group."""

    by_prompt: Share
    by_principle: Share | None
    """None where fewer than two principles are known."""
    for_chosen: list[tuple[str, float]]
    """Words that speak for chosen, with weights, strongest first."""
    for_rejected: list[tuple[str, float]]
    margins: dict[int, float]
    """Out-of-fold log-odds by pair: above 0 where the classifier finds the chosen side."""


@dataclass(frozen=True)
class Openings:
    """First five words, most frequent first."""

    top: dict[str, list[tuple[str, int]]]
    """By field: `prompt`, `chosen`, `rejected`, `completion`."""
    entropy_bits: dict[str, float]
    largest_share: float
    """The largest share of one opening among chosen, rejected and completion."""
    largest: str
    """That opening, with its field."""
    largest_field: str


@dataclass(frozen=True)
class Types:
    """Response types by field: shares of `complies`, `partial`, `redirects`, `refuses`, `empty`."""

    by_field: dict[str, dict[str, int]]
    refusals: dict[str, Share]
    """Answers that a list of refusal phrases matches, by field: chosen, rejected, completion, answer."""
    refusal_only: Share
    """Pairs that the better of "refuses" and "does not refuse" gets right; a tie counts half."""
    declined_twins: Share | None
    """Benign twins whose chosen answer or completion refuses; None where there is no twin."""


@dataclass(frozen=True)
class Diversity:
    """How many different prompts there really are."""

    vendi: float
    """Effective number of prompts (Vendi score, arXiv 2210.02410) under the TF-IDF kernel."""
    vendi_by_principle: dict[str, float]
    distinct_2: dict[str, float]
    """Distinct bigrams over all bigrams, by principle."""


@dataclass(frozen=True)
class Identified:
    """Does a prompt tell its principle? Nearest principle by TF-IDF."""

    top_1: Share
    top_3: Share
    confusion: dict[str, dict[str, int]]
    """Principle → nearest principle → prompts."""
    alike: list[tuple[str, str, float]]
    """Pairs of principles whose own texts are alike (cosine), most alike first."""


@dataclass(frozen=True)
class Grounding:
    """Does the text name anything of the country?"""

    prompts: Share
    chosen: Share
    by_principle: dict[str, Share]
    """Chosen answers."""
    principles_without: list[str]


@dataclass(frozen=True)
class Measured:
    """Everything the report shows."""

    malformed: list[Malformed]
    near: list[Near]
    clusters: list[int]
    """Cluster number of each prompt; a twin is in its sibling's."""
    leaks: list[Leak]
    leak_matrix: dict[tuple[str, str], int]
    """Prompts shared by two parts, such as (`sft`, `dpo`); the source's own parts where it has no splits."""
    reused: int
    """Texts that are chosen in one pair and rejected in another."""
    coverage: dict[str, dict[str, int]]
    """Principle → `prompts`, `sft`, `dpo`, `held_out` → rows."""
    openings: Openings
    types: Types
    diversity: Diversity
    lengths: Lengths | None = None
    """None without pairs."""
    blind: Blind | None = None
    """None under 10 pairs."""
    identified: Identified | None = None
    """None without principles."""
    grounding: Grounding | None = None
    """None where no list of the country's markers is known."""
    notes: list[str] = field(default_factory=list)
    """What was sampled or left out, in one line each."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One traffic light."""

    name: str
    """`malformed`, `leaks`, `duplicates`, `length_only`, `refusal_only`, `prompt_blind`, `length_ratio`, `opening`,
    `coverage`, `splits`."""
    value: float | None
    """None where it could not be measured."""
    limit: float
    light: Literal["green", "amber", "red", "grey"]
    """Red fails the gate; amber: over the limit on fewer than 30 rows; grey: not measured."""
    says: str
    """The habit in plain words, such as `chosen is longer in 98.6 % of 220 pairs`."""
    fix: str
    """Next command or remedy; empty where green."""
