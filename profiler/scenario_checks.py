"""Settings that are valid one by one but not together: what cannot be measured, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from profiler import slo
from profiler.errors import InputError
from profiler.settings import Load, Measure, Scenario
from profiler.stats.looked import FEWEST as FEWEST_WINDOWS
from profiler.workload import extent

Trouble = Iterator[tuple[str, str]]

# Keys of [load] that only some modes have.
OF_MODE: dict[str, tuple[str, ...]] = {
    "concurrency": ("closed",),
    "think_s": ("closed",),
    "requests": ("batch", "replay"),
    "requests_per_s": ("open",),
    "stages": ("open",),
    "arrivals": ("open",),
    "burstiness": ("open",),
    "trace": ("replay",),
    "time_scale": ("replay",),
}


def contradictions(scenario: Scenario) -> Trouble:
    """(key, what is wrong and what to do), the first the most telling.  Raises InputError for a trace that
    cannot be replayed."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", scenario.name):
        yield "name", f"{scenario.name!r} goes into folder names: use letters, digits, '.', '_' and '-'"
    yield from _load(scenario.load, scenario)
    yield from _measure(scenario)
    yield from _goals(scenario)
    yield from _lengths(scenario)
    yield from _sizes(scenario)
    yield from _images(scenario)


def _load(load: Load, scenario: Scenario) -> Trouble:
    yield from _missing(load, searching=scenario.search is not None)
    for field in msgspec.structs.fields(Load):
        modes = OF_MODE.get(field.name, (load.mode,))
        if load.mode not in modes and getattr(load, field.name) != field.default:
            yield f"load.{field.name}", _wrong_mode(field.name, modes, load.mode)
    for name in ("concurrency", "requests_per_s"):
        values = getattr(load, name)
        if len(set(values)) < len(values):
            yield f"load.{name}", f"lists a value twice: {list(values)}"
    if load.stages and load.requests_per_s:
        yield "load.stages", "says the rates already; leave out either load.stages or load.requests_per_s"
    if load.stages and scenario.search is not None:
        yield "load.stages", "a search chooses one rate after another; leave out load.stages or [search]"
    if load.burstiness != 1 and load.arrivals != "gamma":
        yield "load.burstiness", f"arrivals are {load.arrivals!r}; bursts need load.arrivals=gamma"


def _missing(load: Load, *, searching: bool) -> Trouble:
    if load.mode == "closed" and not load.concurrency:
        yield "load.concurrency", "expected a list of whole numbers ≥ 1, got []"
    if load.mode == "batch" and load.requests is None:
        yield "load.requests", "missing: mode 'batch' needs to know how many, for example load.requests=256"
    if load.mode == "replay" and load.trace is None:
        yield "load.trace", "missing: mode 'replay' needs a file with times and lengths, CSV or JSON lines"
    if load.mode == "open" and not (load.stages or load.requests_per_s or searching):
        yield "load.requests_per_s", "missing: an open loop needs a rate, for example load.requests_per_s=4"


def _wrong_mode(name: str, modes: tuple[str, ...], mode: str) -> str:
    kinds = " and ".join(repr(each) for each in modes)
    what = f"only mode{'s' if len(modes) > 1 else ''} {kinds} {'have' if len(modes) > 1 else 'has'} it"
    instead = {
        "concurrency": "requests come when they are due, however many run",
        "requests": "the load ends by measure.window_s and min_requests",
    }
    return f"{what}, this is {mode!r}; {instead.get(name, f'leave it out, or set load.mode={modes[0]}')}"


def _measure(scenario: Scenario) -> Trouble:
    measure, most_s = scenario.measure, scenario.measure.max_seconds
    for name in ("target_ci_frac", "max_seconds"):
        if not scenario.is_adaptive and getattr(measure, name) != getattr(Measure(), name):
            why = "a search has its own end" if scenario.search else "measure.repeats says how many windows"
            yield f"measure.{name}", f"has no effect: {why}; leave out one of them"
    three_s = FEWEST_WINDOWS * (measure.warmup_s + measure.window_s)
    if most_s is not None and most_s < three_s and scenario.load.mode == "closed":
        yield (
            "measure.max_seconds",
            f"{most_s:g} s are less than the {FEWEST_WINDOWS} windows take that an interval needs "
            f"({three_s:g} s with warm-up); raise it, shorten measure.window_s, or set measure.repeats",
        )
    if measure.window_s > measure.max_window_s:
        yield (
            "measure.window_s",
            f"{measure.window_s:g} s is longer than measure.max_window_s ({measure.max_window_s:g} s)",
        )


def _goals(scenario: Scenario) -> Trouble:
    for name, limit_s in scenario.slo.items():
        try:
            slo.limits({name: limit_s})
        except InputError as error:
            yield f"slo.{name}", str(error).removeprefix(f"slo.{name}: ")
    if scenario.search is None:
        return
    if scenario.load.mode in ("batch", "replay"):
        yield "search", f"mode {scenario.load.mode!r} has no load to search over; use 'open' or 'closed'"
    if scenario.search.find == "capacity" and not scenario.slo:
        yield "slo", "missing: capacity is the highest load that keeps it, for example slo.ttft_p99_s=0.5"


def _lengths(scenario: Scenario) -> Trouble:
    work, mode = scenario.workload, scenario.load.mode
    for name in ("input_tokens", "output_tokens"):
        given = getattr(work, name) is not None
        if given and work.mix:
            yield (
                f"workload.{name}",
                "stands beside workload.mix, whose kinds have lengths of their own; drop one",
            )
        if given and mode == "replay":
            yield f"workload.{name}", "a replay's lengths are its trace's; leave it out"
        if not (given or work.mix or mode == "replay"):
            yield (
                f"workload.{name}",
                "missing: expected a whole number ≥ 1 or a table with mean, spread (or workload.mix)",
            )
    if mode == "replay" and work.mix:
        yield "workload.mix", "a replay's lengths are its trace's; leave it out"
    if len({share.name for share in work.mix}) < len(work.mix):
        yield "workload.mix", f"names a kind twice: {', '.join(share.name for share in work.mix)}"
    if work.conversation is not None and mode in ("batch", "replay"):
        yield (
            "workload.conversation",
            f"a turn follows an answer, but mode {mode!r} sends without waiting for one",
        )
    if work.prefix_groups > 1 and not work.shared_prefix_tokens:
        yield "workload.prefix_groups", "groups of what? give workload.shared_prefix_tokens too"


def _sizes(scenario: Scenario) -> Trouble:
    work, limit = scenario.workload, scenario.engine.max_model_len
    size = extent(work, scenario.load)
    where = f": {size.longest_at}" if size.longest_at else ""
    if work.shared_prefix_tokens >= size.shortest_input:
        yield (
            "workload.shared_prefix_tokens",
            f"{work.shared_prefix_tokens} leaves nothing of its own to the shortest prompt "
            f"({size.shortest_input} tokens); make it smaller",
        )
    if limit is not None and size.longest_total > limit:
        yield (
            "engine.max_model_len",
            f"{limit} is less than the longest prompt + answer ({size.longest_total} tokens{where})",
        )


def _images(scenario: Scenario) -> Trouble:
    engine = scenario.engine
    chat = engine.kind == "simulated" or engine.args.get("protocol") == "chat"
    if scenario.workload.images is not None and not chat:
        yield (
            "workload.images",
            "pictures travel by the chat protocol only: serve the model yourself, then --url ADDRESS "
            "--set engine.args.protocol=chat",
        )
