"""The command line: parse, one call, print, exit code.  Nothing is computed here.

Exit codes: 0 done; 1 a gate or claim failed, or more requests than --max-failed; 2 bad input; 3 undecided;
4 the measurement failed; 130 interrupted.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler import without_pandas
from profiler.errors import EngineError, InputError, ProfilerError, nearest

if TYPE_CHECKING:
    from rich.console import Console

    from profiler.loadgen.worker import LoadWorker
    from profiler.prepare import Plan
    from profiler.store import RunResult

FAILED, UNDECIDED, INTERRUPTED = 1, 3, 130
PIPED_WIDTH = 200  # a pipe has no width: no cell is folded

app = typer.Typer(
    name="profile",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", help="Model to measure: Hub id, folder or catalog name; repeat to compare."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a scenario field: load.concurrency=1,8,64 (repeatable)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print folders and rows as JSON.")]
IsQuiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
PriceText = Annotated[
    str | None, typer.Option("--price", help="USD per GPU-hour (machine-hour on CPU), or a price sheet.")
]


def entry() -> None:
    """Run the command; an expected error becomes one message and its exit code, never a traceback."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    without_pandas.keep_out()
    try:
        code = app(standalone_mode=False)  # Ctrl-C comes back as 130, not as an exception
        if code == INTERRUPTED:
            _say("interrupted")
        sys.exit(code or 0)
    except ProfilerError as error:
        _say(f"error: {error}")
        if isinstance(error, EngineError):
            for line in error.log_lines:
                _say(f"  | {line}")
        sys.exit(error.exit_code)
    except typer.TyperException as error:  # a word typer cannot parse
        _say(f"error: {error}")
        sys.exit(2)
    except OSError as error:  # a full disk, a folder taken away: what was finished is on disk
        _say(f"error: {error}")
        sys.exit(ProfilerError.exit_code)


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _out(text: str) -> None:
    sys.stdout.write(text)


def _version(wanted: bool) -> None:
    if wanted:
        from profiler import __version__

        _out(f"profile {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Measure what a language model costs to serve: speed, latency, memory, energy, cost per token."""


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
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
        slo=_limits(context.args, context.command),
        devices=devices,
        max_failed=max_failed,
    )
    with LoadWorker() as worker:  # it gets ready while we do
        folders = _measure(prepare.prepare(request, worker.ask), worker, quiet)
    _report(folders, as_json, quiet)


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of an interrupted run.")],
    as_json: AsJson = False,
    quiet: IsQuiet = False,
) -> None:
    """Complete an interrupted run, and those it was interleaved with, as it was begun."""
    from profiler import prepare

    _report(_measure(prepare.resume(folder), None, quiet), as_json, quiet)


def _limits(words: list[str], command: Any) -> dict[str, str]:
    """The ``--slo-METRIC-QUANTILE LIMIT`` family, name → limit, out of words no option takes.

    Raises InputError for any other word.
    """
    found, left = {}, iter(words)
    for word in left:
        option, equals, limit = word.partition("=")
        name = re.fullmatch(r"--slo-([a-z0-9]+)-(p\d+)", option)
        if name is None:
            known = [each for parameter in command.params for each in parameter.opts if each.startswith("--")]
            known += [f"--slo-{metric}-p99" for metric in ("ttft", "itl", "tpot", "e2e")]
            what = "no such option" if word.startswith("-") else "unexpected argument"
            raise InputError(f"{what}: {word}{nearest(option, known)}")
        limit = limit if equals else next(left, "")
        if not limit or limit.startswith("-"):
            raise InputError(f"{option} needs a limit: {option} 500ms")
        found[f"{name[1]}_{name[2]}_s"] = limit
    return found


def _measure(plan: Plan, worker: LoadWorker | None, quiet: bool) -> list[Path]:
    """Do what was planned; the sealed folders."""
    from profiler.measure import execute
    from profiler.progress import watcher

    for note in plan.notes:
        _say(note)
    try:
        with watcher(quiet) as show:
            return execute(plan, show, worker)
    except BaseException:
        _say_kept(plan.out, plan.group)
        raise


def _say_kept(out: Path, group: str) -> None:
    """Name the folders of a run that ended early, so that nothing measured is overlooked."""
    from profiler import store

    kept = store.group(out, group)
    windows = sum(len(run.manifest.windows) for run in kept)
    cut_short = any(run.manifest.cut_short for run in kept)
    if windows or cut_short:
        folders = " ".join(str(run.folder) for run in kept)
        rest = ", and the requests of the one that was under way," if cut_short else ""
        _say(f"kept {windows} finished windows{rest} in {folders}")
        _say(f"go on with: profile resume {kept[0].folder}")


def _report(folders: Sequence[Path], as_json: bool, quiet: bool) -> None:
    from profiler import comparison, store
    from profiler.report import verdicts

    results = store.find(folders)
    table = comparison.summarise(results)
    if as_json:
        import json

        document = {
            "runs": [str(f) for f in folders],
            "rows": table,
            "found": verdicts.found_values(results),
        }
        _out(json.dumps(document, allow_nan=False) + "\n")
    else:
        _print_table(table, results)
        names = " ".join(str(folder) for folder in folders)
        _out(f"\nsealed in {names}\nnext: profile compare {names} --format md\n")
    for line in () if quiet else verdicts.client_lines(table):
        _say(line)
    if not any(row["requests_ok"] for row in table):
        raise ProfilerError("no request succeeded; the failures are counted in the run folder")
    failed = list(verdicts.failed_lines(results, table))
    for line in failed:
        _say(f"failed: {line}")
    if failed:
        raise typer.Exit(FAILED)


def _print_table(table: list[dict[str, Any]], results: Sequence[RunResult]) -> None:
    from profiler.report import page

    page.show(table, results, _console())


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


@app.command("compare")
def compare_runs(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
    form: Annotated[str, typer.Option("--format", help="table, csv, md or json.")] = "table",
    price: PriceText = None,
    pue: Annotated[
        str | None, typer.Option(help="Energy the building takes over energy the machine takes: 1.2.")
    ] = None,
    split: Annotated[
        bool, typer.Option(help="What an input and what an output token takes, in place of the cost table.")
    ] = False,
    memory: Annotated[bool, typer.Option(help="Where the memory went, in place of the cost table.")] = False,
) -> None:
    """Print the cost table of sealed runs."""
    from profiler import comparison, store
    from profiler.report import page
    from profiler.report import table as report

    if form not in report.FORMATS:
        raise InputError(f"--format {form}: no such format{nearest(form, report.FORMATS)}")
    results = store.find(runs)
    if split:
        _split(results, form, price)
        return
    if memory:
        _memory(results, form)
        return
    rows = comparison.rows(results, price, pue)
    if form == "table":
        _print_table(rows, results)
    elif form == "md":
        _out(page.markdown(rows, results))
    else:
        _out(report.as_csv(rows) if form == "csv" else comparison.as_json(rows))


def _split(results: Sequence[RunResult], form: str, price: str | None) -> None:
    from profiler import split
    from profiler.report import split as report

    rows = split.rows(results, price)
    if not rows:
        raise InputError(f"no steady load of these runs decodes (batches are not split): {split.HOW}")
    if form in report.TEXTS:
        _out(report.TEXTS[form](rows))
    else:
        console = _console()
        console.print(report.rich_table(rows))
        for note in report.footnotes(rows):
            console.print(f"· {note}", markup=False)
    if all(row["per_input_token"] is None for row in rows):
        raise typer.Exit(UNDECIDED)


def _memory(results: Sequence[RunResult], form: str) -> None:
    from profiler.memory import account
    from profiler.report import memory as report

    if form == "json":
        _out(report.as_json(results))
        return
    if form != "table":
        raise InputError(f"--format {form}: the memory account is printed as table or json")
    console = _console()
    for run in results:
        found = account(run)
        console.print(report.rich_table(found, run.folder.name))
        for line in report.lines(found):
            console.print(f"· {line}", markup=False)


@app.command("list")
def list_catalog(
    what: Annotated[str, typer.Argument(help="models, scenarios, gpus or prices.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show the catalog."""
    from profiler.report import listing

    if what not in listing.LISTINGS:
        raise InputError(f"no list of {what!r}{nearest(what, listing.LISTINGS)}")
    _out(listing.render(listing.LISTINGS[what](), as_json))


@app.command()
def doctor() -> None:
    """Say what can be measured on this machine, what not, and what would mend it."""
    from profiler import doctor

    _out(doctor.text())
