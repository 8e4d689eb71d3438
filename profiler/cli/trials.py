"""``profile claims run``: plan and hold the trial of a claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from profiler.cli.base import Overrides, PriceText, console, say, write
from profiler.cli.claims import exit_code
from profiler.cli.run import IsQuiet
from profiler.errors import InputError

if TYPE_CHECKING:
    from profiler.claims.ledger import Trial
    from profiler.claims.nouns import Ruling
    from profiler.progress import Watcher
    from profiler.trials import Event, Outline

    Known = Event | Literal["begun", "ended"]

BLOCKS_SHOWN = 8


def run_trial(
    claim: Annotated[str, typer.Argument(help="An id of profile list claims, or a claim file.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="Subject, then baseline, where the claim leaves them open (twice)."
        ),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="vllm, transformers, simulated or auto.")] = None,
    weights: Annotated[str, typer.Option(help="hub, random (from the config alone) or auto.")] = "auto",
    overrides: Overrides = None,
    price: PriceText = None,
    budget: Annotated[
        str | None, typer.Option(help="Stop before it takes more: 90min, 5usd, or both: 2h,5usd.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the order; one of its own begins another trial.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that takes run folders and records.")] = Path("results"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it takes, and start nothing.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the ruling as JSON; to a stderr that is no terminal, events."),
    ] = False,
    quiet: IsQuiet = False,
) -> None:
    """Put a claim on trial: measure both sides in random blocks of fresh starts.

    It is judged at planned looks, so that stopping early is no error.
    The same words go on with a trial that was interrupted.  A field of one side alone is set by
    --set subject.FIELD=… or --set baseline.FIELD=….  Exit code: 0 supported, 1 refuted or direction only,
    3 anything else.
    """
    from profiler import trials
    from profiler.claims import reading

    asked = reading.named([claim])
    if len(asked) != 1:
        raise InputError(f"{claim} holds {len(asked)} claims, and a trial is of one: name its file")
    found = trials.outline(
        trials.Asked(
            claim=asked[0],
            models=model or (),
            engine=engine,
            weights=weights,
            overrides=overrides or (),
            price=price,
            budget=budget,
            out=out,
            seed=seed,
        )
    )
    if not dry_run:
        _show(*_hold(found, quiet, as_json), as_json)
    elif as_json:
        write(msgspec.json.encode(found.trial).decode() + "\n")
    else:
        _plan(found)


def _announce(found: Outline, tell: Callable[[str], None], note: Callable[[str], None]) -> None:
    from profiler import trials
    from profiler.report import trials as report

    for each in found.notes:
        note(each)
    trial = found.trial
    left_s = trials.left_s(trial, trial.most - trial.starts)
    for line in report.announced(trial) if found.is_new else report.resumed(trial, left_s):
        tell(line)


def _plan(found: Outline) -> None:
    """What a trial takes, and its order."""
    from profiler import trials
    from profiler.report import trials as report

    _announce(found, lambda text: write(f"{text}\n"), say)
    if found.trial.status == "open":
        for line in report.in_order(trials.blocks(found.trial)[:BLOCKS_SHOWN]):
            write(f"{line}\n")


def _hold(found: Outline, quiet: bool, as_json: bool) -> tuple[Trial, Ruling]:
    from profiler import trials
    from profiler.claims import ledger
    from profiler.progress import watcher

    path = ledger.path_of(found.results, found.trial)
    try:
        with watcher(quiet, starts=True, as_json=as_json) as show:
            _announce(found, show.note, show.note)
            tell = _teller(show, path)
            tell("begun", found.trial)
            trial = trials.hold(found, show, tell)
            ruling = trials.ruling(found.results, trial)
            tell("ended", trial, ruling.verdict)
            return trial, ruling
    except BaseException as error:
        if path.exists() and not isinstance(error, InputError):  # which says itself what to do
            say(f"the trial so far is in {path}; the same command goes on with it")
        raise


def _teller(show: Watcher, path: Path) -> Callable[..., None]:
    """How it is said what has happened: as events, in words, or not at all."""
    from profiler.progress import Quiet
    from profiler.progress.events import Events

    def tell(event: Known, trial: Trial, verdict: str | None = None) -> None:
        if isinstance(show, Events):
            show.trial(event, trial, path, verdict)
        elif not isinstance(show, Quiet):
            for line in _words(event, trial):
                show.note(line)

    return tell


def _words(event: Known, trial: Trial) -> Iterator[str]:
    from profiler import trials
    from profiler.report import trials as report

    if event == "block":
        *_, last = report.in_order(trial.blocks)
        yield last
    elif event == "held" and not trial.blocks[-1].left and trial.starts < trial.most:
        yield report.pace(trial, trials.left_s(trial, trial.most - trial.starts))
    elif event == "dropped":
        yield report.dropped(trial.dropped[-1])
    elif event == "look":
        yield report.looked(trial, trial.looks[-1])


def _show(trial: Trial, found: Ruling, as_json: bool) -> None:
    from profiler.report import claims as claims_report
    from profiler.report import trials as report

    if as_json:
        write(claims_report.as_json([found]))
    else:
        claims_report.show([found], console(), in_detail=True)
    say(report.ended(trial))
    if code := exit_code([found.verdict]):
        raise typer.Exit(code)
