"""How long runs take, before they are begun: the engine's start and every window, from the best there is to
know.

What earlier runs of the same model on the same machine took, beside which the new ones are to lie; else, of a
window on a GPU of the catalog, what the predictor says of the requests in it; else the lengths of the
scenario.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from profiler import store
from profiler.errors import InputError, ProfilerError
from profiler.host_facts import differences
from profiler.plain import in_a_path
from profiler.prepare import Plan
from profiler.scenario import points
from profiler.schema import LoadPoint, Manifest
from profiler.settings import Length, Measure

# Where nothing is known: seconds until an engine serves, without the reading of its weights.
START_S = {"vllm": 60.0, "transformers": 20.0, "simulated": 1.0}
READ_BYTES_PER_S = 1e9
# Of each start beside engine and windows: the load generator's start and weighing, stopping, sealing.
AROUND_S = 5.0
IDLE_SETTLE_S = 3.0
WARMING_S = 60.0  # until boards that were idle are steady, as a rule
RECENT = 5  # earlier runs of a model that are looked at


class LegTakes(NamedTuple):
    """Seconds of one engine start and of all its windows, and what they rest on."""

    start_s: float
    windows_s: float
    around_s: float
    grounds: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return self.start_s + self.windows_s + self.around_s


def took_s(run: Manifest) -> float:
    """What a run took that nobody timed: its engine starts, and from the first window to the last."""
    windows = (*run.windows, *run.cut_short)
    span_ns = max((each.closed_ns for each in windows), default=0) - min(
        (each.opened_ns for each in windows), default=0
    )
    return (0.0 if run.engine_from else sum(run.starts_s)) + span_ns / 1e9


def leg_takes(plan: Plan, earlier: Sequence[Manifest]) -> LegTakes:
    """Of one engine start of the plan's first model, under all of its loads; ``earlier``: its runs so far
    (:func:`earlier`)."""
    starts = [each for run in earlier for each in run.starts_s]
    grounds = ["engine starts as in earlier runs" if starts else "engine starts as usual"]
    known = {point: _held_s(plan, point, earlier) for point in points(plan.scenario)}
    predicted = _predicted_s(plan, [point for point, took in known.items() if took is None])
    spent = 0.0
    for point, took in known.items():
        seconds, ground = took or predicted.get(point) or _shortest_s(plan.scenario.measure)
        spent += seconds * (plan.scenario.measure.repeats or 1)
        grounds.append(ground)
    start_s = median(starts) if starts else _usual_start_s(plan)
    return LegTakes(start_s, spent, _around_s(plan), tuple(dict.fromkeys(grounds)))


def _usual_start_s(plan: Plan) -> float:
    facts, dtype_bytes = plan.models[0].facts, 4 if plan.settings[0].dtype == "float32" else 2
    weights_bytes = facts.total_params * dtype_bytes if facts else 0
    kind = plan.settings[0].kind
    return START_S.get(kind, 0.0) + (weights_bytes / READ_BYTES_PER_S if kind != "simulated" else 0.0)


def _around_s(plan: Plan) -> float:
    """Idle baselines (bare, CUDA context, loaded) and warming are held where there are boards to read."""
    wanted, seconds = plan.scenario.telemetry, AROUND_S
    if plan.host.gpus and plan.settings[0].kind != "simulated":
        seconds += 3 * (wanted.idle_s + IDLE_SETTLE_S) if wanted.idle_s else 0.0
        seconds += min(wanted.warm_max_s, WARMING_S)
    return seconds


# ------------------------------------------------------------------------------------------- a window


# Seconds that one window takes from opening to closing, and what says so.
Known = tuple[float, str]


def _held_s(plan: Plan, point: LoadPoint, earlier: Sequence[Manifest]) -> Known | None:
    took = [
        (window.closed_ns - window.opened_ns) / 1e9
        for run in earlier
        if _is_alike(run, plan)
        for window in run.windows
        if window.point == point
    ]
    return (median(took), "windows as in earlier runs") if took else None


def _shortest_s(measure: Measure) -> Known:
    return measure.warmup_s + measure.window_s, "windows at their shortest: the first block tells more"


def window_s(measure: Measure, concurrency: int, requests_per_s: float) -> float:
    """A closed loop's: the slots' first tokens and the warm-up, then the whole multiples of ``window_s`` by
    which enough requests are complete, then the end of those that are under way."""
    each_s = concurrency / requests_per_s
    needed_s = max(measure.min_requests, concurrency) / requests_per_s
    steady_s = min(measure.max_window_s, math.ceil(needed_s / measure.window_s) * measure.window_s)
    return measure.warmup_s + steady_s + each_s


def _predicted_s(plan: Plan, loads: Sequence[LoadPoint]) -> dict[LoadPoint, Known]:
    """Of closed loops on a GPU that the catalog knows; empty where there is no telling."""
    model, what = plan.models[0], plan.scenario
    closed = [(point, point.concurrency) for point in loads if point.concurrency]
    if not closed or not plan.host.gpus or model.config is None or plan.settings[0].kind == "simulated":
        return {}
    from profiler.plan.answers import answer
    from profiler.plan.placement import place
    from profiler.plan.question import Request, resolve

    lengths = (what.workload.input_tokens, what.workload.output_tokens)
    before, after = (each.mean if isinstance(each, Length) else each for each in lengths)
    sizes = [size for _, size in closed]
    with suppress(ProfilerError):
        words = [f"workload.input_tokens={before}", f"workload.output_tokens={after}"]
        words += [f"load.concurrency={sizes}", f"engine.dtype={plan.settings[0].dtype}"]
        gpus = plan.settings[0].tensor_parallel or 1
        asked = Request(models=[model.name], gpus=[plan.host.gpus[0].name], counts=f"{gpus}", overrides=words)
        question = resolve(asked)
        placement = place(question, question.candidates[0], question.gpus[0], gpus)
        rates = answer(placement, sizes, None).values["requests_per_s"].low
        return {
            point: (window_s(what.measure, size, float(rate)), "windows as predicted")
            for (point, size), rate in zip(closed, rates, strict=True)
        }
    return {}


# --------------------------------------------------------------------------------------- earlier runs


def earlier(plan: Plan, out: Path) -> list[Manifest]:
    """Of the same model by the same engine on the same machine, the latest; folders that cannot be read are
    somebody else's."""
    model, kind = plan.models[0].name, plan.settings[0].kind
    found: list[Manifest] = []
    for name in sorted(store.within(out), key=_utc, reverse=True):
        if len(found) == RECENT:
            break
        if not name.startswith(f"{in_a_path(model)}-"):
            continue
        with suppress(InputError):
            run = store.load(out / name).manifest
            if (run.model.name, run.settings.kind) == (model, kind) and not differences(run.host, plan.host):
                found.append(run)
    return found


def _utc(name: str) -> str:
    """``<model>-<scenario>-<utc>-<hash>`` by its time."""
    return name.rsplit("-", 2)[-2] if name.count("-") > 1 else ""


def _is_alike(run: Manifest, plan: Plan) -> bool:
    """Whether its windows were as long as these are to be, for requests of the same lengths."""
    then, now = run.scenario, plan.scenario

    def frame(measure: Measure) -> tuple[float, float, float, int]:
        return measure.warmup_s, measure.window_s, measure.max_window_s, measure.min_requests

    return frame(then.measure) == frame(now.measure) and then.workload == now.workload
