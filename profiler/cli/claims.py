"""``profile claims``: sentences on trial."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.cli.base import FAILED, UNDECIDED, console, write
from profiler.errors import InputError, nearest

if TYPE_CHECKING:
    from profiler.claims.nouns import Ruling, Verdict
    from profiler.store import RunResult

FORMATS = ("table", "json", "md")
RESULTS = Path("results")  # where ``profile run`` puts its runs


def claims(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Sealed runs, or folders of them.  [results, where there is one]"),
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(
            help="Claim to judge: an id of profile list claims, a file, a folder; repeatable.  [all known]"
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table, json or md.")] = "table",
    record: Annotated[
        Path | None,
        typer.Option(
            help="Write what was found as a citable record: this file (JSON), and a text beside it."
        ),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(help="Judge again what a record holds, and say what differs (1 if anything)."),
    ] = None,
) -> None:
    """Judge claims by the runs at hand; claims run CLAIM measures what is missing.

    Without --claim every known claim is put on the docket.  With it, exit code: 0 all supported, 1 any
    refuted or direction only, 3 anything else.
    """
    from profiler.claims import docket, reading
    from profiler.report import claims as report

    if form not in FORMATS:
        raise InputError(f"--format {form}: no such format{nearest(form, FORMATS)}")
    if record is not None and record.suffix == ".md":
        raise InputError(f"--record {record}: its text goes into a .md file beside it; name the record .json")
    if verify is not None and (claim or record):
        raise InputError(f"--verify {verify}: the record says which claims; leave --claim and --record out")
    at_hand = _runs(runs)
    if verify is not None:
        _verify(verify, at_hand)
        return
    asked = reading.named(claim) if claim else list(reading.shipped())
    rulings = docket.docket(asked, at_hand, os.cpu_count() or 1)
    if record is not None:
        _record(record, rulings, at_hand, ["profile", "claims", *map(str, runs or ()), *_named(claim)])
    if form == "table":
        report.show(rulings, console(), in_detail=bool(claim))
    else:
        write(report.as_json(rulings) if form == "json" else report.markdown(rulings, in_detail=bool(claim)))
    code = exit_code(each.verdict for each in rulings) if claim else 0
    if code:
        raise typer.Exit(code)


def _runs(paths: Sequence[Path] | None) -> list[RunResult]:
    """Without a word, what ``profile run`` has left here, which may be nothing."""
    from profiler import store
    from profiler.claims import reading

    if paths:
        shipped = {claim.id for claim in reading.shipped()}
        for path in paths:
            if str(path) in shipped or path.suffix == ".toml":
                raise InputError(f"{path} is a claim, not a run: --claim {path} judges it")
        return store.find(paths)
    return store.find([RESULTS]) if store.within(RESULTS) else []


def _named(claim: Sequence[str] | None) -> Iterator[str]:
    for each in claim or ():
        yield from ("--claim", each)


def _record(path: Path, rulings: Sequence[Ruling], runs: Sequence[RunResult], command: list[str]) -> None:
    from profiler import store
    from profiler.claims import record
    from profiler.report import record as report

    found = record.of(rulings, runs, shlex.join(command))
    record.write(path, found)
    with store.replacing(path.with_suffix(".md")) as file:
        file.write_text(report.markdown(found), encoding="utf-8")


def _verify(path: Path, runs: Sequence[RunResult]) -> None:
    """Raises Exit (1) where the runs no longer say what the record does."""
    from profiler.charts.words import one_line
    from profiler.claims import recheck

    found = recheck.verify(path, runs)
    for line in (*found.differences, *found.notes):
        write(f"{one_line(line)}\n")
    if found.differences:
        raise typer.Exit(FAILED)
    write(f"{path}: the same rulings, of the same runs\n")


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """Of everything asked: one that fails outweighs one that cannot be decided."""
    found = set(verdicts)
    if found & {"refuted", "direction only"}:
        return FAILED
    return 0 if found == {"supported"} else UNDECIDED
