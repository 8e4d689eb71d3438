"""The nouns of a gate: what is looked at, how far it may worsen, and what came of it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from profiler.schema import Estimate

Verdict = Literal["pass", "fail", "undecided"]
FAILURES = "requests_failed_frac"


class Limits(Struct, frozen=True, kw_only=True):
    """How far each metric may worsen, as a share of the baseline (of requests for FAILURES).  ``named``:
    whether the user chose the metrics, so that one which nobody measured is missed."""

    of: dict[str, float]
    named: bool = False


class Subject(Struct, frozen=True, order=True, kw_only=True):
    """What a row is about: this model in this scenario under this load."""

    model: str
    scenario: str
    load: str


class Side(Struct, frozen=True, kw_only=True):
    """One side's figures of one subject: ``values[metric]`` holds one a replica that has it.
    ``doubts[metric]``: why it is not to be judged by (the client was the limit)."""

    values: dict[str, list[float]]
    requests: int = 0
    failed: int = 0
    doubts: dict[str, str] = {}


class Pair(Struct, frozen=True, kw_only=True):
    """New and baseline of one subject.  ``replica`` says what was repeated: engine starts, or windows within
    one start, which say nothing of the next."""

    subject: Subject
    new: Side
    base: Side
    replica: Literal["starts", "repeats"]


class Cell(Struct, frozen=True, kw_only=True):
    """One metric of one subject, judged.

    ``change`` is new over baseline with its 95 % interval; of FAILURES it is None.  ``p`` is the chance of a
    regression beyond the limit looking this sure where there is none, adjusted for all cells of the gate.
    ``why`` is one sentence; of an undecided cell it says what would decide it, and where more replicas would,
    ``needed`` is how many a side.
    """

    subject: Subject
    metric: str
    limit_frac: float
    base: float | None
    new: float | None
    change: Estimate | None
    p: float | None
    verdict: Verdict
    why: str
    replica: Literal["starts", "repeats"]
    n_base: int
    n_new: int
    needed: int | None = None

    @property
    def alone(self) -> bool:
        """Whether one side's spread is the other's word."""
        return self.p is not None and self.metric != FAILURES and min(self.n_base, self.n_new) == 1


class Report(Struct, frozen=True, kw_only=True):
    """What a gate found.  ``missing``: why something could not be compared, which leaves it undecided.
    ``under_test``: the software differences between the sides.  ``notes``: what else to know."""

    cells: tuple[Cell, ...]
    missing: tuple[str, ...] = ()
    under_test: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        found = {cell.verdict for cell in self.cells}
        if "fail" in found:
            return "fail"
        return "undecided" if "undecided" in found or self.missing or not self.cells else "pass"
