"""Which load a token's cost is taken at: the highest measured one that keeps the latency promise.

Every measured load of a configuration (a model on an engine and a machine, under one scenario) is judged as
a search judges it (``levels``), with one difference: an estimate alone decides nothing here, what its
interval leaves open is *undecided*.  The load chosen is the highest that is met with none missed below it;
DistServe's goodput (Zhong et al., OSDI 2024) is what it serves within the limits.  Runs of one configuration
at one load are taken together: the promise over all their requests, figures over runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from profiler import levels, slo, stats
from profiler.figures import Figures
from profiler.levels import Level
from profiler.schema import Estimate
from profiler.slo import Judged, Limit, Verdict
from profiler.store import RunResult
from profiler.windows import WindowView

FEW_RUNS = 3
RAISE_IT = "profile run --find capacity finds it"


@dataclass(frozen=True)
class Standing:
    """One load of one configuration under the limits.  ``found`` holds its figures, over ``runs`` runs;
    ``reasons`` says why the load is not met; ``excess`` is the worst latency over its limit (below 1: kept),
    None where none was seen.  Good tokens are those of requests that kept every limit, as the share that
    they have of the tokens of all requests due.  ``by_quantiles``: judged without its requests."""

    found: Figures
    load: float
    runs: int
    verdict: Verdict
    reasons: tuple[str, ...]
    excess: float | None
    good_requests_per_s: Estimate | None = None
    good_output_tokens_per_s: Estimate | None = None
    by_quantiles: bool = False

    @property
    def words(self) -> str:
        """The load as people write it: ``8``, ``12.4/s``."""
        return f"{self.load:.4g}{'/s' if self.found.point.concurrency is None else ''}"


@dataclass(frozen=True)
class Choice:
    """A configuration's load: ``best`` keeps the promise; None: none does, and ``closest`` is nearest to it.
    Without a promise ``best`` is the highest steady load measured.  ``standings``: all, ascending."""

    limits: tuple[Limit, ...]
    standings: tuple[Standing, ...]
    best: Standing | None
    closest: Standing | None
    notes: tuple[str, ...]

    @property
    def found(self) -> Figures:
        """Figures of the load chosen, or of the nearest to it."""
        return (self.best or self.closest or self.standings[0]).found

    @property
    def machine(self) -> tuple[str | None, int]:
        """The boards and how many of them; without any the host."""
        return self.found.gpu or self.found.facts["host"], self.found.gpus


def choices(
    runs: Sequence[RunResult], measured: Sequence[Figures], given: Mapping[str, float]
) -> list[Choice]:
    """Each configuration's load, in the order given; ``given`` limits in place of the scenarios' own."""
    by_folder = {str(run.folder): run for run in runs}
    held: dict[object, list[Figures]] = {}
    for each in measured:
        own = given or by_folder[each.run].manifest.scenario.slo
        key = each.alike, each.facts["scenario"], each.work, each.point.mode, tuple(sorted(own.items()))
        held.setdefault(key, []).append(each)
    found = []
    for figures in held.values():
        own_runs = [by_folder[folder] for folder in dict.fromkeys(each.run for each in figures)]
        limits = slo.limits(given or own_runs[0].manifest.scenario.slo)
        standings = sorted(_standings(own_runs, figures, limits), key=lambda each: each.load)
        found.append(_choose(limits, tuple(standings)))
    return found


def _standings(
    runs: Sequence[RunResult], measured: Sequence[Figures], limits: tuple[Limit, ...]
) -> Iterator[Standing]:
    views = [(run, view) for run in runs for view in _views(run)]
    history = [levels.probe(view, limits) for _, view in views]
    plan = replace(runs[0].manifest.scenario, slo={limit.name: limit.limit_s for limit in limits})
    by_load = {level.load: level for level in levels.levels(plan, history)}
    loads: dict[float, list[Figures]] = {}
    for each in measured:
        loads.setdefault(levels.load_of(each.point), []).append(each)
    for load, held in loads.items():
        found = merged(held)
        at = [
            [view for owner, view in views if owner is run and levels.load_of(view.window.point) == load]
            for run in runs
        ]
        if load not in by_load:
            yield by_figures(found, load, len(held), limits)
            continue
        yield _standing(found, by_load[load], [each for each in at if each], limits)


def _views(run: RunResult) -> list[WindowView]:
    return [WindowView(window, run.requests) for window in run.manifest.windows]


def merged(held: Sequence[Figures]) -> Figures:
    """One load's figures over the runs that held it."""
    if len(held) == 1:
        return held[0]
    names = dict.fromkeys(name for each in held for name in each.estimates)
    estimates = {
        name: over_runs([each.estimates[name] for each in held if name in each.estimates]) for name in names
    }
    return replace(held[0], estimates=estimates)


def over_runs(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of what runs say of one figure.

    A run is one start of an engine, which is what differs from day to day: of FEW_RUNS or more the interval
    is over runs.  Of two that would be over one degree of freedom, twelve standard errors wide: there it is
    over the repeats of both together, with what lies between the runs counted among what lies between
    repeats.
    """
    if len(estimates) == 1:
        return estimates[0]
    values = [each.value for each in estimates]
    if len(values) >= FEW_RUNS or min(values) <= 0:
        return replace(stats.over_repeats(values), over="runs")
    counts = [each.n if stats.spread(each) is not None else 1 for each in estimates]
    n = sum(counts)
    logs = [math.log(value) for value in values]
    middle = sum(count * x for count, x in zip(counts, logs, strict=True)) / n
    within = sum(
        (count - 1) * (stats.spread(each) or 0) ** 2 for count, each in zip(counts, estimates, strict=True)
    )
    between = sum(count * (x - middle) ** 2 for count, x in zip(counts, logs, strict=True))
    half = stats.t_quantile(n - 1) * math.sqrt((within + between) / (n - 1) / n)
    return Estimate(math.exp(middle), math.exp(middle - half), math.exp(middle + half), n, "repeats")


def _standing(
    found: Figures, level: Level, views: Sequence[Sequence[WindowView]], limits: tuple[Limit, ...]
) -> Standing:
    steady = [[view for view in each if view.outcome and view.span_s] for each in views]
    every = [view for each in steady for view in each]
    judged = slo.judge(every, limits)
    verdict = verdict_of(level)
    return Standing(
        found=found,
        load=level.load,
        runs=len(views),
        verdict=verdict,
        reasons=_reasons(level, judged) if verdict != "met" else (),
        excess=_excess(judged),
        good_requests_per_s=_goodput(steady, limits) if limits else None,
        good_output_tokens_per_s=_good_tokens_per_s(found, every, limits) if limits else None,
    )


def verdict_of(level: Level) -> Verdict:
    """Met or missed by intervals, whatever the number of windows; a client that was the limit proves
    nothing about the server."""
    verdicts = [verdict for verdict, _ in level.verdicts.values()]
    if level.bound_by:
        return "undecided"
    if not level.steady or not level.keeps_up or "missed" in verdicts:
        return "missed"
    return "undecided" if "undecided" in verdicts else "met"


def _reasons(level: Level, judged: Sequence[Judged]) -> tuple[str, ...]:
    if level.bound_by:
        return (f"the client was the limit ({'; '.join(level.bound_by)})",)
    seen = {each.limit.words: _seen(each) for each in judged}
    open_ = [name for name, (verdict, _) in level.verdicts.items() if verdict == "undecided"]
    names = dict.fromkeys([*level.reasons, *open_])
    return tuple(seen.get(name, name) for name in names)


def _seen(judged: Judged) -> str:
    """``TTFT p99 812 ms > 500 ms``."""
    if judged.seen is None:
        return f"{judged.limit.words} n/a"
    sign = "≤" if judged.seen.value <= judged.limit.limit_s else ">"
    few = f", {judged.late.n:.0f} requests prove neither" if judged.verdict == "undecided" else ""
    return (
        f"{judged.limit.words} {judged.seen.value * 1e3:.4g} ms {sign} "
        f"{judged.limit.limit_s * 1e3:.4g} ms{few}"
    )


def _excess(judged: Iterable[Judged]) -> float | None:
    return max((each.seen.value / each.limit.limit_s for each in judged if each.seen), default=None)


def _goodput(by_run: Iterable[Sequence[WindowView]], limits: Sequence[Limit]) -> Estimate | None:
    each = [slo.goodput(views, limits)["goodput_requests_per_s"] for views in by_run]
    known = [goodput for goodput in each if goodput]
    return over_runs(known) if known else None


def _good_tokens_per_s(
    found: Figures, views: Iterable[WindowView], limits: Sequence[Limit]
) -> Estimate | None:
    """The rate times the share of good tokens, which is uncertain too unless it is all of them; of a single
    window how far is not known."""
    rate = found.estimates.get("output_tokens_per_s")
    shares = [share for view in views if (share := _good_token_frac(view, limits)) is not None]
    if rate is None or not any(shares):
        return None
    if min(shares) == 1:
        return rate
    return stats.ratio_of(rate, stats.inverted(stats.over_repeats(shares), 1.0))


def _good_token_frac(view: WindowView, limits: Sequence[Limit]) -> float | None:
    """Of the output tokens of requests due in a window, those of requests that kept every limit."""
    tokens = view["output_tokens"].clip(min=0)
    every = int(tokens[view.inside & ~view.has_outcome("cancelled")].sum())
    return int(tokens[slo.good(view, limits)].sum()) / every if every else None


def by_figures(found: Figures, load: float, runs: int, limits: tuple[Limit, ...]) -> Standing:
    """A load whose requests are not at hand (imported): by the quantiles that came with it."""
    verdicts: list[Verdict] = []
    reasons: list[str] = []
    worst: list[float] = []
    for limit in limits:
        seen = found.estimates.get(limit.name.replace("_s", "").replace("_p", "_s_p"))
        if seen is None:
            verdicts.append("undecided")
            reasons.append(f"{limit.words} n/a: imported without it")
            continue
        worst.append(seen.value / limit.limit_s)
        late = seen.value > limit.limit_s
        verdicts.append("missed" if late else "met")
        if late:
            reasons.append(f"{limit.words} {seen.value * 1e3:.4g} ms > {limit.limit_s * 1e3:.4g} ms")
    worst_first: tuple[Verdict, ...] = ("missed", "undecided")
    met: Verdict = "met"
    verdict = next((each for each in worst_first if each in verdicts), met)
    return Standing(found, load, runs, verdict, tuple(reasons), max(worst, default=None), by_quantiles=True)


def _choose(limits: tuple[Limit, ...], standings: tuple[Standing, ...]) -> Choice:
    if not limits:
        able = [each for each in standings if each.verdict != "missed"]
        return Choice(limits, standings, (able or standings)[-1], None, ())
    missed = next((each for each in standings if each.verdict == "missed"), None)
    first_missed = missed.load if missed else None
    below = [each for each in standings if first_missed is None or each.load < first_missed]
    met = [each for each in below if each.verdict == "met"]
    best = met[-1] if met else None
    closest = None if best else min(standings, key=_distance)
    told = [each for each in standings if each is not closest]
    return Choice(limits, standings, best, closest, tuple(_notes(told, best, missed)))


def _distance(standing: Standing) -> tuple[bool, float]:
    """An undecided load is nearer than a missed one, and the least excess nearest of each."""
    return standing.verdict == "missed", standing.excess if standing.excess is not None else float("inf")


def _notes(standings: Sequence[Standing], best: Standing | None, missed: Standing | None) -> Iterator[str]:
    if any(each.by_quantiles for each in standings):
        yield "imported without its requests: judged by the quantiles that came with it, without an interval"
    for each in standings:
        if each.verdict == "undecided" and (best is None or each.load > best.load):
            yield f"undecided at {each.words}: {'; '.join(each.reasons)}"
    if best is not None and missed is not None:
        yield f"missed at {missed.words}: {'; '.join(missed.reasons)}"
    if best is not None and best is standings[-1]:
        yield f"every measured load keeps the promise: the capacity may be higher, {RAISE_IT}"
    met = [each for each in standings if each.verdict == "met"]
    if missed is not None and met and met[-1].load > missed.load:
        yield f"not monotone: {missed.words} missed, {met[-1].words} met; the lower is believed"
