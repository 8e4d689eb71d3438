"""What another tool tells of its runs, in our words; times in ns from the first thing that happened."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from profiler.schema import Estimate, LoadPoint, RequestRecord


class Held(Struct, frozen=True, kw_only=True):
    """One load point, held once.

    ``records``: its requests, where the tool kept when they were sent and answered.  ``figures``: what it
    says of them, by our names and in our units: taken where the records do not tell, or there are none.
    """

    point: LoadPoint
    records: tuple[RequestRecord, ...] = ()
    figures: dict[str, Estimate] = {}
    requests_ok: int | None = None
    requests_failed: int | None = None
    notes: tuple[str, ...] = ()


class Found(Struct, frozen=True, kw_only=True):
    """One run: a model on an engine under one load or several.  None is what the file does not say.

    ``asked`` names the workload; ``lengths``: tokens of every prompt and answer, where all are alike.
    ``engine`` as in ``vllm 0.11.1``.  ``args``: how the engine was started, as far as it is told.
    ``unix_ns``: when it was measured.  ``sha256``: of what was read, where that is more than the one file.
    """

    tool: str
    held: tuple[Held, ...]
    version: str | None = None
    model: str | None = None
    engine: str | None = None
    gpu: str | None = None
    gpus: int | None = None
    precision: str | None = None
    asked: str | None = None
    lengths: tuple[int, int] | None = None
    args: dict[str, Any] = {}
    gaps_known: bool = True
    unix_ns: int | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()
