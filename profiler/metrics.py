"""RunResult → named Estimates, one set a load point.  Definitions: DESIGN section 4, docs/results.md.

Every rate, power and energy of a window shares its steady window.  Rates count what *arrives* inside it,
whichever request it belongs to; latencies belong to the requests that were *due* inside it, all of which
ran to their end under the same load.  Latency counts from ``due``, so neither a stalled server nor a
stalled client can hide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler import energy, stats
from profiler.schema import Estimate, LoadPoint, Window
from profiler.store import RunResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
LATENCIES = ("ttft_s", "itl_s", "tpot_s", "e2e_s")
OF_PROMPTS = ("input_tokens_per_s", "total_tokens_per_s")
RATES = ("output_tokens_per_s", "input_tokens_per_s", "total_tokens_per_s", "requests_per_s")
BATCHES = 20
NOT_MEASURED = ("ok", "cancelled")


@dataclass(frozen=True)
class PointResult:
    """One load point of one run.  ``estimates[name]`` is None where nothing could be measured;
    ``reasons[name]`` then says why.  ``failures`` counts failed requests by outcome."""

    point: LoadPoint
    repeats: int
    requests_ok: int
    failures: dict[str, int]
    estimates: dict[str, Estimate | None]
    reasons: dict[str, str]
    notes: tuple[str, ...]


def points(run: RunResult) -> list[PointResult]:
    """The measured load points of a run, in the order of the scenario."""
    held: dict[tuple[str, int], list[Window]] = {}
    for window in run.manifest.windows:
        held.setdefault((window.point.mode, window.point.concurrency), []).append(window)
    return [_point(run, windows) for _, windows in sorted(held.items())]


def _point(run: RunResult, windows: list[Window]) -> PointResult:
    views = [WindowView(window, run.requests) for window in windows]
    seen = [view for view in views if view.outcome]
    steady = [view for view in seen if view.span_s is not None]
    estimates: dict[str, Estimate | None] = {}
    for name in RATES:
        estimates[name] = _rate(steady, name)
    for name in LATENCIES:
        estimates |= _latency(steady, name)
    for name in ("input_tokens_mean", "output_tokens_mean"):
        estimates[name] = _mean_count(steady, name)
    powered, reasons = _energy(run, steady)
    failures = Counter(outcome for view in seen for outcome in view.failures())
    ok = sum(int(view.measured.sum()) for view in steady)
    return PointResult(
        windows[0].point,
        len(steady),
        ok,
        dict(failures),
        estimates | powered | _memory(run, windows),
        reasons,
        (*_lost(views), *_notes(steady, windows)),
    )


class WindowView:
    """One window's requests as arrays: times in ns (−1 where it never came), one element a request."""

    def __init__(self, window: Window, table: Any) -> None:
        import numpy as np

        first, last = np.searchsorted(table["window"].to_numpy(), (window.index, window.index + 1))
        self.window = window
        self._columns = table.slice(first, last - first)
        self.outcome: list[str] = self._columns["outcome"].to_pylist()
        self.start, self.end = window.steady_start_ns or 0, window.steady_end_ns or 0
        self.span_s = (self.end - self.start) / 1e9 if self.end > self.start > 0 else None
        self.inside = self._inside()
        self.measured = self.inside & self._has_outcome("ok")

    def __getitem__(self, name: str) -> Ints:
        import pyarrow.compute as pc

        filled: Ints = pc.fill_null(self._columns[name], -1).to_numpy()
        return filled

    def _inside(self) -> NDArray[np.bool_]:
        """Requests due in the window; all of a batch, whose window begins when the first is *sent*."""
        due = self["due_ns"]
        if self.window.point.mode == "batch":
            return due >= 0
        return (due >= (self.start)) & (due < (self.end))

    def _has_outcome(self, outcome: str) -> NDArray[np.bool_]:
        import numpy as np

        return np.array([each == outcome for each in self.outcome], dtype=bool)

    def failures(self) -> Iterator[str]:
        """Outcomes of the failed requests that were due in the window (all of them, if never steady)."""
        for outcome, inside in zip(self.outcome, self.inside, strict=True):
            if (inside or self.span_s is None) and outcome not in NOT_MEASURED:
                yield outcome

    def beyond_pieces(self) -> Ints:
        """Output tokens of each measured request less those its arrivals show: engines that return text
        only may send several tokens in one piece, or one in several; 0 for the other requests."""
        import numpy as np

        shown = self.per_request(*self.arrivals())
        return np.where(self.measured, self["output_tokens"] - shown, 0).astype(np.int64)

    def per_request(self, row: Ints, _times: Ints, tokens: Ints) -> Floats:
        """Tokens of all arrivals of each request."""
        import numpy as np

        # Without a single arrival bincount forgets the type of its weights.
        return np.bincount(row, weights=tokens, minlength=len(self.outcome)).astype(np.float64)

    def arrivals(self) -> tuple[Ints, Ints, Ints]:
        """All token arrivals: (request row, time in ns, tokens), one element an arrival."""
        import numpy as np

        times, counts = self._columns["arrivals_ns"], self._columns["arrival_tokens"]
        lengths = np.array([len(each) for each in times.to_pylist()], dtype=np.int64)
        flat = times.combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        tokens = counts.combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        return np.repeat(np.arange(len(lengths)), lengths), flat, tokens


def _within(view: WindowView, times: Ints) -> NDArray[np.bool_]:
    return (times > view.start) & (times <= view.end)


def _arrived_output(view: WindowView) -> tuple[Ints, Floats]:
    """Arrival times and output tokens; where the stream shows fewer or more pieces than ``usage`` counts
    tokens (engines that return text only), each piece carries its share of the request's count."""
    import numpy as np

    row, times, pieces = view.arrivals()
    seen = view.per_request(row, times, pieces)
    share = np.divide(view["output_tokens"], seen, out=np.ones_like(seen), where=seen > 0)
    return times, pieces * share[row]


def _events(view: WindowView, name: str) -> list[tuple[Ints, Floats]]:
    """What a rate counts: (times in ns, amount) series."""
    import numpy as np

    if name == "output_tokens_per_s":
        return [_arrived_output(view)]
    if name == "input_tokens_per_s":
        # A prompt is worked off when its first token comes out.
        return [(view["first_ns"], view["input_tokens"].astype(float))]
    if name == "total_tokens_per_s":
        return _events(view, "input_tokens_per_s") + _events(view, "output_tokens_per_s")
    done = np.where(view._has_outcome("ok"), view["done_ns"], -1)
    return [(done, np.ones(len(done)))]


def _rate(steady: list[WindowView], name: str) -> Estimate | None:
    import numpy as np

    if not steady or (name in OF_PROMPTS and any(_prompts_unknown(view) for view in steady)):
        return None
    rates = []
    for view in steady:
        inside = [amount[_within(view, times)] for times, amount in _events(view, name)]
        rates.append(float(sum(each.sum() for each in inside)) / (view.span_s or np.nan))
    if len(rates) > 1 or steady[0].window.point.mode == "batch":
        return stats.over_repeats(rates)
    return stats.of_batches(_sliced(steady[0], name)) if rates[0] > 0 else stats.over_repeats(rates)


def _prompts_unknown(view: WindowView) -> bool:
    """Whether the length of any prompt that counts, or was measured, is not known."""
    counts = _within(view, view["first_ns"]) | view.measured
    return bool((view["input_tokens"][counts] < 0).any())


def _sliced(view: WindowView, name: str) -> Floats:
    """The rate in each of BATCHES equal slices of the one steady window."""
    import numpy as np

    edges = np.linspace(view.start, view.end, BATCHES + 1)
    total = np.zeros(BATCHES)
    for times, amount in _events(view, name):
        total += np.histogram(times, edges, weights=amount)[0]
    return total / ((view.span_s or np.nan) / BATCHES)


def latency_samples(view: WindowView, name: str) -> Floats:
    """The window's sample of one latency in seconds, one element a request (for ITL: a gap)."""
    import numpy as np

    keep = view.measured
    first, last, due = view["first_ns"][keep], view["last_ns"][keep], view["due_ns"][keep]
    if name == "ttft_s":
        return np.asarray((first - due) / 1e9)
    if name == "e2e_s":
        return np.asarray((last - due) / 1e9)
    if name == "tpot_s":
        tokens = view["output_tokens"][keep]
        several = tokens > 1
        return np.asarray((last - first)[several] / 1e9 / (tokens[several] - 1))
    return _gaps(view)


def _gaps(view: WindowView) -> Floats:
    """Gaps between token arrivals; a chunk of k tokens is one gap and k − 1 zero gaps, and so is a piece
    of text that holds k tokens by the server's count."""
    import numpy as np

    row, times, tokens = view.arrivals()
    kept = view.measured[row]
    row, times, tokens = row[kept], times[kept], tokens[kept]
    same = row[1:] == row[:-1]
    gaps = (times[1:] - times[:-1])[same] / 1e9
    together = int((tokens - 1).clip(min=0).sum() + view.beyond_pieces().clip(min=0).sum())
    return np.concatenate([gaps, np.zeros(together)])


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


def _energy(run: RunResult, steady: list[WindowView]) -> tuple[dict[str, Estimate | None], dict[str, str]]:
    """Mean power and energy per output token over the very windows the rates come from.

    What is sampled is this machine: it says nothing of an endpoint that runs elsewhere.
    """
    gpus = run.manifest.engine.gpus
    found: dict[str, list[float]] = {"power_w_mean": [], "energy_j_per_output_token": []}
    reasons: dict[str, str] = {}
    if run.manifest.engine.device == "remote":
        elsewhere = "the endpoint runs elsewhere: its power is not measured"
        return dict.fromkeys(found), dict.fromkeys(found, elsewhere)
    for view in steady:
        reading = energy.over_window(run.samples, view.start, view.end, gpus)
        per_token, reason = energy.joules_per_token(reading, _tokens_in(view))
        for name, value, why in (
            ("power_w_mean", reading.power_w, reading.reason),
            ("energy_j_per_output_token", per_token, reason),
        ):
            if value is None:
                reasons.setdefault(name, why or "not measured")
            else:
                found[name].append(value)
    if not steady:
        reasons = dict.fromkeys(found, "the load never became steady")
    estimates = {name: None if name in reasons else stats.over_repeats(found[name]) for name in found}
    return estimates, reasons


def _tokens_in(view: WindowView) -> float:
    times, amount = _arrived_output(view)
    return float(amount[_within(view, times)].sum())


def _memory(run: RunResult, windows: list[Window]) -> dict[str, Estimate | None]:
    account = run.manifest.memory
    peaks = [energy.peak_memory(run.samples, w.opened_ns, w.closed_ns) for w in windows]
    known = [peak for peak in peaks if peak is not None]
    return {
        "memory_weights_bytes": _exact(account.weights_bytes),
        "memory_kv_bytes": _exact(account.kv_bytes),
        "memory_peak_bytes": Estimate(float(max(known)), n=len(known), over="repeats") if known else None,
    }


def _exact(value: int | None) -> Estimate | None:
    return None if value is None else Estimate(float(value))


def _lost(views: list[WindowView]) -> Iterator[str]:
    for view in views:
        if view.span_s is not None and not view.outcome:
            yield f"window {view.window.index}: its requests are missing"


def _notes(steady: list[WindowView], windows: list[Window]) -> Iterable[str]:
    yield from sorted({window.trouble for window in windows if window.trouble})
    beyond = [view.beyond_pieces() for view in steady]
    if any((more > 0).any() for more in beyond) or any((view.arrivals()[2] > 1).any() for view in steady):
        yield "the engine sent several tokens in one chunk: ITL holds zero gaps, read TPOT beside it"
    if any((more < 0).any() for more in beyond):
        yield "the engine sent some tokens in several pieces: ITL is between pieces, read TPOT beside it"
    if any(_prompts_unknown(view) for view in steady):
        yield "input tokens n/a: the endpoint does not say how long every prompt was"
    lag = [w.audit.send_lag_p99_s for w in windows if w.audit and w.audit.send_lag_p99_s is not None]
    if lag and max(lag) > 0.001:
        yield f"client lag: requests left up to {max(lag) * 1e3:.1f} ms (p99) after they were due"
