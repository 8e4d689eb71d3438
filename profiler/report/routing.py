"""``profile compare --show routing``: experts touched, their loads and ranks as tables; a line each for the
cost table's page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from profiler import experts, routing
from profiler.charts.words import NA, significant
from profiler.errors import InputError
from profiler.report.csv_text import as_csv
from profiler.routing.nouns import Coverage, Load, RoutingReport
from profiler.schema import Estimate
from profiler.store import RunResult

if TYPE_CHECKING:
    from rich.table import Table

DIVERSE_REQUESTS = 100  # dead experts by prompts: 30 % at 5, 7.1 % at 20, 1.9 % at 50, 0.6 % at 100 (baa.ai)
ALIKE_FROM = 0.95
COLLAPSED_FROM = 0.5
BATCHES = (1, 8, 32)
AT_MOST = 4  # loads named in one line
COLUMNS = (
    *("run", "model", "routing", "part", "layer", "ranks", "tokens", "quantity"),
    *("value", "low", "high", "n"),
)
LOADS = {
    "cv": "CV of loads",
    "cv_excess": "CV less chance",
    "cv_noise": "chance, by requests",
    "max_over_mean": "max / mean",
    "gini": "Gini",
    "entropy_frac": "entropy, of even",
    "effective_experts": "effective experts",
    "dead_frac": "dead",
    "same_frac": "same set",
}
PERCENT = ("dead_frac", "same_frac")


class Found(NamedTuple):
    """A run and what its recording says."""

    run: RunResult
    report: RoutingReport


class Grid(NamedTuple):
    """A table as a reader sees it; the first column names the row."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def found(runs: Sequence[RunResult]) -> list[Found]:
    """The runs with a recording; raises InputError, saying why there is none, where no run has one."""
    kept = [Found(run, report) for run in runs if (report := routing.report(run)) is not None]
    if not kept:
        why = sorted({run.manifest.routing_missing for run in runs if run.manifest.routing_missing})
        raise InputError(
            f"no routing was recorded in these runs: {'; '.join(why) or 'they hold no MoE or are older'}"
        )
    return kept


# ------------------------------------------------------------------------------------------- tables


def grids(each: Found) -> Iterator[Grid]:
    """Coverage, loads, ranks."""
    report = each.report
    yield Grid(
        f"{each.run.folder.name}: distinct experts of {report.experts}, a layer and step",
        ("step", "tokens", "measured", "95 %", "layers", "uniform", _skew(report), "independent"),
        [_coverage(kind, step) for kind, steps in _steps(report) for step in steps],
    )
    yield Grid("load of the experts", ("layer", *LOADS.values()), list(_loads(report)))
    if report.ranks:
        yield Grid(
            "expert parallel: busiest / mean rank",
            ("GPUs", "step", "tokens", "distinct experts", "p90 of layers", "load", "p90 of layers"),
            [
                (
                    str(rank.ranks),
                    "prefill" if rank.tokens is None else "decode",
                    "a prompt" if rank.tokens is None else str(rank.tokens),
                    *(f"{x:.2f}" for x in (rank.distinct_median, rank.distinct_p90)),
                    *(f"{x:.2f}" for x in (rank.load_median, rank.load_p90)),
                )
                for rank in report.ranks
            ],
        )


def _steps(report: RoutingReport) -> tuple[tuple[str, tuple[Coverage, ...]], ...]:
    return ("decode", report.decode), ("prefill", report.prefill)


def _skew(report: RoutingReport) -> str:
    return "skew" if report.fitted_cv is None else f"skew CV {report.fitted_cv:.2f}"


def _coverage(kind: str, step: Coverage) -> list[str]:
    figures = (step.uniform, step.skewed, step.by_marginals)
    return [
        kind,
        f"{step.tokens}{'*' * step.repeats}",
        significant(step.measured.value),
        _interval(step.measured) or NA,
        f"{significant(step.lowest)}–{significant(step.highest)}",
        *(significant(figure) for figure in figures),
    ]


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{significant(estimate.low)}–{significant(estimate.high)}"


def _loads(report: RoutingReport) -> Iterator[list[str]]:
    """A row a layer, then their median, smallest and largest."""
    for load in report.loads:
        yield [str(load.layer), *(_load_figure(name, getattr(load, name)) for name in LOADS)]
    if len(report.loads) > 1:
        for which in ("median", "low", "high"):
            spreads = ((name, report.over_layers(name)) for name in LOADS)
            yield [which, *(_load_figure(name, getattr(spread, which, None)) for name, spread in spreads)]


def _load_figure(name: str, value: float | None) -> str:
    if value is None:
        return "none seen" if name == "cv_excess" else NA
    return f"{value:.1%}" if name in PERCENT else significant(value)


def rich_tables(each: Found) -> Iterator[Table]:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    for grid in grids(each):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.title, table.title_justify = escape(grid.title), "left"
        for header in grid.headers:
            table.add_column(escape(header), justify="right", overflow="fold")
        for number, row in enumerate(grid.rows):
            # What comes next is of another kind: decode and prefill, layers and their median.
            ends = number + 1 < len(grid.rows) and _kind(row) != _kind(grid.rows[number + 1])
            table.add_row(*(escape(cell) for cell in row), end_section=ends)
        yield table


def _kind(row: Sequence[str]) -> str:
    return (
        "a number" if row[0].isdigit() else "over layers" if row[0] in ("median", "low", "high") else row[0]
    )


def markdown(each: Found) -> str:
    texts = []
    for grid in grids(each):
        lines = [grid.headers, ["---"] * len(grid.headers), *grid.rows]
        texts.append(f"**{grid.title}**\n\n" + "".join("| " + " | ".join(line) + " |\n" for line in lines))
    return "\n".join([*texts, "".join(f"* {line}\n" for line in lines_below(each.report))])


def as_json(runs: Sequence[Found]) -> str:
    """The reports, each with its run's folder, model and coverage as a share of the experts."""
    documents = [
        {"run": str(each.run.folder), "model": each.run.manifest.model.name}
        | msgspec.to_builtins(each.report)
        | {"used_frac": each.report.used_frac}
        for each in runs
    ]
    return msgspec.json.format(msgspec.json.encode(documents), indent=1).decode() + "\n"


def csv_text(runs: Sequence[Found]) -> str:
    """One figure a line."""
    return as_csv([row for each in runs for row in _tidy(each)], COLUMNS)


def _tidy(each: Found) -> Iterator[dict[str, Any]]:
    report = each.report
    which = {"run": str(each.run.folder), "model": each.run.manifest.model.name, "routing": report.routing}
    for kind, steps in _steps(report):
        for step in steps:
            place = which | {"part": kind, "tokens": step.tokens}
            yield place | _figure("distinct_measured", step.measured)
            for name in ("uniform", "skewed", "by_marginals"):
                yield place | _figure(f"distinct_{name}", getattr(step, name))
    for load in report.loads:
        for name in Load.__struct_fields__[1:]:
            yield which | {"part": "load", "layer": load.layer} | _figure(name, getattr(load, name))
    for rank in report.ranks:
        place = which | {"part": "ranks", "ranks": rank.ranks, "tokens": rank.tokens}
        for name in ("load_median", "load_p90", "distinct_median", "distinct_p90"):
            yield place | _figure(name, getattr(rank, name))


def _figure(quantity: str, value: Estimate | float | None) -> dict[str, Any]:
    if not isinstance(value, Estimate):
        return {"quantity": quantity, "value": value}
    return {"quantity": quantity, "value": value.value, "low": value.low, "high": value.high, "n": value.n}


# -------------------------------------------------------------------------------------------- words


def lines_below(report: RoutingReport) -> Iterator[str]:
    """What was recorded, whose routing it is, what speaks against the figures, what the columns are."""
    k, count = report.experts_per_token, report.experts
    yield (
        f"{report.tokens:,} tokens of {report.requests:,} requests ({report.output_tokens:,} generated), "
        f"{len(report.loads)} layers that route, {k} of {count} experts a token; by {report.source}"
    )
    yield f"routing: {_whose(report)}"
    yield from _warnings(report)
    yield (
        "measured: mean over all steps that can be made of the recording, a token each of so many requests; "
        "95 % interval over requests; prefill: the first so many tokens of a prompt"
    )
    yield "independent: by each expert's share, as if tokens knew nothing of each other (low by chance)"
    if any(step.repeats for step in report.decode):
        yield f"*: more tokens than the {report.requests} requests: several tokens of one request in a step"
    yield (
        "CV: of the experts' tokens; chance: what of it so few requests explain; none seen: it cannot be "
        "told from even loads"
    )
    if report.ranks:
        yield "decode waits for the GPU with most distinct experts, prefill for the one with most load"


def _whose(report: RoutingReport) -> str:
    if report.made_up is not None:
        return f"{report.made_up}: it says nothing about the trained model"
    return "the model's own" if report.routing == "model" else report.routing


def _warnings(report: RoutingReport) -> Iterator[str]:
    if report.requests < DIVERSE_REQUESTS:
        yield (
            f"only {report.requests} requests: experts look dead that are not; record {DIVERSE_REQUESTS} or "
            f"more (--set routing.requests={DIVERSE_REQUESTS})"
        )
    even = [load for load in report.loads if load.cv_excess is None]
    if even:
        floor = max(load.cv_noise or load.cv_noise_tokens for load in even)
        yield (
            f"{len(even)} of {len(report.loads)} layers cannot be told from even loads: chance alone shows a "
            f"CV of {floor:.3f} in this recording"
        )
    if report.alike_frac is not None and report.alike_frac >= ALIKE_FROM:
        yield (
            f"all layers route alike ({report.alike_frac:.0%} of a token's experts are the first layer's): "
            "copies of one router, as a dummy loader makes them, no trained model's layers"
        )
    worst = max(report.loads, key=lambda load: load.same_frac)
    if worst.same_frac >= COLLAPSED_FROM and report.experts_per_token < report.experts:
        yield (
            f"layer {worst.layer} has collapsed: {worst.same_frac:.0%} of its tokens go to the same "
            f"{report.experts_per_token} experts"
        )


def lines(runs: Sequence[RunResult]) -> list[str]:
    """For the cost table: whose routing it was, and the experts touched at the loads that were held."""
    told = []
    for run in runs:
        report = routing.report(run)
        name = run.manifest.model.name
        if report is None:
            facts, why = run.manifest.model.facts, run.manifest.routing_missing
            is_moe = facts is not None and facts.kind == "moe"  # of others nobody expects a routing
            told += [f"{name}: routing not recorded: {why}"] if why and is_moe else []
            continue
        name = f"{name} by its own router" if report.routing == "model" else f"{name} routed {report.routing}"
        if report.made_up is not None:
            told.append(f"{name}: {_whose(report)}")
        told += [f"{name}: {_at(report, batch)}" for batch in _batches(run, report)]
        told += [f"{name}: {line}" for line in _warnings(report)]
    return list(dict.fromkeys(told))


def _batches(run: RunResult, report: RoutingReport) -> list[int]:
    """The loads' numbers of running requests that the recording reaches, else some of the measured steps."""
    held = {each.point.concurrency for each in run.manifest.windows}
    reach = [batch for batch in held if batch and report.decode_coverage(batch)]
    measured = [step.tokens for step in report.decode]
    return sorted(reach)[:AT_MOST] or [batch for batch in BATCHES if batch in measured]


def _at(report: RoutingReport, batch: int) -> str:
    measured = report.decode_coverage(batch)
    assert measured is not None
    count, k = report.experts, report.experts_per_token
    span = f"{text}, " if (text := _interval(measured)) else ""
    several = ", several tokens of one in a step" if measured.n < batch else ""
    uniform = experts.distinct_uniform(count, k, float(batch))
    line = (
        f"batch {batch} touches {significant(measured.value)} of {count} experts a layer and step, measured "
        f"({span}{measured.n} requests{several}); uniform {significant(uniform)}"
    )
    if report.fitted_cv is None or report.output_cv_excess is None:
        return line
    skewed = experts.distinct_skewed(count, k, float(batch), report.fitted_cv)
    return f"{line}, skew CV {report.fitted_cv:.2f} {significant(skewed)}"


TEXTS: dict[str, Callable[[Sequence[Found]], str]] = {
    "csv": csv_text,
    "md": lambda runs: "\n".join(markdown(each) for each in runs),
    "json": as_json,
}
