"""The nouns of a sweep.  What a user writes is a :class:`File`; what is to be held is a :class:`Grid` of
cells, which engine starts serve; what was done is a :class:`Record`, beside the run folders it names.

A cell and a start have the same id whenever they ask for the same measurement, so that a sweep whose file
has grown goes on with what it has.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct, field

from profiler.schema import LoadPoint
from profiler.settings import Scenario

VERSION = 1

# ------------------------------------------------------------------------------------- what a user writes


class When(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scenario fields (``set``) of the cells that have these values (``cells``: axis → value or list of
    them)."""

    cells: dict[str, Any]
    set: dict[str, Any]


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sweep as it is written in TOML.

    ``axes``: name → values.  ``model``, ``scenario``, ``gpu`` (a name of the catalog) and ``weights`` are
    axes by those names; any other is a scenario field (``"load.concurrency"``, ``engine.dtype``), of ``set``
    too.  ``exclude``: cells with all of the values of one of these tables are left out.
    ``starts``: fresh engine starts a cell, the unit of replication.  ``interleave``: starts that differ in
    these axes alone are held one after another, in an order drawn by ``seed``, on the same GPUs.
    ``retries``: how often a start that failed is held again.  ``pack``: let engines share a machine, side by
    side on GPUs of their own.  ``clients``: machines that send the load of one engine (Ray only).
    """

    axes: dict[str, Any]
    name: str = ""
    about: str = ""
    scenario: str = "chat"
    weights: str = "auto"
    price: str | float | None = None
    set: dict[str, Any] = field(default_factory=dict)
    exclude: tuple[dict[str, Any], ...] = ()
    when: tuple[When, ...] = ()
    starts: Annotated[int, Meta(ge=1)] = 3
    interleave: tuple[str, ...] = ("model",)
    retries: Annotated[int, Meta(ge=0)] = 2
    budget: str | None = None
    seed: int | None = None
    pack: bool = False
    clients: Annotated[int, Meta(ge=1)] = 1


# ----------------------------------------------------------------------------------------- what is to be held


class Cell(Struct, frozen=True, kw_only=True):
    """One combination of the axes.  ``scenario`` is complete and has one load point; ``gpu`` None: any.
    ``id``: 16 hex digits of all that shapes the measurement."""

    id: str
    values: dict[str, Any]
    model: str
    weights: str
    gpu: str | None
    scenario: Scenario


class Asked(Struct, frozen=True, kw_only=True):
    """One run folder to be: cells that differ in their load points alone, and ``scenario`` that has them
    all."""

    cells: tuple[str, ...]
    scenario: Scenario


class Start(Struct, frozen=True, kw_only=True):
    """One engine start to be, the ``number``-th (from 0) of each of its cells: the engine stays up from the
    first of ``asked`` to the last.

    ``key``: 12 hex digits of cells and number.  ``scenario.engine`` of all ``asked`` is the same but for its
    name; ``gpus`` are what the engine needs, None where that is found on the machine (0: none).
    ``sized_for``: scenarios of all cells this start was to serve, those that are held already among them, so
    that the engine of the rest is as large as theirs was; empty: those of ``asked``.
    """

    key: str
    number: int
    model: str
    weights: str
    gpu: str | None
    gpus: int | None
    asked: tuple[Asked, ...]
    sized_for: tuple[Scenario, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        return tuple(cell for each in self.asked for cell in each.cells)


class Visit(Struct, frozen=True, kw_only=True):
    """Starts that are held one after another in one place, on the same GPUs: those of a block that are to be
    compared.  ``pair``: what they have in common (equal in every block); visits of one pair go to the
    machine of the earlier ones while there is one."""

    block: int
    pair: str
    starts: tuple[Start, ...]


class Grid(Struct, frozen=True, kw_only=True, dict=True):
    """All cells of a file, in the order of its axes (the last varies fastest), and how they are held.
    ``label``: how messages name the file."""

    name: str
    about: str
    label: str
    axes: dict[str, tuple[Any, ...]]
    cells: tuple[Cell, ...]
    excluded: int
    file: File

    @cached_property
    def by_id(self) -> dict[str, Cell]:
        return {cell.id: cell for cell in self.cells}


# -------------------------------------------------------------------------------------------- what was done


class Place(Struct, frozen=True, kw_only=True):
    """Where a start was held.  ``machine``: what runs are compared by (``host_facts.facts``); ``node``: the
    cluster's name of it, None on this machine; ``gpus``: UUIDs."""

    machine: dict[str, str]
    node: str | None = None
    gpus: tuple[str, ...] = ()


Outcome = Literal["held", "disturbed", "failed", "cut short", "lost"]


class Attempt(Struct, frozen=True, kw_only=True):
    """A start that was begun.  ``held`` counts.  ``disturbed`` from outside (the client was the limit, others
    used the GPUs), ``failed`` by an error and ``cut short`` by the user or a crash do not, nor does what was
    ``lost`` with its machine; ``why`` says it.  ``runs``: names of its run folders, in the order of
    ``Start.asked``; of an attempt that does not count, folders put aside."""

    key: str
    cells: tuple[str, ...]
    number: int
    outcome: Outcome
    utc: str
    took_s: float
    why: str | None = None
    runs: tuple[str, ...] = ()
    place: Place | None = None


class Portion(Struct, frozen=True, kw_only=True):
    """One run folder of a start: the cells it serves, and the ``digest`` of its scenario, by which it is
    told from the start's others.  ``points``: the loads of the cells, each held with ``windows``, where it is
    said beforehand how many: what is finished of a run that broke off counts."""

    cells: tuple[str, ...]
    digest: str
    points: tuple[LoadPoint, ...] = ()
    windows: int = 0


class UnderWay(Struct, frozen=True, kw_only=True):
    """A start that was given to a machine and has not come back; ``group`` is that of its runs' manifests, by
    which they are found again after a crash.  ``takes_disturbed``: what disturbs it is put up with by now.
    """

    key: str
    portions: tuple[Portion, ...]
    number: int
    group: str
    utc: str
    takes_disturbed: bool = False
    node: str | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        return tuple(cell for each in self.portions for cell in each.cells)


class Record(Struct, frozen=True, kw_only=True):
    """``<out>/sweeps/<name>.json``: what a sweep has done so far.  Written anew before a start is begun and
    after it ended; nothing else says which cells are done."""

    version: int = VERSION
    name: str
    seed: int
    attempts: tuple[Attempt, ...] = ()
    under_way: tuple[UnderWay, ...] = ()
    spent_s: float = 0.0
    spent_usd: float | None = None


# ------------------------------------------------------------------------------------------- who holds it


class Job(Struct, frozen=True, kw_only=True):
    """What the starts of a sweep have in common beside their scenarios; it travels to other machines.
    ``price`` as in ``profile run --price``."""

    name: str
    price: str | None = None


class Began(NamedTuple):
    """A start is being held."""

    start: Start
    place: Place


class Ended(NamedTuple):
    """A start came to its end, whichever: one attempt, or more where its cells fared differently.  The runs
    of those that count are in the sweep's home."""

    start: Start
    attempts: tuple[Attempt, ...]


class Said(NamedTuple):
    """Something to be shown, of a start or of the whole."""

    text: str
    start: Start | None = None


News = Began | Ended | Said
