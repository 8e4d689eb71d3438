"""Paths of runs → a report: everything read, judged, drawn and set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from profiler import comparison, index, replicas, scores, store
from profiler.charts import loads
from profiler.claims import docket, reading
from profiler.comparison import choice
from profiler.errors import InputError
from profiler.report.html import document, render
from profiler.report.html.document import Asked
from profiler.report.html.nouns import Document
from profiler.store import RunResult

Say = Callable[[str], None]


def report(
    paths: Sequence[Path | str],
    asked: Asked,
    processes: int = 1,
    progress: index.Progress | None = None,
    say: Say = lambda _: None,
) -> Document:
    """``processes`` and ``progress`` as of ``index.runs``; ``say`` is told what is being done.  Raises
    InputError where a path holds no run, or the question is wrong, before anything else takes long."""
    for condition in asked.question.where:
        choice.condition(condition)
    if asked.score is not None:
        scores.benchmark_named(asked.score, scores.quality())
    found = index.runs(paths, progress, processes)
    comparison.answer([each for run in found for each in run.figures], asked.question)
    runs = list(map(_with_figures, found))
    if len(runs) > 1:
        say(f"{len(runs):,} runs: their engine starts, and the claims")
    if {"moe", "dense"} <= {facts.kind for run in runs if (facts := run.manifest.model.facts)}:
        replicas.figures_of_starts(runs, processes)  # what a MoE is put over dense models by, made at once
    rulings = docket.docket(list(reading.shipped()), runs, processes)
    say("drawing")
    return document.document(runs, [each for run in found for each in run.figures], rulings, asked)


def _with_figures(found: index.Run) -> RunResult:
    """The run, which keeps its figures: charts need them as well."""
    run = store.load(found.folder)
    loads.keep(run, found.figures)
    return run


def write(made: Document, output: Path) -> int:
    """The document as one file, whole or not at all; its size in bytes comes back.  Raises StoreError."""
    text = render.html(made).encode()
    with store.replacing(output) as beside:
        beside.write_bytes(text)
    return len(text)


def check_output(output: Path) -> None:
    """Say before anything is read that a report cannot be written there.  Raises InputError."""
    if output.suffix not in (".html", ".htm"):
        raise InputError(f"--output {output}: a report is a page: name it {output.with_suffix('.html').name}")
    if output.is_dir():
        raise InputError(f"--output {output} is a folder: name a file in it, {output / 'report.html'}")
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: there is no folder {output.parent}: make it first")
