"""What a run did over time, as lines through the bins of its windows.

Where there are more samples than a picture can show, a point is the mean of those in a bin of time, with the
lowest and the highest of them around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from profiler import conditions, consumption, counters
from profiler.charts import words
from profiler.charts.strip import Binned, Bins, Span
from profiler.samples import series, sources
from profiler.site import Site, short
from profiler.store import RunResult
from profiler.windows import WindowView, flights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

# As many points as a picture has room for; of several lines each has fewer.
MOST_BINS, FEWEST_BINS = 300, 200
# A rate needs time and tokens to be one.
RATE_BIN_S, RATE_BIN_TOKENS = 0.25, 20
# What held the clocks back is read twice a second; a reading holds until the next one.
HOLDS_NS = 2 * 10**9


class Trace(NamedTuple):
    """One line: its name, its bins, what was seen in them, and by bin what held the clocks back."""

    name: str
    bins: Bins
    seen: list[Binned]
    held_back: Mapping[int, str] = {}


Found = list[Trace] | str


def _of_boards(name: str, run: RunResult, parts: list[Span]) -> Found:
    """A line a board, of the engine's boards."""
    gpus = Site(run).gpus
    if not gpus:
        return _without(run, "nvml") if run.manifest.host.gpus else "the engine uses no GPU"
    found = []
    for uuid in gpus:
        times, values = series(run.samples, f"gpu:{uuid}", name)
        bins = _bins(parts, times, len(gpus))
        seen = bins.gauge(times, values)
        reasons = series(run.samples, f"gpu:{uuid}", "clocks_event_reasons")
        if seen:
            found.append(Trace(short(uuid), bins, seen, _held_back(bins, *reasons)))
    return found or _without(run, "nvml")


def _power(run: RunResult, parts: list[Span]) -> Found:
    """Of the boards; of an engine without, what the energy counters of the CPU say."""
    if Site(run).gpus:
        return _of_boards("power_w", run, parts)
    zones = sources(run.samples, "rapl")
    found = [trace for zone in zones if (trace := _zone(run, parts, zone, len(zones)))]
    return found or _without(run, "rapl")


def _zone(run: RunResult, parts: list[Span], source: str, lines: int) -> Trace | None:
    """Power of a CPU's zone between each two readings of its counter; stretches that cannot be read are left
    out."""
    import numpy as np

    counter = counters.rapl(run.samples, source)
    times, watts = [], []
    for part in parts:
        try:
            curve = counters.curve(counter, part.start_ns, part.end_ns)
        except counters.UnreadableError:
            continue
        apart_ns = np.diff(curve.times_ns)
        times.append(curve.times_ns[:-1] + apart_ns // 2)
        watts.append(np.diff(curve.joules) / (apart_ns / 1e9))
    if not times:
        return None
    at, first = np.unique(np.concatenate(times), return_index=True)
    bins = _bins(parts, at, lines)
    return Trace(source.removeprefix("rapl:"), bins, bins.gauge(at, np.concatenate(watts)[first]))


def _tokens(run: RunResult, parts: list[Span]) -> Found:
    """Output tokens that came in each bin, whichever request they belong to."""
    import numpy as np

    views = [view for view in _views(run) if view.outcome]
    came = [view.arrived_output for view in views]
    total = sum(float(amounts.sum()) for _, amounts in came)
    if not total:
        return "no token came in any window"
    length_s = sum(part.length_s for part in parts)
    bins = Bins(parts, min(MOST_BINS, int(length_s / RATE_BIN_S), int(total / RATE_BIN_TOKENS)))
    rate = np.sum([bins.total(*each) for each in came], axis=0) / bins.width_s
    kept = {view.window.index for view in views}
    seen = [each for each in bins.means(rate) if bins.spans[each.bin].window.index in kept]
    return [Trace("output tokens/s", bins, seen)]


def _requests(run: RunResult, parts: list[Span]) -> Found:
    """Those in flight as the client saw them, and what the engine says of itself."""
    import numpy as np

    engine, names = f"engine:{run.manifest.model.name}", ("requests_running", "requests_waiting")
    told = {name: series(run.samples, engine, name) for name in names}
    lines = 1 + sum(len(times) > 0 for times, _ in told.values())
    bins = Bins(parts, _room(lines))
    flown = [flights(view) for view in _views(run) if view.outcome]
    found = []
    if flown:
        begun, ended = (np.concatenate(each) for each in zip(*flown, strict=True))
        found.append(Trace("in flight (client)", bins, bins.means(bins.level(begun, ended))))
    for name, line in told.items():
        bins = _bins(parts, line[0], lines)
        if seen := bins.gauge(*line):
            found.append(Trace(f"{name.removeprefix('requests_')} (engine)", bins, seen))
    return found or "the requests of the windows are missing"


def _cache(run: RunResult, parts: list[Span]) -> Found:
    """Of the engine's pool; samples that all read 0 fell between requests and measured nothing."""
    times, values = series(run.samples, f"engine:{run.manifest.model.name}", "kv_cache_usage_frac")
    bins = _bins(parts, times, 1)
    seen = bins.gauge(times, values)
    if any(each.high > 0 for each in seen):
        return [Trace("KV cache", bins, seen)]
    return "all samples fell between requests" if seen else _without(run, "engine metrics")


def _views(run: RunResult) -> Iterator[WindowView]:
    return (WindowView(window, run.requests) for window in run.manifest.windows)


def _bins(parts: list[Span], times_ns: Ints, lines: int) -> Bins:
    """As many as there is room for, and no more than samples."""
    import numpy as np

    ends = np.searchsorted(times_ns, [(part.start_ns, part.end_ns) for part in parts])
    return Bins(parts, max(1, min(_room(lines), int((ends[:, 1] - ends[:, 0]).sum()))))


def _room(lines: int) -> int:
    return max(FEWEST_BINS, MOST_BINS // max(1, lines))


def _held_back(bins: Bins, times_ns: Ints, masks: Floats) -> dict[int, str]:
    """By bin, what held the clocks back in it, by the last reading before it and those in it."""
    import numpy as np

    bits = masks.astype(np.int64)
    named = {bit: why for why, bit in conditions.REASON_BITS.items() if why not in consumption.UNHINDERED}
    firsts = np.searchsorted(times_ns, bins.start_ns - HOLDS_NS)
    starts = np.searchsorted(times_ns, bins.start_ns, side="right") - 1
    lasts = np.searchsorted(times_ns, bins.end_ns)
    found = {}
    for place, (oldest, before, last) in enumerate(zip(firsts, starts, lasts, strict=True)):
        mask = int(np.bitwise_or.reduce(bits[max(oldest, before) : last], initial=0))
        if reasons := [why for bit, why in named.items() if mask & bit]:
            found[place] = ", ".join(reasons)
    return found


def _without(run: RunResult, probe: str) -> str:
    """Why nothing was sampled, in the probe's own words where it has some."""
    if run.manifest.engine.device == "remote":
        return "the endpoint runs elsewhere: nothing is measured of its machine"
    if run.manifest.imported:
        return f"{words.one_line(run.manifest.imported.by)} does not say"
    told = [each.detail for each in run.manifest.probes if each.probe == probe and not each.usable]
    return f"{probe}: {words.one_line(told[0])}" if told else "nothing was sampled of it"


# By the name of a quantity: its lines over these spans, or why there are none.
OF: dict[str, Callable[[RunResult, list[Span]], Found]] = {
    "power": _power,
    "clocks": lambda run, parts: _of_boards("sm_clock_mhz", run, parts),
    "temperature": lambda run, parts: _of_boards("temperature_c", run, parts),
    "tokens": _tokens,
    "requests": _requests,
    "kv": _cache,
}
