"""What ``import profiler`` offers: the command line's acts as functions that return values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from profiler import comparison, prepare, store
from profiler.loadgen.worker import LoadWorker
from profiler.measure import execute
from profiler.progress import watcher
from profiler.store import RunResult

if TYPE_CHECKING:
    from profiler.claims.nouns import Ruling


class Shown(TypedDict, total=False):
    """The options of ``profile report``, by the same names; ``where`` and ``terms`` are lists."""

    title: str
    price: str | float
    basis: str
    utilization: str | float
    pue: str | float
    terms: Sequence[str]
    where: Sequence[str]
    baseline: str
    score: str


class Options(TypedDict, total=False):
    """The options of ``profile run``, by the same names; ``quiet`` is True unless given."""

    engine: str
    url: str
    key_env: str
    weights: str
    price: str | float
    out: str | Path
    quiet: bool
    find: str
    slo: Mapping[str, float]
    max_failed: float
    devices: str


def run(
    models: str | Sequence[str] = (),
    scenario: str = prepare.DEFAULT_SCENARIO,
    overrides: Sequence[str] = (),
    **options: Unpack[Options],
) -> list[RunResult]:
    """Measure models under a scenario and return the sealed runs, one a model, interleaved.

    ``overrides`` are scenario fields as with ``--set`` (``"load.concurrency=1,8"``); ``price`` is USD per
    GPU-hour (machine-hour without a GPU) or a price sheet's path.  ``find`` is "capacity" or "knee" (the
    result: ``profiler.found``), ``slo`` limits in seconds (``{"ttft_p99_s": 0.5}``), ``max_failed`` a share
    of the requests.
    Raises InputError before anything starts, EngineError or LoadError when the measurement fails.
    """
    price, max_failed = options.get("price"), options.get("max_failed")
    request = prepare.Request(
        models=[models] if isinstance(models, str) else list(models),
        scenario=scenario,
        overrides=overrides,
        engine=options.get("engine"),
        url=options.get("url"),
        key_env=options.get("key_env"),
        weights=options.get("weights", "auto"),
        price=None if price is None else str(price),
        out=Path(options.get("out", "results")),
        find=options.get("find"),
        slo={name: str(limit_s) for name, limit_s in options.get("slo", {}).items()},
        max_failed=None if max_failed is None else str(max_failed),
        devices=options.get("devices"),
    )
    with LoadWorker() as worker, watcher(options.get("quiet", True)) as show:
        folders = execute(prepare.prepare(request, worker.ask), show, worker)
    runs = [store.load(folder) for folder in folders]
    comparison.summarise(runs)
    return runs


def rulings(
    runs: Sequence[str | Path | RunResult] = (), claim: str | Path | Sequence[str | Path] = ()
) -> list[Ruling]:
    """Claims judged by sealed runs: one ruling a claim and setting, with its verdict, why, findings by cell
    and what is missing (``profiler.claims.nouns.Ruling``).

    ``runs``: run folders, folders of them, or what ``run`` and ``load`` return; ``claim``: ids of shipped
    claims, claim files or folders of them, all shipped ones unless given.  Raises InputError.
    """
    from profiler.claims import docket, reading

    at_hand = [
        run for each in runs for run in ([each] if isinstance(each, RunResult) else store.find([each]))
    ]
    named = [claim] if isinstance(claim, str | Path) else claim
    asked = reading.named([str(each) for each in named]) if named else list(reading.shipped())
    return docket.docket(asked, at_hand)


def write_report(
    runs: Sequence[str | Path | RunResult], output: str | Path = "report.html", **options: Unpack[Shown]
) -> Path:
    """Write runs (folders, folders of them, or what ``run`` and ``load`` return) as one page of figures,
    tables and verdicts; the file's path comes back.  Raises InputError."""
    from profiler.comparison import Question
    from profiler.cost import terms
    from profiler.report.html import making
    from profiler.report.html.document import Asked

    page = Path(output)
    making.check_output(page)
    on = terms.read(
        options.get("terms", ()),
        price=options.get("price"),
        basis=options.get("basis"),
        utilization=options.get("utilization"),
        pue=options.get("pue"),
    )
    question = Question(terms=on, where=options.get("where", ()), baseline=options.get("baseline"))
    asked = Asked(question=question, title=options.get("title"), score=options.get("score"))
    folders = [each.folder if isinstance(each, RunResult) else each for each in runs]
    making.write(making.report(folders, asked), page)
    return page
