"""One engine start of a sweep, from its plan to what became of it.

What a start left behind is judged by its run folders alone, so that one that was just held and one that a
crash broke off are told by the same words: a sealed run counts, unless something from outside is in it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from profiler import figures, host, host_facts, manifest, routing_pass, scenario, store
from profiler.errors import InputError, ProfilerError, StoreError, describe
from profiler.fit import CPU_CACHE_VARIABLE
from profiler.kept_engine import Engines
from profiler.loadgen.worker import LoadWorker
from profiler.measure import Show, execute
from profiler.nvml.holding import TakenError, kept
from profiler.pace import took_s
from profiler.prepare import Plan, Wanted, afresh, ask_alone, of
from profiler.schema import Endpoint
from profiler.settings import EngineSettings
from profiler.storage import Found
from profiler.store import RunResult
from profiler.sweep.nouns import Asked, Attempt, Job, Outcome, Place, Portion, Start, UnderWay

CUT_SHORT = "it was cut short"
NOTHING_ANSWERED = "no request succeeded"
NO_ROUTING = "its routing was not recorded, and routing.record is on"


def portions(start: Start) -> tuple[Portion, ...]:
    """The run folders of a start to be, for the record."""
    return tuple(_portion(each) for each in start.asked)


def _portion(asked: Asked) -> Portion:
    points, repeats = scenario.points(asked.scenario), asked.scenario.measure.repeats
    known = repeats is not None and len(points) == len(asked.cells)
    return Portion(
        cells=asked.cells,
        digest=manifest.digest(asked.scenario),
        points=points if known else (),
        windows=(repeats or 0) if known else 0,
    )


def hold(
    start: Start, job: Job, out: Path, show: Show, worker: LoadWorker | None, noted: UnderWay
) -> tuple[Attempt, ...]:
    """Hold a start on this machine, its runs in ``out`` by the group of ``noted``, and judge it.

    What an engine, a model or a load makes of it is an attempt that does not count; the engine is gone
    whatever happens.  Folders that do not count stay where they are.
    Raises TakenError where others measure on a board of it, which is no attempt; StoreError where ``out``
    takes no more, and KeyboardInterrupt.
    """
    began_ns, why, planned = time.perf_counter_ns(), "", list[Plan]()
    _check_room(out)
    try:
        planned = plans(start, job, out, noted.group, worker.ask if worker else ask_alone)
        with kept(), Engines() as engines:
            for plan in planned:
                execute(plan, show, worker, engines)
    except (StoreError, TakenError):
        raise
    except Exception as error:
        why = reason(error)
        _check_room(out)
    left = [Found(run.folder.name, run.manifest, _is_whole(run), run.folder) for run in _left(planned)]
    left = salvaged(noted, left, why)
    return judged(noted, left, why, (time.perf_counter_ns() - began_ns) / 1e9)


def reason(error: Exception) -> str:
    """Why a start failed; of what nobody foresaw its kind too."""
    words = describe(error)[1]
    return words if isinstance(error, ProfilerError) else f"{type(error).__name__}: {words}"


def _check_room(out: Path) -> None:
    """A full disk is no fault of the start's: the next would meet the same."""
    try:
        store.check_writable(out)
    except InputError as error:
        raise StoreError(str(error)) from None


def _left(planned: Iterable[Plan]) -> list[RunResult]:
    """The folders of the plans that were begun.  By name: a folder of results may hold thousands."""
    folders = [
        folder for plan in planned for folder in plan.out.glob(f"*-{manifest.own_hash(plan, 0)}")
    ]  # fmt: skip
    return [store.load(folder) for folder in folders if store.is_run(folder)]


def _is_whole(run: RunResult) -> bool:
    return (run.folder / store.MANIFEST).exists()


# ------------------------------------------------------------------------------------------- its plans


def plans(
    start: Start, job: Job, out: Path, group: str, ask: Callable[[Endpoint, float], Endpoint] = ask_alone
) -> list[Plan]:
    """One for each run folder, all for one engine, which is as large as any of them needs it.

    Raises InputError for what cannot be held on this machine.
    """
    machine = host.collect()
    wanted = Wanted(models=(start.model,), weights=start.weights, price=job.price, out=out)
    found = [of(each.scenario, wanted, ask, machine) for each in start.asked]
    sizes = [*found, *(of(each, wanted, ask, machine) for each in start.sized_for)]
    if any(len(each.settings) > 1 for each in sizes):
        raise InputError("engine.routing: give one a cell; make an axis of several")
    settings = afresh(replace(found[0], settings=(_largest([each.settings[0] for each in sizes]),))).settings
    return [replace(afresh(each), settings=settings, group=group) for each in found]


def _largest(sizes: Sequence[EngineSettings]) -> EngineSettings:
    """What serves all of them: they differ in what was fitted to their requests, and in nothing else."""
    first, env = sizes[0], dict(sizes[0].env)
    if CPU_CACHE_VARIABLE in env:
        env[CPU_CACHE_VARIABLE] = str(max(int(each.env[CPU_CACHE_VARIABLE]) for each in sizes))
    return replace(
        first,
        max_model_len=max((each.max_model_len or 0 for each in sizes), default=0) or None,
        tensor_parallel=max((each.tensor_parallel or 0 for each in sizes), default=0) or None,
        env=env,
    )


# --------------------------------------------------------------------------------- what became of it


def salvaged(noted: UnderWay, left: Iterable[Found], why: str = CUT_SHORT) -> list[Found]:
    """The runs a start ``left``; those that broke off are sealed with the loads that were finished, if any:
    a load that an engine cannot take spoils no other, and a crash costs the load that was under way."""
    portions = {each.digest: each for each in noted.portions}
    return [_salvaged(run, portions.get(run.manifest.scenario_hash), why) for run in left]


def _salvaged(run: Found, portion: Portion | None, why: str) -> Found:
    if run.is_sealed or run.folder is None or portion is None or not _finished(run, portion):
        return run
    try:
        writer = store.RunWriter.reopen(store.load(run.folder))
    except InputError:  # somebody still writes it
        return run
    with closing(writer):
        run = run._replace(manifest=writer.manifest)  # without windows that are damaged
        finished, cells = len(_finished(run, portion)), len(portion.cells)
        if not finished:
            return run
        writer.note(f"sealed with {finished} of {cells} loads: {why.partition(chr(10))[0]}")
        if writer.manifest.routing_missing == routing_pass.NOT_YET:
            writer.update(routing_missing="the engine start ended before")
        writer.update(reason=None)
        writer.seal()
    return run._replace(manifest=writer.manifest, is_sealed=True)


def _finished(run: Found, portion: Portion) -> tuple[str, ...]:
    """The cells whose windows are all held; of a run that was sealed as planned these are all."""
    if not portion.points:
        return portion.cells if run.is_sealed else ()
    held = Counter(window.point for window in run.manifest.windows)
    each = zip(portion.cells, portion.points, strict=True)
    return tuple(cell for cell, point in each if held[point] >= portion.windows)


def _unfinished(run: Found, portion: Portion) -> tuple[str, ...]:
    finished = _finished(run, portion)
    return tuple(cell for cell in portion.cells if cell not in finished)


class _Broken(NamedTuple):
    """What ended a start before its end, and the cells that have it to answer for."""

    outcome: Outcome
    why: str
    cells: tuple[str, ...]


class _Part(NamedTuple):
    """Cells of a start that fared alike, and the run that shows it."""

    outcome: Outcome
    why: str | None
    cells: tuple[str, ...]
    run: str | None


def judged(
    noted: UnderWay, left: Sequence[Found], why: str = CUT_SHORT, seconds: float | None = None
) -> tuple[Attempt, ...]:
    """What became of a start, by the runs it ``left``: an attempt for each way its cells fared.

    ``why`` nothing was sealed of the others; ``seconds`` it took, None where nobody timed it.  A run that is
    in an object store alone was judged before it went there.
    """
    spent_s = sum(took_s(each.manifest) for each in left) if seconds is None else seconds
    runs = {each.manifest.scenario_hash: each for each in left}
    broken = _broken(noted, runs, why)
    alike: dict[tuple[Outcome, str | None], list[_Part]] = {}
    for portion in noted.portions:
        for part in _parts(portion, runs.get(portion.digest), broken, noted.takes_disturbed):
            alike.setdefault((part.outcome, part.why), []).append(part)
    return tuple(
        Attempt(
            key=noted.key,
            cells=(cells := tuple(cell for part in parts for cell in part.cells)),
            number=noted.number,
            outcome=outcome,
            utc=left[0].manifest.utc if left else noted.utc,
            took_s=spent_s * len(cells) / len(noted.cells),
            why=reason,
            runs=tuple(part.run for part in parts if part.run is not None),
            place=_place(noted, left),
        )
        for (outcome, reason), parts in alike.items()
    )


def _parts(portion: Portion, run: Found | None, broken: _Broken, takes_disturbed: bool) -> Iterator[_Part]:
    finished = _finished(run, portion) if run is not None and run.is_sealed else ()
    if run is not None and finished:
        outcome, reason = _fate(run, takes_disturbed, broken.why)
        yield _Part(outcome, reason, finished, run.name)
    rest = tuple(cell for cell in portion.cells if cell not in finished)
    folder = run.name if run is not None and not finished else None
    at_fault = tuple(cell for cell in rest if cell in broken.cells)
    if at_fault:
        yield _Part(broken.outcome, broken.why, at_fault, folder)
    if len(rest) > len(at_fault):
        spared = tuple(cell for cell in rest if cell not in broken.cells)
        yield _Part("cut short", broken.why, spared, None if at_fault else folder)


def _broken(noted: UnderWay, runs: Mapping[str, Found], why: str) -> _Broken:
    """Whom to blame: the load that was under way, where others had been finished before it; else all."""
    if why in ("", CUT_SHORT):
        return _Broken("cut short", CUT_SHORT, noted.cells)
    left = [
        cell
        for portion in noted.portions
        for run in [runs.get(portion.digest)]
        for cell in (portion.cells if run is None else _unfinished(run, portion))
    ]
    return _Broken("failed", why, tuple(left[:1] if len(left) < len(noted.cells) else left))


def _fate(run: Found, takes_disturbed: bool, broken_by: str) -> tuple[Outcome, str | None]:
    if run.folder is None:
        return "held", None
    found = list(figures.of_run(store.load(run.folder)))
    if not any(each.facts["requests_ok"] for each in found):
        return "failed", NOTHING_ANSWERED
    asked = run.manifest.scenario.routing.record
    if asked == "on" and run.manifest.routing_missing is not None:  # where it was sealed before that pass
        return "failed", f"{NO_ROUTING}: {broken_by}"
    why = figures.disturbed(found)
    return "held" if takes_disturbed or not why else "disturbed", why


def _place(noted: UnderWay, left: Sequence[Found]) -> Place | None:
    if not left:
        return None
    one = left[0].manifest
    return Place(machine=host_facts.facts(one.host), node=noted.node, gpus=one.engine.gpus)
