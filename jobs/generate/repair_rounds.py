"""The rounds of repair: look, choose, ask, look again; at the end, give up."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from jobs.common.context import RunContext
from jobs.common.settings import AuditSettings
from jobs.generate.engine import Engine
from jobs.generate.judge import Judge
from jobs.generate.repair_ask import Asker
from jobs.generate.repair_choose import choose
from jobs.generate.repair_drop import MOST_GIVEN_UP, drop_copies, give_up
from jobs.generate.repair_files import write_lines
from jobs.generate.repair_flipped import bring_back, flipped_rows
from jobs.generate.repair_found import Found, targets
from jobs.generate.repair_read import read_rows
from jobs.generate.repair_rows import Rows
from jobs.generate.rewrite import Rewriter
from jobs.generate.session import Session
from jobs.measure.gates import gates
from jobs.measure.measure import measure
from jobs.measure.run_data import read_run

ROUNDS = 3
"""Most rounds of asking; each asks only about rows that still break a gate."""
LAST_LOOKS = 2
"""Most times rows are dropped for shares, which are measured anew in between."""
UNASKED = {"duplicates", "leaks", "splits", "coverage"}
"""Gates for which there is nothing to ask."""
MOST_FLIPPED = 0.1
"""Share of chains whose judge may contradict itself before repair asks it otherwise."""
BROUGHT_BACK = "flipped"
"""Name, beside the gates, of rows that come back after each answer was graded by itself."""


@dataclass
class Repair:
    """One repair of one run's rows; `before`, `after` and the two counts are its result."""

    context: RunContext
    folder: Path
    rows: Rows = field(init=False)
    before: Found = field(init=False)
    after: Found = field(init=False)
    changed: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Rows changed or brought back, by gate."""
    pairs_before: int = field(init=False)
    has_work: bool = field(init=False)
    """Was a gate above its target, or did the judge contradict itself so often that rows are missing?"""

    def __post_init__(self) -> None:
        self.rows = read_rows(self.context.folder / "generate")
        self.pairs_before = len(self.rows.pairs)
        self.before = self.after = self._look()
        self.has_work = bool(self.before.failing) or self._is_judge_biased

    @property
    def targets(self) -> AuditSettings:
        """What is aimed at."""
        return targets(self.context.recipe.audit)

    @property
    def too_few(self) -> list[str]:
        """Gates above their target on so few rows that it says nothing."""
        return [name for name, gate in self.after.gates.items() if gate.light == "amber"]

    @property
    def must_ask(self) -> bool:
        """Is there something that only the teacher or the judge can help?"""
        return bool(self.after.failing - UNASKED) or bool(flipped_rows(self.rows))

    def tidy(self) -> None:
        """What needs no request: each row as the ledger has it, one copy of each prompt, one split for each cluster."""
        if self.before.failing & {"malformed", "duplicates", "leaks", "splits"}:
            self.rows.straighten()
            drop_copies(self.rows, self.before)
            self.after = self._look()

    async def ask(self, session: Session, teacher: Engine) -> None:
        """Ask in rounds until every gate is at its target or nothing changes any more.

        Raises:
            UnavailableError: the endpoint cannot be used.
            StoppedError: the budget is used up.
        """
        recipe = self.context.recipe
        judge = Judge(session.judge, recipe.judge, recipe.generate.tries, recipe.seed) if session.judge else None
        rewriter = Rewriter(teacher, recipe.generate, session.sampling)
        asker = Asker(rewriter, judge, session.constitution, session.show)
        if judge and flipped_rows(self.rows):
            self.changed[BROUGHT_BACK] = await bring_back(self.rows, judge, session.constitution, session.show)
            self.after = self._look()
        for number in range(ROUNDS):
            tasks = choose(self.rows, self.after, is_last=number == ROUNDS - 1)
            if not tasks:
                break
            gate_of = {task.row_id: task.gate for task in tasks}
            for row_id in await asker.mend(self.rows, tasks, number):
                self.changed[gate_of[row_id]].add(row_id)
            self.after = self._look()

    def give_up(self) -> None:
        """Drop what stayed broken."""
        most = int(MOST_GIVEN_UP * max(self.pairs_before, len(self.rows.pairs)))
        for _ in range(LAST_LOOKS):
            before = len(self.rows.dropped)
            most -= give_up(self.rows, self.after, most)
            if len(self.rows.dropped) == before:
                break
            self.after = self._look()

    @property
    def _is_judge_biased(self) -> bool:
        flipped = len(flipped_rows(self.rows))
        return flipped > MOST_FLIPPED * (flipped + len(self.rows.rows))

    def _look(self) -> Found:
        write_lines(self.folder, self.rows)
        data = read_run(self.folder, self.context.constitution())
        measured = measure(data, seed=self.context.recipe.seed)
        found = {gate.name: gate for gate in gates(data, measured, self.targets)}
        return Found(data, measured, found, self.rows.in_files("example"), self.rows.in_files("pair"))
