"""What the profiler and its load process say to each other: one JSON object a line."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from profiler.schema import Endpoint, LoadPoint, Window
from profiler.settings import Measure, Timeouts, Workload


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


class Progress(Struct, frozen=True, kw_only=True):
    """Where a window stands, some four times a second.

    ``expected_s`` is the expected length of it all; ``chunks_per_s`` counts the pieces of all answers
    since the last report, usage and end marks included (they are told apart only after the window).
    """

    phase: Literal["warm-up", "measuring", "finishing"]
    elapsed_s: float
    expected_s: float
    chunks_per_s: float | None
    in_flight: int
    done: int
    failed: int


class Start(Struct, frozen=True, tag="start"):
    job: LoadJob


class Cancel(Struct, frozen=True, tag="cancel"):
    """Stop the window now, keep its records."""


class Underway(Struct, frozen=True, tag="underway"):
    progress: Progress


class Finished(Struct, frozen=True, tag="finished"):
    """The window was held and its records are written.  ``unreachable``: it was given up with this last
    error because no connection could be had or kept any more."""

    window: Window
    unreachable: str | None = None


class Broken(Struct, frozen=True, tag="broken"):
    """The load generator itself failed; the traceback is on its stderr."""

    message: str


Order = Start | Cancel
Reply = Underway | Finished | Broken
