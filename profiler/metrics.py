"""RunResult → named Estimates, one set a load point.  Definitions: DESIGN section 4, docs/metrics.md.

Every rate, power and energy of a window shares its steady window.  Rates count what *arrives* inside it,
whichever request it belongs to; which requests the latencies belong to is told in ``windows``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from profiler import board_memory, consumption, energy, neighbours, slo, stats, steadiness, trust
from profiler.consumption import Consumption
from profiler.samples import between, sources
from profiler.schema import Estimate, LoadPoint, Window
from profiler.settings import Scenario
from profiler.site import Site
from profiler.stats import looked
from profiler.store import RunResult
from profiler.windows import LATENCIES, WindowView, busy_spans, latency_samples, request_latency

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
OF_PROMPTS = ("input_tokens_per_s", "total_tokens_per_s")
RATES = ("output_tokens_per_s", "input_tokens_per_s", "total_tokens_per_s", "requests_per_s")
BATCHES = 20


@dataclass(frozen=True)
class PointResult:
    """One load point of one run.  ``estimates[name]`` is None where nothing could be measured; of power and
    energy ``consumed`` says why.  ``failures`` counts failed requests by outcome; ``cancelled`` ones are
    neither.  ``judged`` holds the verdict on each limit of the scenario's SLO.  Of an imported run the
    numbers of requests may be unknown."""

    point: LoadPoint
    repeats: int
    requests_ok: int | None
    failures: dict[str, int] | None
    estimates: dict[str, Estimate | None]
    consumed: Consumption
    notes: tuple[str, ...]
    client: trust.Client = field(default_factory=trust.Client)
    sampling: trust.Sampling = field(default_factory=trust.Sampling)
    beside: neighbours.Neighbours = field(default_factory=neighbours.Neighbours)
    judged: tuple[slo.Judged, ...] = ()

    @property
    def requests_failed(self) -> int | None:
        return None if self.failures is None else sum(self.failures.values())


def points(run: RunResult) -> list[PointResult]:
    """The measured load points of a run, by mode and load."""
    told = run.manifest.imported.points if run.manifest.imported else ()
    held: dict[LoadPoint, list[Window]] = {each.point: [] for each in told}
    for window in run.manifest.windows:
        held.setdefault(window.point, []).append(window)
    site = Site(run)
    found = [_point(site, point, held[point]) for point in sorted(held, key=by_load)]
    slope = consumption.marginal(
        (each.estimates["output_tokens_per_s"], each.estimates[consumption.POWER])
        for each in found
        if each.estimates[consumption.GROSS] is not None
    )
    return [replace(each, estimates=each.estimates | {consumption.MARGINAL: slope}) for each in found]


def by_load(point: LoadPoint) -> tuple[str, int, float]:
    """The order of load points; batches and closed loops have a concurrency, open loops a rate."""
    return point.mode, point.concurrency or 0, point.requests_per_s or 0.0


def _point(site: Site, point: LoadPoint, windows: list[Window]) -> PointResult:
    found, imported = _of_windows(site, point, windows), site.manifest.imported
    told = next((each for each in imported.points if each.point == point), None) if imported else None
    if imported is None or told is None:
        return found
    own = {name: each for name, each in found.estimates.items() if each is not None}
    found = replace(
        found,
        estimates={**found.estimates, **told.figures, **own},
        consumed=consumption.told(told.figures, imported.by),
        notes=(*found.notes, *told.notes),
    )
    failed = None if told.requests_failed is None else dict(+Counter(failed=told.requests_failed))
    return found if windows else replace(found, repeats=1, requests_ok=told.requests_ok, failures=failed)


def _of_windows(site: Site, point: LoadPoint, windows: list[Window]) -> PointResult:
    run, imported = site.run, site.manifest.imported
    views = [WindowView(window, run.requests) for window in windows]
    seen = [view for view in views if view.outcome]
    steady = [view for view in seen if view.span_s is not None]
    wanted = slo.limits(run.manifest.scenario.slo)
    estimates = {name: _rate(steady, name) for name in RATES}
    timed = steady if imported is None or imported.gaps_known else []
    for name in LATENCIES:
        estimates |= _latency(timed if name == "itl_s" else steady, name)
    for name in ("input_tokens_mean", "output_tokens_mean"):
        estimates[name] = _mean_count(steady, name)
    hit = trust.prefix_cache_hit(steady, run.samples, f"engine:{run.manifest.model.name}")
    estimates |= slo.goodput(steady, wanted) | {
        "offered_requests_per_s": trust.offered(steady),
        "first_wave_ttft_s_mean": trust.first_wave_ttft(steady),
        "tokens_per_chunk_mean": trust.tokens_per_chunk(timed),
        "prefix_cache_hit_frac": hit,
        "engine_busy_frac": _busy(steady),
    }
    consumed = consumption.of_point(site, steady)
    estimates |= consumed.estimates
    if imported is None and run.manifest.scenario.is_adaptive:
        estimates = {name: each and looked.widened(each) for name, each in estimates.items()}
    beside = neighbours.of_point(run.manifest, run.samples, steady)
    trouble = sorted({window.trouble for window in windows if window.trouble})
    return PointResult(
        point=point,
        repeats=len(steady),
        requests_ok=sum(int(view.measured.sum()) for view in steady),
        failures=dict(Counter(outcome for view in seen for outcome in view.failures())),
        estimates=estimates | _memory(site, windows),
        consumed=consumed,
        notes=(
            *_lost(views),
            *trouble,
            *trust.notes(steady, run.manifest.scenario, hit),
            *steadiness.notes(site, timed),
            *beside.notes,
            *_kinds(steady, run.manifest.scenario),
        ),
        client=trust.client(windows),
        sampling=trust.sampling(run.samples, steady),
        beside=beside,
        judged=slo.judge(steady, wanted) if steady else (),
    )


def _events(view: WindowView, name: str) -> list[tuple[Ints, Floats]]:
    """What a rate counts: (times in ns, amount) series."""
    import numpy as np

    if name == "output_tokens_per_s":
        return [view.arrived_output]
    if name == "input_tokens_per_s":
        # A prompt is worked off when its first token comes out.
        return [(view["first_ns"], view["input_tokens"].astype(float))]
    if name == "total_tokens_per_s":
        return _events(view, "input_tokens_per_s") + _events(view, "output_tokens_per_s")
    done = np.where(view.ok, view["done_ns"], -1)
    return [(done, np.ones(len(done)))]


def _rate(steady: list[WindowView], name: str) -> Estimate | None:
    import numpy as np

    if not steady or (name in OF_PROMPTS and any(trust.prompts_unknown(view) for view in steady)):
        return None
    rates = []
    for view in steady:
        inside = [amount[view.within(times)] for times, amount in _events(view, name)]
        rates.append(float(sum(each.sum() for each in inside)) / (view.span_s or np.nan))
    if len(rates) > 1 or steady[0].window.point.mode == "batch":
        return stats.over_repeats(rates)
    return stats.of_batches(_sliced(steady[0], name)) if rates[0] > 0 else stats.over_repeats(rates)


def _sliced(view: WindowView, name: str) -> Floats:
    """The rate in each of BATCHES equal slices of the one steady window."""
    import numpy as np

    edges = np.linspace(view.start, view.end, BATCHES + 1)
    total = np.zeros(BATCHES)
    for times, amount in _events(view, name):
        total += np.histogram(times, edges, weights=amount)[0]
    return total / ((view.span_s or np.nan) / BATCHES)


def _latency(steady: list[WindowView], name: str) -> dict[str, Estimate | None]:
    samples = [sample for sample in (latency_samples(view, name) for view in steady) if len(sample)]
    found: dict[str, Estimate | None] = {f"{name}_mean": _mean(samples, name)}
    for label, q in QUANTILES.items():
        found[f"{name}_{label}"] = _quantile(samples, name, q)
    return found


def _mean(samples: list[Floats], name: str) -> Estimate | None:
    if not samples:
        return None
    if len(samples) > 1:
        return stats.over_repeats([float(sample.mean()) for sample in samples])
    if name == "itl_s":  # gaps of one request are not independent: no interval from a single window
        return Estimate(float(samples[0].mean()), n=len(samples[0]), over="tokens")
    return stats.of_sample(samples[0], "requests")


def _quantile(samples: list[Floats], name: str, q: float) -> Estimate | None:
    """Over repeats where each repeat is large enough to have this quantile, else over all requests."""
    import numpy as np

    if not samples:
        return None
    if len(samples) > 1 and min(len(sample) for sample in samples) >= 1 / (1 - q):
        return stats.over_repeats([float(np.quantile(sample, q)) for sample in samples])
    pooled = np.concatenate(samples)
    if name == "itl_s":
        return Estimate(float(np.quantile(pooled, q)), n=len(pooled), over="tokens")
    return stats.quantile(pooled, q)


def _mean_count(steady: list[WindowView], name: str) -> Estimate | None:
    import numpy as np

    column = name.removesuffix("_mean")
    counts = [view[column][view.measured] for view in steady]
    pooled = np.concatenate(counts) if counts else np.array([])
    pooled = pooled[pooled >= 0]
    return Estimate(float(pooled.mean()), n=len(pooled), over="requests") if len(pooled) else None


def _busy(steady: list[WindowView]) -> Estimate | None:
    """Share of the steady windows in which at least one request was in flight."""
    import numpy as np

    shares = []
    for view in steady:
        spans = [np.clip(each, view.start, view.end) for each in busy_spans(view)]
        shares.append(float((spans[1] - spans[0]).sum()) / (view.end - view.start))
    return stats.over_repeats(shares) if shares else None


def _memory(site: Site, windows: list[Window]) -> dict[str, Estimate | None]:
    account = site.manifest.memory
    peaks = [_peak_bytes(site, window.opened_ns, window.closed_ns) for window in windows]
    known = [peak for peak in peaks if peak is not None]
    return {
        "memory_weights_bytes": _exact(account.weights_bytes),
        "memory_kv_bytes": _exact(account.kv_bytes),
        "memory_peak_bytes": Estimate(float(max(known)), n=len(known), over="repeats") if known else None,
    }


def _peak_bytes(site: Site, t0_ns: int, t1_ns: int) -> int | None:
    """Highest use of memory: the engine's boards together, or its processes where it uses none.  What others
    are known to hold of a board is left out."""
    samples = site.run.samples
    if site.gpus:
        inside = between(samples, t0_ns, t1_ns)
        each = [board_memory.peak_bytes(inside, uuid) for uuid in site.gpus]
    else:
        each = [energy.peak_memory(samples, t0_ns, t1_ns, tree) for tree in sources(samples, "process")]
    known = [peak for peak in each if peak is not None]
    return sum(known) if known and len(known) == len(each) else None


def in_flight(view: WindowView) -> int:
    """How many answers stream at a time: the concurrency, or by Little's law what an open loop comes to."""
    import numpy as np

    if view.window.point.concurrency is not None:
        return view.window.point.concurrency
    e2e = latency_samples(view, "e2e_s")
    return max(1, round(float(np.sum(e2e)) / view.span_s)) if view.span_s and len(e2e) else 0


def _exact(value: int | None) -> Estimate | None:
    return None if value is None else Estimate(float(value))


def _kinds(steady: list[WindowView], scenario: Scenario) -> Iterator[str]:
    """The latencies of each kind of a mix, and of each turn of a conversation: a mean over unlike requests
    hides them."""
    import numpy as np

    columns = {"share": [share.name for share in scenario.workload.mix]}
    if scenario.workload.conversation is not None:
        last = max((int(view["turn"].max(initial=0)) for view in steady), default=0)
        columns["turn"] = [f"turn {number + 1}" for number in range(last + 1)]
    for column, names in columns.items():
        for number, name in enumerate(names):
            chosen = [(view, view.measured & (view[column] == number)) for view in steady]
            n = sum(int(keep.sum()) for _, keep in chosen)
            if not n:
                continue
            middle = [
                float(np.nanmedian(np.concatenate([request_latency(view, latency)[k] for view, k in chosen])))
                for latency in ("ttft_s", "e2e_s")
            ]
            yield f"{name}: {n:,} requests, p50 of TTFT {middle[0] * 1e3:.4g} ms, of E2E {middle[1]:.4g} s"


def _lost(views: list[WindowView]) -> Iterator[str]:
    for view in views:
        if view.span_s is not None and not view.outcome:
            yield f"window {view.window.index}: its requests are missing"
