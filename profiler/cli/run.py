"""``profile run`` and ``profile resume``: launch, measure, seal, print the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.cli.base import (
    FAILED,
    Models,
    Overrides,
    PriceText,
    console,
    limits,
    say,
    write,
)
from profiler.errors import ProfilerError

if TYPE_CHECKING:
    from profiler.loadgen.worker import LoadWorker
    from profiler.prepare import Plan

AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print folders and rows as JSON; to a stderr that is no terminal, events."),
]
IsQuiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def run(
    context: typer.Context,
    model: Models = None,
    scenario: Annotated[str, typer.Option("--scenario", "-s", help="Scenario name or TOML file.")] = "chat",
    engine: Annotated[
        str | None, typer.Option(help="vllm, transformers, endpoint, simulated or auto.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Measure a server that is already running.")] = None,
    key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the server's API key.")
    ] = None,
    weights: Annotated[str, typer.Option(help="hub, random (from the config alone) or auto.")] = "auto",
    price: PriceText = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder that takes the run folders.")] = Path("results"),
    find: Annotated[
        str | None, typer.Option(help="Let the tool choose the load: capacity (under --slo-…) or knee.")
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="GPUs to read power from, by index or UUID: 0,1 (as a rule, the engine's)."),
    ] = None,
    max_failed: Annotated[
        str | None, typer.Option(help="Share of failed requests beyond which the run fails: 1%.")
    ] = None,
    as_json: AsJson = False,
    quiet: IsQuiet = False,
) -> None:
    """Launch, measure, seal, print the cost table; several models are interleaved.

    Limits on latency are given as --slo-METRIC-QUANTILE LIMIT, any number of them: --slo-ttft-p99 500ms
    --slo-tpot-p99 50ms.  Metrics: ttft, itl, tpot, e2e.  Goodput and verdicts are printed for them.
    """
    from profiler import prepare
    from profiler.loadgen.worker import LoadWorker

    request = prepare.Request(
        models=model or (),
        scenario=scenario,
        overrides=overrides or (),
        engine=engine,
        url=url,
        key_env=key_env,
        weights=weights,
        price=price,
        out=out,
        find=find,
        slo=limits(context.args, context.command),
        devices=devices,
        max_failed=max_failed,
    )
    with LoadWorker() as worker:  # it gets ready while we do
        folders = _measure(prepare.prepare(request, worker.ask), worker, quiet, as_json)
    _report(folders, as_json, quiet)


def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of an interrupted run.")],
    as_json: AsJson = False,
    quiet: IsQuiet = False,
) -> None:
    """Complete an interrupted run, and those it was interleaved with, as it was begun."""
    from profiler import prepare

    _report(_measure(prepare.resume(folder), None, quiet, as_json), as_json, quiet)


def _measure(plan: Plan, worker: LoadWorker | None, quiet: bool, as_json: bool = False) -> list[Path]:
    """Do what was planned; the sealed folders."""
    from profiler.measure import execute
    from profiler.progress import watcher
    from profiler.report import ahead

    try:
        with watcher(quiet, as_json=as_json) as show:
            for note in plan.notes:
                show.note(note)
            for line in (
                () if quiet or plan.resumed else ahead.precision_asked(plan.scenario, len(plan.models))
            ):
                show.note(line)
            return execute(plan, show, worker)
    except BaseException:
        _say_kept(plan.out, plan.group)
        raise


def _say_kept(out: Path, group: str) -> None:
    """Name the folders of a run that ended early, so that nothing measured is overlooked."""
    from profiler import store

    kept = store.group(out, group)
    if kept and all(run.manifest.status == "complete" for run in kept):
        say(f"all of it was sealed before, in {' '.join(str(run.folder) for run in kept)}")
        return
    kept = [run for run in kept if run.manifest.status != "complete"]
    windows = sum(len(run.manifest.windows) for run in kept)
    cut_short = any(run.manifest.cut_short for run in kept)
    if windows or cut_short:
        folders = " ".join(str(run.folder) for run in kept)
        rest = ", and the requests of the one that was under way," if cut_short else ""
        say(f"kept {windows} finished windows{rest} in {folders}")
        say(f"go on with: profile resume {kept[0].folder}")


def _report(folders: Sequence[Path], as_json: bool, quiet: bool) -> None:
    from profiler import comparison, store
    from profiler.report import page, verdicts

    results = store.find(folders)
    table = comparison.summarise(results)
    if as_json:
        import json

        document = {
            "runs": [str(f) for f in folders],
            "rows": table,
            "found": verdicts.found_values(results),
        }
        write(json.dumps(document, allow_nan=False) + "\n")
    else:
        page.show(table, results, console())
        names = " ".join(str(folder) for folder in folders)
        write(f"\nsealed in {names}\nnext: profile compare {names} --format md\n")
    for line in () if quiet else verdicts.client_lines(table):
        say(line)
    if not any(row["requests_ok"] for row in table):
        raise ProfilerError("no request succeeded; the failures are counted in the run folder")
    failed = list(verdicts.failed_lines(results, table))
    for line in failed:
        say(f"failed: {line}")
    if failed:
        raise typer.Exit(FAILED)
