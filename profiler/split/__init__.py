"""What an input token and what an output token takes: engine time, energy, USD, found in two ways.

*Separate points*: a run whose answers are one token holds prefill alone, a decode-heavy run at the same load
gives the rest:  a = Q/input there,  b = (Q − a·input)/decode here.  Q is engine time, or energy above what
standing by takes.

*Regression* over slices of windows in which both kinds mix:  Q = a·input + b·decode (+ c·context where it can
be told apart), coefficients ≥ 0.  It is refused where the mix varies too little to tell a from b.

The two rest on different runs, so their ratio tests that the kinds add up.  Neither cuts at the first token:
under load, prefill of one request and decoding of others share every step of the engine.  What counts as a
token of either kind is told in ``slices``; method and limits in docs/prefill-decode.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from profiler import alike, consumption, metrics, prefill, prices, stats, trust
from profiler.figures import NOTE_SEPARATOR
from profiler.metrics import by_load
from profiler.samples import series
from profiler.schema import Estimate, LoadPoint, Window
from profiler.site import Site
from profiler.split import fit, slices
from profiler.split.ways import Held, Quantity, Standing, Way, by_points, by_regression, standing_by
from profiler.store import RunResult
from profiler.windows import WindowView

KINDS = ("input", "output")
PARTS = ("input", "output", "standing", "remainder")
RATIO = "ratio"
UNITS: dict[str, str] = {"engine time": "s", "energy": "J", "cost": "USD"}
COLUMNS = (
    *("model", "engine", "gpu", "gpus", "scenario", "load", "concurrency", "load_requests_per_s"),
    *("quantity", "unit", "way", "cost_basis", "utilization_frac", "price_basis"),
    *(f"per_{kind}_token{end}" for kind in KINDS for end in ("", "_low", "_high")),
    *("per_output_token_and_1000_context", "standing_w", "standing", "residual_frac", "slices", "vif"),
    *("condition", *(f"{part}_frac" for part in PARTS), "basis", "undecided", "notes", "runs"),
)
# A run tells decoding by itself when prefill takes no more than this of its engine time.
DECODE_HEAVY_FRAC = 0.2
COUNTERS_AGREE_FRAC = 0.05
HOW = "run scenarios prefill, decode and split, and give all three"


class Paid(NamedTuple):
    """What a second of the whole engine costs, on what basis, by whose word, and how much of it works."""

    usd_per_s: float
    basis: str = "rented"
    utilization_frac: float = 1.0
    words: str | None = None


Payment = Callable[[RunResult, LoadPoint], Paid | None]


def rows(runs: Sequence[RunResult], payment: Payment | None = None) -> list[dict[str, Any]]:
    """One dict a load, quantity and way, with every name of COLUMNS; ``payment`` of a load, as a rule what
    the run was made with.

    Figures are per token, in ``unit``; those of way ``ratio`` are regression over separate points.
    """
    payment = payment or _own_price
    table: list[dict[str, Any]] = []
    for same in _same_engine(runs):
        held = [each for run in same for each in _held(run)]
        alone = max((h for h in held if h.is_prefill), key=_input_rate, default=None) or _by_ttft(same)
        for at, decode in _pairs([each for each in held if each.total("decode_tokens") > 0], alone):
            table += _rows_of(at, alone, decode, payment(at.site.run, at.point))
    return table


def regressions(runs: Sequence[RunResult]) -> dict[tuple[str, LoadPoint], tuple[Estimate | None, str | None]]:
    """By run folder and load: engine seconds of an input token by regression, or why there is none."""
    found = {}
    for held in (each for run in runs for each in _held(run) if each.total("decode_tokens") > 0):
        way = by_regression("engine time", held, Standing())
        found[str(held.site.run.folder), held.point] = way.input, way.undecided
    return found


def _pairs(held: Sequence[Held], alone: Held | Estimate | None) -> Iterator[tuple[Held, Held]]:
    """Each load to be split and where its decoding is taken from: a decode-heavy point of the same load, or
    itself.  A decode-heavy point beside a mixed one is there for that one only."""
    heavy = [each for each in held if alone is not None and _prefill_frac(each, alone) < DECODE_HEAVY_FRAC]
    mixed = [each for each in held if each not in heavy]
    for at in held:
        if at in mixed:
            there = [each for each in heavy if each.point == at.point]
            yield at, min(there, key=_input_rate, default=at)
        elif all(each.point != at.point for each in mixed):
            yield at, at


def _same_engine(runs: Sequence[RunResult]) -> Iterable[list[RunResult]]:
    groups: dict[str, list[RunResult]] = {}
    for run in runs:
        groups.setdefault(alike.fingerprint(run), []).append(run)
    return groups.values()


def _held(run: RunResult) -> Iterator[Held]:
    """The load points of a run that can be split.  A batch is none: as it runs dry, its steps grow unlike."""
    site = Site(run)
    points: dict[LoadPoint, list[Window]] = {}
    for window in run.manifest.windows:
        points.setdefault(window.point, []).append(window)
    for point in sorted(points, key=by_load):
        views = [WindowView(window, run.requests) for window in points[point]]
        views = [view for view in views if view.outcome and view.span_s is not None]
        if point.mode == "batch" or not views or any(trust.prompts_unknown(view) for view in views):
            continue
        wholes = [slices.of_window(view, run.samples, site.gpus, whole=True) for view in views]
        yield Held(site, point, views, wholes, consumption.of_point(site, views))


def _input_rate(held: Held) -> float:
    return held.total("input_tokens") / held.total("span_s")


def _by_ttft(runs: Sequence[RunResult]) -> Estimate | None:
    """Engine time of an input token where no run holds prefill alone."""
    return prefill.s_per_token(point for run in runs for point in metrics.points(run))


def _prefill_frac(held: Held, alone: Held | Estimate) -> float:
    """Part of the engine time of a load that its prompts would take alone."""
    per_input_s = alone.value if isinstance(alone, Estimate) else 1 / _input_rate(alone)
    return per_input_s * held.total("input_tokens") / held.total("busy_s")


# ------------------------------------------------------------------------------------- one load


def _rows_of(
    at: Held, alone: Held | Estimate | None, decode: Held, paid: Paid | None
) -> Iterator[dict[str, Any]]:
    used = [each for each in (at, decode, alone) if isinstance(each, Held)]
    shared = _identity(at.site.run, at.point) | {
        "notes": NOTE_SEPARATOR.join(dict.fromkeys(n for each in used for n in _notes(each))) or None,
        "runs": " ".join(dict.fromkeys(str(each.site.run.folder) for each in used)),
    }
    gpus = len(at.site.manifest.engine.gpus)
    time_s = _both("engine time", at, alone, decode, Standing())
    apart = None if isinstance(alone, Estimate) else alone
    joules = _both("energy", at, apart, decode, standing_by(used))
    usd = [] if paid is None else [_scaled(way, paid.usd_per_s) for way in time_s]
    gpu_s = [_scaled(way, max(1, gpus)) for way in time_s]
    for quantity, ways in (("engine time", gpu_s), ("energy", joules), ("cost", usd)):
        terms = _terms(paid if quantity == "cost" else None)
        yield from (shared | terms | _row(quantity, way) for way in ways)


def _both(
    quantity: Quantity, at: Held, alone: Held | Estimate | None, decode: Held, standing: Standing
) -> list[Way]:
    """Both ways, and their ratio where both mean the same by it."""
    points = by_points(quantity, at, alone, decode, standing)
    regression = by_regression(quantity, at, standing)
    if not (points.input and points.output and regression.input and regression.output):
        return [points, regression]
    if points.standing.source != regression.standing.source:
        return [points, regression]
    ratio = Way(
        way=RATIO,
        input=fit.ratio(regression.input, points.input),
        output=fit.ratio(regression.output, points.output),
        basis="regression over separate points",
    )
    return [points, regression, ratio]


def _scaled(way: Way, factor: float) -> Way:
    if way.way == RATIO:
        return way
    figures = {"input": way.input, "output": way.output, "context": way.context}
    return replace(way, **{name: each and stats.scaled(each, factor) for name, each in figures.items()})


def _own_price(run: RunResult, _point: LoadPoint) -> Paid | None:
    usd_per_s = prices.usd_per_s(run.manifest.price, len(run.manifest.engine.gpus))
    return None if usd_per_s is None else Paid(usd_per_s)


def _terms(paid: Paid | None) -> dict[str, Any]:
    return {
        "cost_basis": paid.basis if paid else None,
        "utilization_frac": paid.utilization_frac if paid else None,
        "price_basis": paid.words if paid else None,
    }


def _identity(run: RunResult, point: LoadPoint) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "model": manifest.model.name,
        "engine": manifest.engine.kind,
        "gpu": alike.gpu_name(run),
        "gpus": len(manifest.engine.gpus),
        "scenario": manifest.scenario.name,
        "load": point.mode,
        "concurrency": point.concurrency,
        "load_requests_per_s": point.requests_per_s,
    }


def _row(quantity: str, way: Way) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for kind, estimate in (("input", way.input), ("output", way.output)):
        figures[f"per_{kind}_token"] = estimate.value if estimate else None
        figures[f"per_{kind}_token_low"] = estimate.low if estimate else None
        figures[f"per_{kind}_token_high"] = estimate.high if estimate else None
    stood = way.standing
    is_energy = quantity == "energy" and way.way != RATIO and way.input is not None
    return figures | {
        "quantity": quantity,
        "unit": None if way.way == RATIO else UNITS[quantity],
        "way": way.way,
        "per_output_token_and_1000_context": way.context.value if way.context else None,
        "standing_w": stood.watts if is_energy and stood.source != "inside" else None,
        "standing": (stood.kind or stood.source) if is_energy else None,
        "residual_frac": way.residual_frac,
        "slices": way.slices,
        "vif": way.vif,
        "condition": way.condition,
        **{f"{part}_frac": way.shares[n] if way.shares else None for n, part in enumerate(PARTS)},
        "basis": way.basis,
        "undecided": way.undecided,
    }


def _notes(at: Held) -> Iterator[str]:
    """What speaks against the energy, and where the engine counted other work than the requests show."""
    import numpy as np

    yield from (f"{at.name}: {text}" for text in (*at.consumed.trouble, *at.consumed.notes))
    source = f"engine:{at.site.manifest.model.name}"
    for kind, name in (("input", "prompt_tokens"), ("output", "generation_tokens")):
        counted = seen = 0.0
        for view in at.views:
            times, values = series(at.site.run.samples, source, name)
            if not len(times) or times[0] > view.start or times[-1] < view.end:
                return
            start, end = np.interp([view.start, view.end], times, values)
            counted += float(end - start)
            seen += _seen(view, kind)
        if abs(counted - seen) > COUNTERS_AGREE_FRAC * max(seen, 1.0):
            yield (
                f"{at.name}: the engine counted {counted:,.0f} {kind} tokens, its requests had {seen:,.0f}: "
                "preempted requests computed anew, or other clients"
            )


def _seen(view: WindowView, kind: str) -> float:
    """Tokens by the records as the engine's counters have them: a prompt when its first token comes."""
    times, amount = view.arrived_output
    if kind == "input":
        times, amount = view["first_ns"], view["input_tokens"].astype(float)
    return float(amount[view.within(times)].sum())
