"""What ``import profiler`` offers: the command line's acts as functions that return values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from profiler import prepare, store
from profiler.measure import execute
from profiler.progress import watcher
from profiler.store import RunResult


def run(
    models: str | Sequence[str],
    scenario: str = "chat",
    overrides: Sequence[str] = (),
    *,
    engine: str | None = None,
    price: str | float | None = None,
    out: str | Path = "results",
    quiet: bool = True,
) -> list[RunResult]:
    """Measure models under a scenario and return the sealed runs, one a model, interleaved.

    ``overrides`` are scenario fields as with ``--set`` (``"load.concurrency=1,8"``); ``price`` is USD per
    GPU-hour (machine-hour without a GPU) or a price sheet's path.
    Raises InputError before anything starts, EngineError or LoadError when the measurement fails.
    """
    request = prepare.Request(
        models=[models] if isinstance(models, str) else list(models),
        scenario=scenario,
        overrides=overrides,
        engine=engine,
        price=None if price is None else str(price),
        out=Path(out),
    )
    plan = prepare.prepare(request)
    with watcher(quiet) as show:
        return [store.load(folder) for folder in execute(plan, show)]
