"""What ``profile plan`` prints: fit, predictions, each model at its own best, limits, crossover maps; as
terminal text, Markdown, CSV (the predictions alone) and JSON (everything)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from profiler import prices
from profiler.charts.words import NA
from profiler.plan import Beside, Placement, Plan, Reach, Size
from profiler.plan.answers import price
from profiler.plan.crossover import Map
from profiler.plan.document import document, no_map
from profiler.plan.rows import COLUMNS, NOTE_SEPARATOR, Row
from profiler.predict import UNMEASURED_ROUTING
from profiler.report import crossover
from profiler.report.csv_text import as_csv
from profiler.report.table import load_text, with_interval

if TYPE_CHECKING:
    from rich.console import Console

GIB = 1 << 30
ROOM_FOR_ALL = 110
FORMATS = ("table", "csv", "md", "json")

Column = tuple[str, Callable[[Row], str], bool]  # header, how it is written, left out where there is no room


def _figure(name: str, factor: float = 1.0) -> Callable[[Row], str]:
    """Without the gap before ±: six of these share a line of 80; a rate that was given has none."""
    return lambda row: with_interval(row, name, factor).replace(" ", "").removesuffix("±0.0%")


def short(row: Row) -> str:
    """``Qwen3-30B-A3B``."""
    return str(row["model"]).rsplit("/", 1)[-1]


def load_cell(row: Row) -> str:
    marks = ("*" if _queues(row) else "") + ("~" if row["extrapolated"] else "")
    return load_text(row) + marks


def _queues(row: Row) -> bool:
    return row["running_requests"] is not None and row["running_requests"] < (row["concurrency"] or 0)


PREDICTED: tuple[Column, ...] = (
    ("conc", load_cell, False),
    ("model", short, False),
    ("TTFT ms", _figure("ttft_s", 1e3), False),
    ("TPOT ms", _figure("tpot_s", 1e3), False),
    ("tokens/s\nout", _figure("output_tokens_per_s"), False),
    ("W", _figure("power_w_mean"), True),
    ("J/token", _figure("energy_j_per_output_token"), False),
    ("USD/M\nout", _figure("usd_per_m_output_tokens"), False),
    ("bound\nby", lambda row: row["bound_by"] or NA, True),
    (
        "experts",
        lambda row: NA if row["distinct_experts"] is None else f"{row['distinct_experts']:.0f}",
        True,
    ),
    ("SLO", lambda row: {"undecided": "?"}.get(row["slo_met"], row["slo_met"] or NA), False),
)


# ------------------------------------------------------------------------------------------ tables


def fit_table(plan: Plan, width: int = ROOM_FOR_ALL) -> tuple[list[str], list[list[str]]]:
    """Headers and cells: a row a model and GPU."""
    counts = (1, 2, 4, 8) if width >= ROOM_FOR_ALL else (1, 2)
    headers = ["model", "GPU", "weight\nGiB", "KiB a\ntoken", "runs\non", "holds\nload"]
    headers += [f"KV on\n{count}×" for count in counts]
    moe = any(size.candidate.feed for size in plan.sizes)
    texts = [_fit_cells(size, counts) + ([_idle(size)] if moe else []) for size in plan.sizes]
    return headers + (["idle"] if moe else []), texts


def _fit_cells(size: Size, counts: Sequence[int]) -> list[str]:
    each = {placement.gpus: placement for placement in size.by_count}
    one = size.least
    tokens = one.question.tokens_each
    return [
        size.candidate.short,
        size.gpu.gpu,
        f"{one.weights_bytes / GIB:,.1f}",
        f"{one.request_bytes(tokens) / tokens / 1024:,.0f}",
        _split(size.runs),
        _split(size.holds),
        *(_room(each.get(count)) for count in counts),
    ]


def _split(placement: Placement | None) -> str:
    """How many GPUs, and the ways to split over them: ``2× TP/EP``."""
    if placement is None:
        return "none"
    candidate, count = placement.candidate, placement.gpus
    ways = ["TP"] if count > 1 else []
    ways += ["EP"] if count > 1 and candidate.feed and count in candidate.sizes.expert else []
    return f"{count}× {'/'.join(ways)}".rstrip()


def _room(placement: Placement | None) -> str:
    if placement is None:
        return "–"
    return _short(placement.kv_tokens) if placement.fits else "no"


def _short(count: float) -> str:
    return (
        f"{count / 1e6:.3g}M" if count >= 1e6 else f"{count / 1e3:.3g}k" if count >= 1e4 else f"{count:,.0f}"
    )


def _idle(size: Size) -> str:
    placement = size.runs
    if placement is None or not size.candidate.feed:
        return NA if size.candidate.feed else "–"
    return f"{placement.residency_frac * 100:.0f}%"


def predicted(rows: Sequence[Row], width: int = ROOM_FOR_ALL) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of rows on one kind and number of GPUs, by load and then model."""
    empty = {name for name in ("SLO",) if all(row["slo_met"] is None for row in rows)}
    empty |= {"experts"} if all(row["distinct_experts"] is None for row in rows) else set()
    chosen = [each for each in PREDICTED if each[0] not in empty and (width >= ROOM_FOR_ALL or not each[2])]
    loads = list(dict.fromkeys(_load_key(row) for row in rows))
    ordered = sorted(rows, key=lambda row: loads.index(_load_key(row)))
    return [each[0] for each in chosen], [[write(row) for _, write, _ in chosen] for row in ordered]


def _load_key(row: Row) -> tuple[Any, Any]:
    return row["concurrency"], row["load_requests_per_s"]


def groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """``2 × H100 SXM5 80GB`` and its rows that fit."""
    for (count, gpu), found in groupby(rows, key=lambda row: (row["gpus"], row["gpu"])):
        kept = [row for row in found if row["fits"]]
        if kept:
            yield f"{count} × {gpu}", kept


# ------------------------------------------------------------------------------------------- lines


def fit_notes(plan: Plan) -> list[str]:
    """What does not fit, the smallest hardware that holds the load, and what the columns mean."""
    question = plan.question
    load = f"{question.most_requests} requests of {question.tokens_each} tokens at once"
    found = [
        f"{short(row)} does not fit on {row['gpus']} × {row['gpu']}" for row in plan.rows if not row["fits"]
    ]
    for candidate in question.candidates:
        sets = plan.sets[candidate.name]
        found.append(f"{candidate.short} holds the load on {', '.join(sets[:3]) or 'no set of the catalog'}")
    found.append(f"load: {load}; KV: tokens of cache left beside the weights")
    if any(candidate.feed for candidate in question.candidates):
        found.append(
            "idle: share of the usable memory it runs on that holds experts a given token does not use"
        )
    return list(dict.fromkeys(found))


def legend(plan: Plan, width: int = ROOM_FOR_ALL) -> list[str]:
    rows = [row for row in plan.rows if row["fits"]]
    calibrated = any(row["calibrated"] for row in rows)
    basis = "calibrated on the runs given" if calibrated else "not calibrated on runs of yours"
    found = [f"predictions, not measurements: ± half the 90 % interval, {basis}", _assumed(plan)]
    if any(_queues(row) for row in rows):
        found.append("* more than the cache holds: the engine runs what fits, the others wait in TTFT")
    if any(row["extrapolated"] for row in rows):
        reasons = dict.fromkeys(
            each
            for row in rows
            for each in (row["notes"] or "").split(NOTE_SEPARATOR)
            if row["extrapolated"] and each and each != UNMEASURED_ROUTING and not each.endswith("wait")
        )
        found.append(f"~ the interval is wider: {'; '.join(reasons)}")
    found += [f"{short(row)} at {load_text(row)}: {row['notes']}" for row in rows if row["ttft_s"] is None]
    if any(row["distinct_experts"] is not None for row in rows):
        column = "experts: distinct ones a layer reads in a decode step; " if width >= ROOM_FOR_ALL else ""
        found.append(column + _routing(plan))
    if any(row["slo_met"] == "undecided" for row in rows):
        found.append("SLO ?: undecided, the interval (or the room for a tail) is on both sides of a limit")
    return found


def _assumed(plan: Plan) -> str:
    """What the user did not have to say."""
    question = plan.question
    args, lengths = question.args, question.lengths
    held = ", ".join(f"{each.short} {each.bytes_per_weight:.3g}" for each in question.candidates)
    graphs = "without CUDA graphs" if args.get("enforce_eager") else "with CUDA graphs"
    return (
        f"assumed: scenario {question.scenario.name}, on average {lengths.mean_input} tokens in and "
        f"{lengths.mean_output} out; an engine like vLLM {graphs}, up to {question.step_tokens:,} tokens a "
        f"step; bytes a weight: {held}"
    )


def _routing(plan: Plan) -> str:
    cv = plan.question.cv
    if cv is None:
        return f"{UNMEASURED_ROUTING}, and is in the ±"
    return "routing is uniform, as asked" if cv == 0 else f"loads of experts vary by a CV of {cv:g}, as asked"


def price_notes(plan: Plan) -> list[str]:
    found = []
    for row in plan.rows:
        usd, low, high = (row[f"price_{end}usd_per_hour"] for end in ("", "low_", "high_"))
        quoted = prices.quote(row["gpu"], given=plan.question.price)
        if isinstance(quoted, prices.Missing):
            found.append(f"{row['gpu']}: no price is known: {quoted.reason}")
            continue
        basis = re.sub(r" \(.*\)|catalog: .*?, ", "", row["price_basis"])  # vendors: in --format json
        line = f"{row['gpu']}: {usd:.2f} USD {basis}"
        if low is not None and low != high:
            line += f"; offers from {low:.2f} to {high:.2f} make USD × {low / usd:.2f} to × {high / usd:.2f}"
        found.append("; ".join([line, *(note for note in (quoted.doubt, prices.age_note(quoted)) if note)]))
    return list(dict.fromkeys(found))


def best_lines(plan: Plan) -> list[str]:
    found = []
    for row in plan.best:
        usd = row["usd_per_m_output_tokens"]
        cost = f"{with_interval(row, 'usd_per_m_output_tokens')} USD/M out, " if usd is not None else ""
        where = f"{short(row)} on {row['gpus']} × {row['gpu']}, {row['concurrency']} at once"
        gap = f", TPOT {with_interval(row, 'tpot_s', 1e3)} ms" if row["tpot_s"] is not None else ""
        rate = with_interval(row, "output_tokens_per_s", 1 / row["gpus"])
        found.append(f"{where}: {cost}{rate} tokens/s a GPU{gap}")
    return found


def worth_lines(plan: Plan) -> list[str]:
    """At what price a GPU makes a token for as much as the first one that was asked for."""
    found = []
    for each in plan.worth:
        paid = price(plan.question, each.other)
        at = f"; {each.times * paid.usd_per_hour:.2f} USD at its {paid.usd_per_hour:.2f}" if paid else ""
        found.append(
            f"{each.candidate.short}: a token costs the same where a {each.gpu.gpu} is rented for "
            f"{each.times:.2g}× the price of a {each.other.gpu} ({each.low:.2g}× to {each.high:.2g}×){at}"
        )
    return found


def reach_lines(plan: Plan) -> list[str]:
    return [_reach_line(reach) for reach in plan.reaches]


def _reach_line(reach: Reach) -> str:
    placement = reach.placement
    who = f"{placement.candidate.short} on {placement.gpus} × {placement.gpu.gpu}"
    if not reach.possibly:
        by = ", ".join(f"{name} by {times:.2g}×" for name, times in reach.shortfalls.items())
        return f"{who}: out of reach, even one request alone misses {by or 'a limit'}"
    surely = f"surely up to {reach.surely}" if reach.surely else "surely at no load"
    return f"{who}: kept {surely}, perhaps up to {reach.possibly} at once"


def duel_lines(plan: Plan, drawn: Map) -> list[str]:
    """Below a map, at the scenario's prompt length: its own metric in words, the others in letters."""
    prompt = plan.question.lengths.mean_input
    rest = [each for each in plan.lines if (each.moe, each.dense) == (drawn.moe, drawn.dense)]
    return [
        f"prompts of {prompt}: {crossover.words(drawn, drawn.contexts.index(prompt))}",
        *(f"{each.metric}: {crossover.brief(each)}" for each in rest),
    ]


def map_legend(plan: Plan) -> list[str]:
    if not plan.maps:
        return []
    held = f"answers of {plan.question.lengths.mean_output} tokens; equal GPUs, so that no price decides"
    return [*crossover.LEGEND, f"the same in all cells: {held}"]


def beside_lines(plan: Plan) -> Iterator[tuple[str, list[str]]]:
    """A heading a pair, and a line a GPU that was not asked for."""
    prompt = plan.question.lengths.mean_input
    what = f"{crossover.WHAT[plan.question.metric]}, prompts of {prompt}"
    for (moe, dense), found in groupby(plan.beside, key=lambda each: (each.moe.short, each.dense.short)):
        yield f"{moe} (M) against {dense} (D) elsewhere: {what}", [_beside_line(each) for each in found]


def _beside_line(each: Beside) -> str:
    if each.found is None:
        return f"{each.gpu.gpu}: no equal number up to 64 holds both"
    held = crossover.held_up_to(each.found)
    return f"{each.found.moe.gpus} × {each.gpu.gpu}: {crossover.brief(each.found)}; both hold up to {held}"


# -------------------------------------------------------------------------------------------- texts


def show(plan: Plan, console: Console) -> None:
    """The terminal's: 80 columns do, 110 show all."""
    from rich import box
    from rich.table import Table

    def table(title: str, headers: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
        drawn = Table(
            title=title,
            title_style="bold",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            title_justify="left",
        )
        for header in headers:
            left = header in ("model", "GPU", "bound\nby")
            drawn.add_column(
                header,
                justify="left" if left else "right",
                no_wrap=header in ("model", "GPU"),
                overflow="fold",
            )
        for cells in texts:
            drawn.add_row(*cells)
        console.print(drawn)

    def say(texts: Sequence[str]) -> None:
        for text in texts:
            console.print(f"· {text}", markup=False)

    table("Fit", *fit_table(plan, console.width))
    say(fit_notes(plan))
    for where, rows in groups(plan.rows):
        table(f"Predicted on {where}", *predicted(rows, console.width))
    say([*legend(plan, console.width), *price_notes(plan)])
    _show_section(
        console,
        "Each at its own best: the load and number of GPUs with the cheapest token",
        [*best_lines(plan), *worth_lines(plan)],
    )
    _show_section(console, "Limits", reach_lines(plan))
    for each in plan.maps:
        console.print(f"\n{crossover.heading(each)}", style="bold", markup=False)
        for line in crossover.lines(each):
            console.print(crossover.styled(line))
        say(duel_lines(plan, each))
    say(map_legend(plan))
    for title, texts in beside_lines(plan):
        _show_section(console, title, texts)
    say([*filter(None, [no_map(plan)]), *plan.notes])


def _show_section(console: Console, title: str, texts: Sequence[str]) -> None:
    if texts:
        console.print(f"\n{title}", style="bold", markup=False)
        for text in texts:
            console.print(f"· {text}", markup=False)


def markdown(plan: Plan) -> str:
    parts = [_md_table("Fit", *fit_table(plan)), _md_list(None, fit_notes(plan))]
    parts += [_md_table(f"Predicted on {where}", *predicted(rows)) for where, rows in groups(plan.rows)]
    parts.append(_md_list(None, [*legend(plan), *price_notes(plan)]))
    parts.append(_md_list("Each at its own best", [*best_lines(plan), *worth_lines(plan)]))
    parts.append(_md_list("Limits", reach_lines(plan)))
    for each in plan.maps:
        parts.append(f"### {crossover.heading(each)}\n\n```\n" + "\n".join(crossover.lines(each)) + "\n```\n")
        parts.append(_md_list(None, duel_lines(plan, each)))
    parts.append(_md_list(None, map_legend(plan)))
    parts += [_md_list(title, texts) for title, texts in beside_lines(plan)]
    parts.append(_md_list(None, [*filter(None, [no_map(plan)]), *plan.notes]))
    return "\n".join(part for part in parts if part)


def _md_table(title: str, headers: Sequence[str], texts: Sequence[Sequence[str]]) -> str:
    rows = [[header.replace("\n", " ") for header in headers], ["---"] * len(headers), *texts]
    return f"### {title}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _md_list(title: str | None, texts: Sequence[str]) -> str:
    head = f"### {title}\n\n" if title and texts else ""
    return head + "".join(f"* {text}\n" for text in texts)


TEXTS: dict[str, Callable[[Plan], str]] = {
    "csv": lambda plan: as_csv(plan.rows, COLUMNS),
    "md": markdown,
    "json": lambda plan: json.dumps(document(plan), allow_nan=False) + "\n",
}
