"""``profile claims run``: plan and hold the trial of a claim."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.cli.base import Overrides, PriceText, console, say, write
from profiler.cli.claims import exit_code
from profiler.errors import InputError

if TYPE_CHECKING:
    from profiler.claims.ledger import Trial
    from profiler.trials import Event, Outline

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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Try a claim: both sides in random blocks, a fresh engine start each, judged at planned looks.

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
    _announce(found, dry_run)
    if not dry_run:
        _show(_hold(found, quiet), out)


def _announce(found: Outline, dry_run: bool) -> None:
    from profiler import trials
    from profiler.report import trials as report

    for note in found.notes:
        say(note)
    tell = (lambda text: write(f"{text}\n")) if dry_run else say
    trial = found.trial
    left_s = trials.left_s(trial, trial.most - trial.starts)
    for line in report.announced(trial) if found.is_new else report.resumed(trial, left_s):
        tell(line)
    if dry_run and trial.status == "open":
        for line in report.in_order(trials.blocks(trial)[:BLOCKS_SHOWN]):
            tell(line)


def _hold(found: Outline, quiet: bool) -> Trial:
    from profiler import trials
    from profiler.claims import ledger
    from profiler.progress import watcher

    try:
        with watcher(quiet, starts=True) as show:
            return trials.hold(found, show, _tell if not quiet else _say_nothing)
    except BaseException as error:
        path = ledger.path_of(found.results, found.trial)
        if path.exists() and not isinstance(error, InputError):  # which says itself what to do
            say(f"the trial so far is in {path}; the same command goes on with it")
        raise


def _say_nothing(_event: Event, _trial: Trial) -> None: ...


def _tell(event: Event, trial: Trial) -> None:
    from profiler import trials
    from profiler.report import trials as report

    if event == "block":
        *_, last = report.in_order(trial.blocks)
        say(last)
    elif event == "held" and not trial.blocks[-1].left and trial.starts < trial.most:
        say(report.pace(trial, trials.left_s(trial, trial.most - trial.starts)))
    elif event == "dropped":
        say(report.dropped(trial.dropped[-1]))
    elif event == "look":
        say(report.looked(trial, trial.looks[-1]))


def _show(trial: Trial, out: Path) -> None:
    from profiler import trials
    from profiler.report import claims as claims_report
    from profiler.report import trials as report

    found = trials.ruling(out, trial)
    claims_report.show([found], console(), in_detail=True)
    say(report.ended(trial))
    if code := exit_code([found.verdict]):
        raise typer.Exit(code)
