"""What the profiler and its load process say to each other: one JSON object a line."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from profiler.schema import Endpoint, LoadPoint, Window
from profiler.settings import Load, Measure, Timeouts, Workload

Phase = Literal["warm-up", "measuring", "finishing", "decoding"]


class LoadJob(Struct, frozen=True, kw_only=True):
    """Everything needed to hold one load point once.

    ``records_path``: the parquet file to write.  ``prompt_salt``: see :class:`profiler.workload.Plan`.
    """

    endpoint: Endpoint
    workload: Workload
    point: LoadPoint
    measure: Measure
    timeouts: Timeouts
    window: int
    repeat: int
    engine_start: int
    records_path: str
    prompt_salt: int = 0
    load: Load = Load()


class Part(Struct, frozen=True, kw_only=True):
    """Which part of a load this process holds: of everything that is numbered (slots, arrivals, requests of
    a batch) what has the number ``shard``, ``shard + shards``, …  ``may_grow``: more processes are to be had.
    """

    shard: int = 0
    shards: int = 1
    may_grow: bool = False


class Progress(Struct, frozen=True, kw_only=True):
    """Where a window stands, some four times a second.

    ``expected_s`` is the expected length of it all; ``chunks_per_s`` counts the pieces of all answers
    since the last report, usage and end marks included (they are told apart only after the window).
    ``decoded_frac``: how much of what came is decoded and on its way to disk; None until the load is over.
    """

    phase: Phase
    elapsed_s: float
    expected_s: float
    chunks_per_s: float | None
    in_flight: int
    done: int
    failed: int
    decoded_frac: float | None = None


class Start(Struct, frozen=True, tag="start"):
    job: LoadJob
    part: Part = Part()


class Ask(Struct, frozen=True, tag="ask"):
    """Find out whether an endpoint is there and how it talks (:mod:`profiler.loadgen.probe`)."""

    endpoint: Endpoint
    timeout_s: float


class Cancel(Struct, frozen=True, tag="cancel"):
    """Stop the window now, keep its records."""


class Met(Struct, frozen=True, tag="met"):
    """All processes are at this stage: the values they brought, by shard, and an instant just ahead."""

    stage: str
    at_ns: int
    values: list[float]


class Underway(Struct, frozen=True, tag="underway"):
    progress: Progress


class Meet(Struct, frozen=True, tag="meet"):
    """This process is at this stage and waits for the others."""

    stage: str
    value: float


class Pace(Struct, frozen=True, kw_only=True):
    """Sums over a window's measured requests: what the client's own slowness has to be small against."""

    ttft_s: float = 0.0
    requests: int = 0
    gaps_s: float = 0.0
    gaps: int = 0


class Finished(Struct, frozen=True, tag="finished"):
    """The window was held and its records are written.  ``lost``: it was given up because the server is
    not one to be measured now, to follow its address.  ``crowded``: it was given up before it opened because
    the load is too much for so few processes; nothing is written.  ``full``: it was cut short because the
    disk took no more."""

    window: Window
    pace: Pace = Pace()
    lost: str | None = None
    crowded: bool = False
    full: bool = False


class Asked(Struct, frozen=True, tag="asked"):
    """The endpoint as it turned out to be; None, and ``why_not``, where it cannot be measured."""

    endpoint: Endpoint | None
    why_not: str = ""


class Broken(Struct, frozen=True, tag="broken"):
    """The load generator itself failed; the traceback is on its stderr."""

    message: str


Order = Ask | Start | Cancel | Met
Reply = Asked | Underway | Meet | Finished | Broken
