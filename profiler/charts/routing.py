"""Which experts of a MoE were used: how many a step touches, how the load fell on them, layer by layer, and
what that does to experts spread over GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from profiler import experts, routing
from profiler.charts.encoding import NUMBER, tooltip
from profiler.charts.loads import caveats, count
from profiler.charts.nouns import Absent, Chart, Column, Row
from profiler.charts.routing_loads import heat, imbalance
from profiler.charts.words import interval, model, one_line, significant, slug
from profiler.routing.nouns import Coverage, Ranks, RoutingReport
from profiler.store import RunResult

DECODE, PROMPT, UNIFORM = "measured, decode step", "measured, one prompt", "uniform, computed"
STEPS_A_DOUBLING = 4
LEAST_CV = 0.02  # a fitted skew below it draws the uniform curve again
DASHES = [[1, 0], [1, 0], [7, 4], [2, 4]]


def of_run(run: RunResult) -> tuple[Chart | Absent, ...]:
    """Nothing of a dense model, of which nobody expects it.

    Raises InputError where the recording is damaged.
    """
    report = routing.report(run)
    facts, why = run.manifest.model.facts, run.manifest.routing_missing
    if report is None:
        if facts is None or facts.kind != "moe":
            return ()
        title = f"Experts touched by a step: {model(run)}"
        reason = one_line(
            why or "its routing was not recorded (routing.requests=100 in a scenario records it)"
        )
        return (Absent(id=f"routing-{slug(run.folder.name)}", title=title, reason=reason),)
    found = [_coverage(run, report), heat(run, report), imbalance(run, report), _ranks(run, report)]
    return tuple(each for each in found if each)


# ------------------------------------------------------------------------------------------ coverage

COVERAGE = (
    Column(name="series", label="series"),
    Column(name="tokens", label="tokens of the step"),
    Column(name="experts", label="distinct experts a layer"),
    Column(name="low", label="95 % interval from"),
    Column(name="high", label="95 % interval to"),
    Column(name="lowest", label="lowest layer"),
    Column(name="highest", label="highest layer"),
    Column(name="n", label="requests"),
    Column(name="repeats", label="holds several tokens of one request"),
)


def _coverage(run: RunResult, report: RoutingReport) -> Chart | Absent:
    name, title = f"routing-{slug(run.folder.name)}", f"Experts touched by a step: {model(run)}"
    if not report.decode:
        return Absent(id=name, title=title, reason="the recording holds no generated tokens")
    cv = report.fitted_cv if report.fitted_cv and report.fitted_cv >= LEAST_CV else None
    measured = [
        _measured(series, step)
        for series, steps in ((DECODE, report.decode), (PROMPT, report.prefill))
        for step in steps
    ]
    most = max(row["tokens"] for row in measured)
    rows = (*measured, *_closed(UNIFORM, report, most, 0.0))
    if cv is not None:
        rows += tuple(_closed(f"skew of CV {cv:.2f}, fitted", report, most, cv))
    return Chart(
        id=name,
        title=title,
        summary=_coverage_words(report),
        columns=COVERAGE,
        rows=rows,
        spec=_coverage_spec(list(dict.fromkeys(row["series"] for row in rows)), report.experts, most),
        height=320,
        notes=(*_coverage_notes(report), *caveats([run])),
    )


def _measured(series: str, step: Coverage) -> Row:
    found = step.measured
    return {
        "series": series,
        "tokens": step.tokens,
        "experts": found.value,
        "low": found.low,
        "high": found.high,
        "lowest": step.lowest,
        "highest": step.highest,
        "n": found.n,
        "repeats": step.repeats,
    }


def _closed(series: str, report: RoutingReport, most: int, cv: float) -> Iterator[Row]:
    """A closed form on a grid fine enough for a curve."""
    steps = STEPS_A_DOUBLING * (most - 1).bit_length()
    for place in range(steps + 1):
        tokens = 2 ** (place / STEPS_A_DOUBLING)
        touched = experts.distinct_skewed(report.experts, report.experts_per_token, tokens, cv)
        yield dict.fromkeys(column.name for column in COVERAGE) | {
            "series": series,
            "tokens": tokens,
            "experts": touched,
        }


def _coverage_words(report: RoutingReport) -> str:
    told = [f"{interval(step.measured)} at {step.tokens}" for step in report.decode]
    uniform = [f"{significant(step.uniform)} at {step.tokens}" for step in report.decode]
    skewed = [
        f"{significant(step.skewed)} at {step.tokens}" for step in report.decode if step.skewed is not None
    ]
    fitted = f"; by the fitted skew of CV {report.fitted_cv:.2f}, {', '.join(skewed)}" if skewed else ""
    prompts = [f"{interval(step.measured)} at {step.tokens}" for step in report.prefill]
    alone = f" A prompt alone touches, by its tokens, {', '.join(prompts)}." if prompts else ""
    return (
        f"Distinct experts of {report.experts} that a decode step touches in a layer, mean over "
        f"{count(len(report.loads), 'layer')}, by its tokens (95 % interval, {report.requests} requests): "
        f"{', '.join(told)}. Were all experts alike: {', '.join(uniform)}{fitted}.{alone}"
    )


def _coverage_notes(report: RoutingReport) -> Iterator[str]:
    if report.made_up is not None:
        yield f"{report.made_up}: it says nothing about the trained model"
    yield (
        f"{report.tokens:,} tokens of {count(report.requests, 'request')}, {report.experts_per_token} of "
        f"{report.experts} experts a token; band: 95 % interval over requests"
    )
    if report.fitted_cv is not None and report.fitted_cv < LEAST_CV:
        yield f"the skew that fits best, of CV {report.fitted_cv:.3f}, is the uniform curve"
    if any(step.repeats for step in report.decode):
        yield f"hollow: more tokens than the {report.requests} requests, several of one in a step"


def _coverage_spec(series: Sequence[str], most: int, tokens: int) -> dict[str, Any]:
    x = {
        "field": "tokens",
        "type": "quantitative",
        "title": "tokens of the step",
        "scale": {"type": "log", "base": 2, "nice": False, "domain": [1, tokens]},
        "axis": {"format": "d", "tickCount": {"expr": "max(4, width / 70)"}},
    }
    y = {
        "field": "experts",
        "type": "quantitative",
        "title": f"distinct experts of {most}, a layer",
        "scale": {"domain": [0, most], "nice": False},
        "axis": {"tickCount": 5},
    }
    legend = {"symbolType": "stroke", "symbolOpacity": 1, "symbolStrokeWidth": 2.5, "symbolSize": 300}
    look = {"field": "series", "type": "nominal", "scale": {"domain": list(series)}, "legend": legend}
    dashes = {"scale": {"domain": list(series), "range": DASHES[: len(series)]}}
    numbers = dict.fromkeys(("tokens", "experts", "low", "high", "lowest", "highest"), NUMBER) | {"n": "d"}
    measured = f"indexof({[DECODE, PROMPT]}, datum.series) >= 0"
    line = {"y": y, "color": look, "strokeDash": look | dashes}
    band = {"y": y | {"field": "low"}, "y2": {"field": "high"}, "color": look}
    dot, repeats = {"y": y, "color": look}, f"{measured} && datum.repeats"
    return {
        "encoding": {"x": x, "tooltip": tooltip(COVERAGE, "series", **numbers)},
        "layer": [
            _only(f"!({measured})", {"type": "line", "strokeWidth": 1.5}, line),
            _only("isValid(datum.low)", {"type": "area", "style": "band"}, band),
            _only(measured, {"type": "line"}, line),
            _only(f"{measured} && !datum.repeats", {"type": "point"}, dot),
            _only(repeats, {"type": "point", "style": "paper"}, {"y": y}),
            _only(repeats, {"type": "point", "style": "hollow"}, dot),
        ],
    }


def _only(kept: str, mark: dict[str, Any], encoding: dict[str, Any]) -> dict[str, Any]:
    return {"transform": [{"filter": kept}], "mark": mark, "encoding": encoding}


# ------------------------------------------------------------------------------------------ ranks

RANKS = (
    Column(name="series", label="step"),
    Column(name="ranks", label="GPUs"),
    Column(name="median", label="busiest over mean, median layer"),
    Column(name="p90", label="busiest over mean, 90th percentile of layers"),
    Column(name="of", label="counted in"),
)


def _ranks(run: RunResult, report: RoutingReport) -> Chart | None:
    if not report.ranks:
        return None
    rows = tuple(_rank(each) for each in report.ranks)
    told = [f"{row['series']} on {row['ranks']} GPUs {row['median']:.2f}" for row in rows]
    return Chart(
        id=f"routing-ranks-{slug(run.folder.name)}",
        title=f"Experts spread over GPUs, the busiest against the mean: {model(run)}",
        summary=f"Computed from {count(report.requests, 'recorded request')}, experts placed in order: the "
        f"busiest GPU over the mean one, mean over steps, median of layers: {'; '.join(told)}.",
        columns=RANKS,
        rows=rows,
        spec=_ranks_spec(rows),
        height=260,
        notes=(
            "decode waits for the GPU with most distinct experts, prefill for the one with most tokens",
            "dot: median of the layers, dash: their 90th percentile; computed, no such split was run",
        ),
    )


def _rank(each: Ranks) -> Row:
    prompt = each.tokens is None
    return {
        "series": "prefill of a prompt" if prompt else f"decode, {each.tokens} tokens",
        "ranks": each.ranks,
        "median": each.load_median if prompt else each.distinct_median,
        "p90": each.load_p90 if prompt else each.distinct_p90,
        "of": "tokens" if prompt else "distinct experts",
    }


def _ranks_spec(rows: Sequence[Row]) -> dict[str, Any]:
    series = list(dict.fromkeys(row["series"] for row in rows))
    x = {
        "field": "ranks",
        "type": "ordinal",
        "title": "GPUs that share the experts",
        "axis": {"labelAngle": 0},
    }
    offset = {"xOffset": {"field": "series", "type": "nominal", "sort": series}}
    y = {
        "field": "median",
        "type": "quantitative",
        "title": "busiest GPU over the mean",
        "scale": {"domainMin": 1, "nice": True, "zero": False},
        "axis": {"tickCount": 5, "format": ".2~f"},
    }
    look = {"field": "series", "type": "nominal", "scale": {"domain": series}}
    p90 = {"y": y | {"field": "p90"}}
    tips = tooltip(RANKS, "series", ranks="d", median=".3~f", p90=".3~f") + tooltip(RANKS, "of")
    return {
        "encoding": {"x": x, **offset, "color": look, "tooltip": tips},
        "layer": [
            {"mark": {"type": "rule", "style": "whisker"}, "encoding": p90 | {"y2": {"field": "median"}}},
            {"mark": {"type": "tick", "width": 9, "thickness": 1.5}, "encoding": p90},
            {"mark": {"type": "point"}, "encoding": {"y": y, "shape": look}},
        ],
    }
