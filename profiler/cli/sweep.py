"""``profile sweep`` and ``profile sweep status``: hold a grid of engine starts, and say how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler.cli.base import UNDECIDED, Overrides, PriceText, say, write
from profiler.cli.run import IsQuiet
from profiler.errors import InputError, ProfilerError

if TYPE_CHECKING:
    from profiler.progress import Watcher
    from profiler.storage import Home
    from profiler.sweep.holding import Ending, Tell
    from profiler.sweep.nouns import Grid, News, Record
    from profiler.sweep.session import Session

Out = Annotated[
    str, typer.Option(help="Folder, file:// or s3:// address that takes run folders and the record.")
]


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The sweep: a TOML file of axes.")],
    overrides: Overrides = None,
    ray: Annotated[
        str | None,
        typer.Option(help="Hold it on a Ray cluster: auto, local (one of this machine) or HOST:PORT."),
    ] = None,
    out: Out = "results",
    price: PriceText = None,
    budget: Annotated[
        str | None, typer.Option(help="Stop before it takes more: 12h, 50usd, or both: 12h,50usd.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the order.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Hold what failed too often once more.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it takes, and start nothing.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the outcome as JSON; to a stderr that is no terminal, events."),
    ] = False,
    quiet: IsQuiet = False,
) -> None:
    """Measure a grid: every combination of a file's axes, several engine starts each.

    It says what it takes before it begins.  The same command goes on with a sweep that was interrupted, or
    whose file has grown.  Exit code: 0 all is held, 3 the budget ended it, 4 something failed too often.
    """
    from profiler.sweep import telling
    from profiler.sweep.session import Request, planned

    request = Request(
        file=file,
        overrides=overrides or (),
        ray=ray,
        out=out,
        price=price,
        budget=budget,
        seed=seed,
        retry_failed=retry_failed,
    )
    with planned(request, dry_run) as session:
        if dry_run:
            for line in telling.dry(session.outline, as_json):
                write(f"{line}\n")
            return
        _end(session, _hold(session, quiet, as_json), as_json)


def _hold(session: Session, quiet: bool, as_json: bool) -> Ending:
    from profiler.progress import watcher
    from profiler.sweep import telling

    is_begun = False
    try:
        with watcher(quiet, starts=True, as_json=as_json) as show:
            for note in session.outline.notes:
                show.note(note)
            for line in telling.announced(session.outline):
                show.note(line)
            event = _events(show, session)
            event("begun", session.outline.record)
            is_begun = True
            ending = session.hold(show, _teller(show, session, event))
            event("ended", ending.record)
            return ending
    except BaseException as error:
        if is_begun and not isinstance(error, InputError):  # which says itself what to do
            say(f"the sweep so far is in {session.record}; the same command goes on with it")
        raise


def _teller(show: Watcher, session: Session, event: Callable[..., None]) -> Tell:
    """How it is said what has happened: as events, in words, or not at all."""
    from profiler.progress import Quiet
    from profiler.progress.events import Events
    from profiler.sweep import telling
    from profiler.sweep.nouns import Began, Ended, Said

    def tell(news: News, record: Record) -> None:
        if isinstance(news, Said):
            show.note(news.text)
        elif not isinstance(show, Events | Quiet):
            for line in telling.heard(news, session.outline, record):
                show.note(line)
        elif isinstance(news, Began):
            start = news.start
            told = {"model": start.model, "cells": start.cells, "number": start.number}
            event("start", record, node=news.place.node, **told)
        elif isinstance(news, Ended):
            for each in news.attempts:
                told = {"cells": each.cells, "number": each.number, "why": each.why, "runs": each.runs}
                node = each.place.node if each.place else None
                event(each.outcome, record, model=news.start.model, node=node, **told)

    return tell


def _events(show: Watcher, session: Session) -> Callable[..., None]:
    from profiler.progress.events import Events
    from profiler.sweep import order

    grid = session.outline.grid
    asked = len(grid.cells) * grid.file.starts
    nothing = {"model": None, "node": None, "cells": (), "number": None, "why": None, "runs": ()}

    def event(what: str, record: Record, **told: Any) -> None:
        if isinstance(show, Events):
            show.sweep(
                what=what,
                sweep=record.name,
                record=session.record,
                held=asked - len(order.missing(grid, record)),
                asked=asked,
                spent_s=record.spent_s,
                spent_usd=record.spent_usd,
                **nothing | told,
            )

    return event


def _end(session: Session, ending: Ending, as_json: bool) -> None:
    from profiler.sweep import order, telling

    if as_json:
        write(telling.as_json(session.outline.grid, ending.record, session.home.where) + "\n")
    else:
        for line in telling.summary(session.outline, ending.record, session.home.where, ending.by):
            write(f"{line}\n")
    missing = order.missing(session.outline.grid, ending.record)
    if missing and ending.by == "budget":
        raise typer.Exit(UNDECIDED)
    if missing:
        raise typer.Exit(ProfilerError.exit_code)


def status(
    where: Annotated[
        str, typer.Argument(metavar="FILE|DIR", help="The sweep's file, or a folder or address of results.")
    ],
    overrides: Overrides = None,
    out: Out = "results",
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, a line a sweep.")] = False,
) -> None:
    """Say how far sweeps are: what is held, what is missing, what failed and why."""
    from profiler.storage import open_home
    from profiler.sweep import telling

    is_file = where.endswith(".toml")
    home = open_home(out if is_file else where)
    for grid, record in _of_file(where, overrides or (), home) if is_file else _of_folder(where, home):
        if as_json:
            write(telling.as_json(grid, record, home.where) + "\n")
            continue
        for line in telling.status(grid, record):
            write(f"{line}\n")


def _of_file(file: str, overrides: Sequence[str], home: Home) -> list[tuple[Grid | None, Record]]:
    from profiler.sweep import ledger
    from profiler.sweep.session import Request, asked_grid

    grid = asked_grid(Request(file=Path(file), overrides=overrides))
    record = ledger.read(home, grid.name)
    if record is None:
        raise InputError(
            f"{file}: the sweep {grid.name} was not begun in {home.where}; --out names another place"
        )
    return [(grid, record)]


def _of_folder(where: str, home: Home) -> list[tuple[Grid | None, Record]]:
    from profiler.sweep import ledger

    found = [ledger.read(home, name) for name in ledger.names(home)]
    if not found:
        raise InputError(f"{where}: no sweep was begun here; profile sweep FILE --out {where}")
    return [(None, record) for record in found if record is not None]
