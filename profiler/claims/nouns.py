"""The nouns of a trial: what is claimed, what bears on it, what was found.

A claim says of a *subject* and a *baseline* that the ratio ``subject / baseline`` of one metric is so and so
under stated conditions, in every one of its pre-registered cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import astuple

from profiler.schema import Estimate
from profiler.settings import Count, Fraction, Positive, Settings

Relation = Literal["more", "less", "equal", "about"]
Verdict = Literal[
    "supported", "refuted", "direction only", "undecided", "not comparable", "not testable here"
]
GpuClass = Literal["bandwidth-poor", "compute-poor", "memory-poor"]

# ------------------------------------------------------------------------------------ what is claimed


class Source(Settings, frozen=True, kw_only=True):
    """Who said it, where and when (ISO date, as far as it is known)."""

    name: str
    date: str
    url: str | None = None


class Models(Settings, frozen=True, kw_only=True):
    """One side of a claim: models by name, or all of a ``kind``; ``api`` is a model that is sold by the token
    and that nobody here can run.  ``language``: of the texts a side is given (metric ``tokens_per_text``).
    ``output_tokens``: mean length of this side's answers, thinking included (metrics ``…_per_answer``).
    ``gpu``: a board of the catalog whose memory is the figure (metric ``smallest_gpu_bytes``).
    """

    names: tuple[str, ...] = ()
    kind: Literal["moe", "dense"] | None = None
    api: str | None = None
    language: str | None = None
    output_tokens: Count | None = None
    gpu: str | None = None


class Quality(Settings, frozen=True, kw_only=True):
    """Both sides must be equally good on ``benchmark``, within ``margin`` in its unit
    (``scores.matched``)."""

    benchmark: str
    margin: Positive | None = None


class Conditions(Settings, frozen=True, kw_only=True):
    """Under which a run bears on the claim; what is not said may be anything, alike on both sides.

    ``gpus``: names of the catalog; ``gpu_class`` a class of them (docs/claims.md).  ``weights``: ``any``
    where the claim is of random weights too.
    """

    gpus: tuple[str, ...] = ()
    gpu_class: GpuClass | None = None
    gpu_count: Count | None = None
    engine: str | None = None
    precision: str | None = None
    weights: Literal["trained", "any"] = "trained"
    quality: Quality | None = None


class Cell(Struct, frozen=True, order=True, kw_only=True):
    """One pre-registered place: requests in flight (closed loop), mean prompt and answer length in tokens.
    None where the metric does not depend on it."""

    batch: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


class Grid(Settings, frozen=True, kw_only=True):
    """Cells: every batch with every pair of lengths."""

    batch: tuple[Count, ...] = ()
    input_tokens: tuple[Count, ...] = ()
    output_tokens: tuple[Count, ...] = ()

    def cells(self) -> Iterator[Cell]:
        axes = [each or (None,) for each in (self.input_tokens, self.output_tokens, self.batch)]
        for before, after, batch in itertools.product(*axes):
            yield Cell(batch=batch, input_tokens=before, output_tokens=after)


class Plan(Settings, frozen=True, kw_only=True):
    """How a trial of the claim is held: ``starts`` of the engine a side at most, in ``looks``;
    ``spread_frac`` is what starts are expected to scatter (standard deviation of the logarithm), and
    ``set`` are scenario fields beside load and lengths (``measure.window_s = 10``)."""

    starts: Annotated[int, Meta(ge=2)] = 8
    looks: Count = 3
    spread_frac: Fraction = 0.02
    set: dict[str, Any] = field(default_factory=dict)


class Claim(Settings, frozen=True, kw_only=True):
    """One sentence on trial, as written in a claim file.

    ``relation``: the ratio is ``more`` or ``less`` than 1 (with ``factor``: at least so many times more, or
    less), ``equal`` to 1, or ``about`` the factor.  ``margin_frac`` is the practical margin: a difference
    below it does not matter.  ``id`` is the file's name.  ``untestable``: why no instrument of this kind can
    tell (training costs).  ``not_comparable``: in words, what would make a comparison unfair; printed.
    """

    id: str
    text: str
    source: Source
    subject: Models
    baseline: Models
    metric: str
    relation: Relation
    factor: Positive | None = None
    margin_frac: Fraction | None = None
    conditions: Conditions = field(default_factory=Conditions)
    cells: tuple[Grid, ...] = ()
    plan: Plan = field(default_factory=Plan)
    untestable: str | None = None
    not_comparable: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def grid(self) -> list[Cell]:
        """Every cell, in order; one without a place where the claim has none."""
        found = [cell for each in self.cells or (Grid(),) for cell in each.cells()]
        return sorted(found, key=lambda cell: [at or 0 for at in astuple(cell)])


# ------------------------------------------------------------------------------------ what bears on it


class Setting(Struct, frozen=True, order=True, kw_only=True):
    """Where a claim is judged: this pair on this machine by this engine.  Settings never pool."""

    subject: str
    baseline: str
    machine: str
    engine: str

    @property
    def pair(self) -> str:
        return f"{self.subject} / {self.baseline}"


class Side(Struct, frozen=True, kw_only=True):
    """What one side says in one cell.

    ``values``: the metric, one figure an engine start.  ``within``: of a single start, its own interval,
    which says nothing of the next.  ``exact``: a figure without any scatter (from the architecture or a price
    list).  ``runs`` are the folders they are from, ``facts`` what a record names beside them.
    """

    values: tuple[float, ...] = ()
    within: Estimate | None = None
    exact: float | None = None
    runs: tuple[str, ...] = ()
    facts: dict[str, Any] = {}


class Evidence(Struct, frozen=True, kw_only=True):
    """All that bears on one cell in one setting.

    ``doubts``: why the sides may not be compared.  ``missing``: what evidence there is none of, and how to
    make it.  ``systematic_frac``: how far the ratio may be off whatever the statistics say (sensors of two
    boards), to be added after them.
    """

    cell: Cell
    subject: Side
    baseline: Side
    doubts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    systematic_frac: float = 0.0


class Case(Struct, frozen=True, kw_only=True):
    """A claim in one setting: the evidence cell by cell, or why there can be none.

    ``impossible`` (not testable here) and ``doubts`` (not comparable) hold for all cells.  ``looks``: of a
    trial, the shares of its planned starts at which it was looked at so far (the last is now); None: the
    evidence comes from no trial and nobody knows how often it was looked at.
    """

    claim: Claim
    setting: Setting | None = None
    evidence: tuple[Evidence, ...] = ()
    impossible: str | None = None
    doubts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    looks: tuple[float, ...] | None = None


# ------------------------------------------------------------------------------------ what was found


class Finding(Struct, frozen=True, kw_only=True):
    """One cell, judged.

    ``ratio`` is subject / baseline with the two-sided interval the verdict rests on (systematic part
    included), which is one of ``confidence``; ``statistical`` the same without that part, ``fieller`` its
    cross-check.  ``p`` is the chance that evidence as strong for this verdict comes of the opposite truth,
    adjusted for all cells.  ``needed``: starts a side that would decide it.
    ``remarks``: what a t interval does not see of these figures (``stats.robust``).
    """

    evidence: Evidence
    verdict: Verdict
    why: str
    ratio: Estimate | None = None
    confidence: float | None = None
    statistical: Estimate | None = None
    fieller: Estimate | None = None
    p: float | None = None
    needed: int | None = None
    remarks: tuple[str, ...] = ()


class Ruling(Struct, frozen=True, kw_only=True):
    """A claim in one setting, judged: overall, by cell, and as a region of the grid in words.

    ``crossovers``: batches at which the ratio crosses 1, with intervals, by (input, output) length.
    ``missing``: commands that would make what evidence there is none of.
    """

    case: Case
    verdict: Verdict
    why: str
    findings: tuple[Finding, ...] = ()
    region: tuple[str, ...] = ()
    crossovers: tuple[tuple[Cell, Estimate], ...] = ()
    missing: tuple[str, ...] = ()
