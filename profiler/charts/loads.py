"""Load points: their figures, what they count, and how often they were held: the n of a picture of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from profiler import figures, steadiness
from profiler.charts import words
from profiler.figures import NOTE_SEPARATOR, Figures
from profiler.schema import LoadPoint, Window
from profiler.store import RunResult

AXES = {
    "closed": "requests at a time",
    "batch": "prompts at once",
    "open": "requests due per second",
    "replay": "requests due per second",
}
_KEPT = "_figures"


def measured(run: RunResult) -> list[Figures]:
    """The load points of a run with their figures, as every table prints them; made once and kept with the
    run, as its tables are."""
    if _KEPT not in run.__dict__:
        keep(run, list(figures.of_run(run)))
    found: list[Figures] = run.__dict__[_KEPT]
    return found


def keep(run: RunResult, found: list[Figures]) -> None:
    """Its figures, as an index has them."""
    run.__dict__[_KEPT] = found


def axis(points: Sequence[LoadPoint]) -> str:
    """What the words of these loads count."""
    return " or ".join(dict.fromkeys(AXES[point.mode] for point in points))


def count(n: int, what: str) -> str:
    """``1 window``, ``1,024 requests``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def held(windows: Sequence[Window]) -> str:
    """``12 windows of 4 engine starts``."""
    starts = len({window.engine_start for window in windows})
    return f"{count(len(windows), 'window')} of {count(starts, 'engine start')}"


def joined(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def caveats(runs: Sequence[RunResult]) -> tuple[str, ...]:
    """What a picture of these runs must say wherever it is shown: what is made up, drawn at random, measured
    by others, or not whole; each once, with the models it holds for."""
    held: dict[str, dict[str, None]] = {}
    for run in runs:
        for text in _caveats(run):
            held.setdefault(text, {})[words.model(run)] = None
    return tuple(f"{', '.join(models)}: {text}" for text, models in held.items())


def _caveats(run: RunResult) -> Iterator[str]:
    manifest = run.manifest
    for board in dict.fromkeys(gpu.name for gpu in manifest.host.gpus if gpu.simulated):
        yield f"no {words.one_line(board)} is here, its power, clocks and memory are made up"
    if any(each.made_up for each in manifest.probes if each.probe == "rapl"):
        yield "the CPU's energy counters are no hardware's, its power and energy are made up"
    if manifest.engine.kind == "simulated":
        yield "a simulated engine, which follows a law and holds no model"
    elif manifest.model.weights == "random":
        yield "random weights: memory and dense speed are true, a MoE's routing is not a trained router's"
    if manifest.imported:
        yield f"measured by {words.one_line(manifest.imported.by)} and in its way"
    if manifest.status != "complete":
        why = f": {words.one_line(manifest.reason)}" if manifest.reason else ""
        yield f"the run is not whole ({manifest.status}{why})"


def doubts(run: RunResult, found: Figures) -> Iterator[str]:
    """Why figures of a load may not be set against others', a line each."""
    facts = found.facts
    failed, ok = facts["requests_failed"] or 0, facts["requests_ok"] or 0
    if failed > run.manifest.scenario.max_failed_frac * (failed + ok):
        how = f" ({words.one_line(facts['failures'])})" if facts["failures"] else ""
        yield f"{failed:,} of {failed + ok:,} requests failed{how}"
    if facts["client_bound"]:
        yield f"client-bound: {words.one_line(facts['client_bound'])}"
    for note in (facts["notes"] or "").split(NOTE_SEPARATOR):
        if note.startswith(steadiness.PREFIX):
            yield words.one_line(note)
