"""The cost table as terminal text and Markdown, of which CSV and JSON are the other forms: one list of rows.

CSV and JSON carry every column of ``comparison.COLUMNS`` unrounded; terminal and Markdown carry the few a
reader compares, with the unit in the header, ``n/a`` where nothing was measured and the 95 % interval as
± half its width.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from profiler import catalog
from profiler.charts.words import NA, one_line, significant, whole_numbers
from profiler.comparison import best, same_load
from profiler.figures import NOTE_SEPARATOR
from profiler.store import RunResult

if TYPE_CHECKING:
    from rich.table import Table

Row = dict[str, Any]
CLIENT_MARK = "⚠"
# An underline inside a word is one.
_MARKUP = re.compile(r"[\\`*\[\]<>|#~&]|(?<![^\W_])_|_(?![^\W_])")
FORMATS = ("table", "csv", "md", "json")


@dataclass(frozen=True)
class Shown:
    """One column a reader sees: its header, its source column, how a value is written, and whether it is
    left out where there is no room for all."""

    header: str
    column: str
    write: Callable[[Row, str], str]
    marks_best: bool = False
    spare: bool = False


def in_markdown(text: str) -> str:
    """Nor is anything in them markup."""
    return _MARKUP.sub(r"\\\g<0>", one_line(text))


def with_interval(row: Row, column: str, factor: float = 1.0) -> str:
    value, low, high = row[column], row[f"{column}_low"], row[f"{column}_high"]
    if value is None:
        return NA
    text = significant(value * factor)
    if low is None or high is None or not value:
        return text
    half = (high - low) / 2 / value * 100
    return f"{text} ±{half:.0f}%" if half >= 1 else f"{text} ±{half:.1f}%"


def plain(row: Row, column: str) -> str:
    return NA if row[column] is None else str(row[column])


def _load(row: Row, column: str) -> str:
    """A concurrency or rate, marked where the client was the limit."""
    mark = f" {CLIENT_MARK}" if row["client_bound"] else ""
    return NA if row[column] is None else _load_figure(row[column]) + mark


def _load_figure(value: float | None) -> str:
    """Slots as they are, rates to four digits; an imported run's file may not say."""
    if value is None:
        return NA
    return f"{value:.4g}" if isinstance(value, float) and value < 1e4 else f"{value:,.0f}"


def load_text(row: Row) -> str:
    """The load of a row in a sentence: ``64``, ``12.4/s``."""
    rate = row["load_requests_per_s"]
    return _load_figure(row["concurrency"]) if rate is None else f"{_load_figure(rate)}/s"


def _share(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{row[column] * 100:.4g}%"


def _rate(row: Row, column: str) -> str:
    return with_interval(row, column)


def _ms(row: Row, column: str) -> str:
    return NA if row[column] is None else significant(row[column] * 1e3)


def _gib(row: Row, column: str) -> str:
    return NA if row[column] is None else significant(row[column] / 2**30)


def number(row: Row, column: str) -> str:
    return significant(row[column])


def _requests(row: Row, column: str) -> str:
    failed = row["requests_failed"]
    ok = NA if row[column] is None else f"{row[column]:,}"
    return ok + (f" (+{failed:,} failed)" if failed else "")


def _times(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{row[column]:.2f}×"


def _run(row: Row, column: str) -> str:
    """The last word of a run's name; of several runs there is none."""
    return "–" if row[column] is None else PurePath(row[column]).name.rsplit("-", 1)[-1]


def _any(row: Row, column: str) -> str:
    """A column that no table has a form for."""
    value = row[column]
    if f"{column}_low" in row:
        return with_interval(row, column)
    return significant(value) if isinstance(value, float) else plain(row, column)


def _by_tool(row: Row, column: str) -> str:
    return row[column] or "–"


# Shown only where they tell rows apart.
TELLING = ("scenario", "engine", "weights", "settings", "routing", "host", "imported")
WHICH = (
    Shown("scenario", "scenario", plain),
    Shown("conc", "concurrency", _load),
    Shown("req/s due", "load_requests_per_s", _load),
    Shown("model", "model", plain),
    Shown("engine", "engine", plain),
    Shown("weights from", "weights", plain),
    Shown("settings", "settings", plain),
    Shown("routing", "routing", plain),
    Shown("host", "host", plain),
    Shown("imported from", "imported", _by_tool),
    Shown("run", "run", _run),
    Shown("runs", "runs", plain),
)
SHOWN = (
    *WHICH,
    Shown("tokens/s out", "output_tokens_per_s", _rate, marks_best=True),
    Shown("× first", "relative", _times),
    Shown("TTFT p50 ms", "ttft_s_p50", _ms, marks_best=True),
    Shown("TTFT p99", "ttft_s_p99", _ms, spare=True),
    Shown("ITL p50 ms", "itl_s_p50", _ms, marks_best=True),
    Shown("ITL p99", "itl_s_p99", _ms, spare=True),
    Shown("goodput req/s", "goodput_requests_per_s", _rate, marks_best=True),
    Shown("in SLO", "slo_met_frac", _share),
    Shown("weights GiB", "memory_weights_bytes", _gib, spare=True),
    Shown("peak GiB", "memory_peak_bytes", _gib, marks_best=True),
    Shown("W", "power_w_mean", number, marks_best=True),
    Shown("J/token", "energy_j_per_output_token", number, marks_best=True),
    Shown("USD/M out", "usd_per_m_output_tokens", number, marks_best=True),
    Shown("gCO2e/M out", "gco2e_per_m_output_tokens", number, marks_best=True),
    Shown("requests", "requests_ok", _requests),
)
WHERE_THERE_IS_ONE = (
    *("concurrency", "load_requests_per_s", "goodput_requests_per_s", "slo_met_frac"),
    *("energy_host_j_per_output_token", "energy_facility_j_per_output_token"),
    *("energy_marginal_j_per_output_token", "energy_integral_j", "energy_disagreement_frac"),
    *("energy_systematic_frac", "throttled_thermal_frac", "temperature_c_mean"),
    "gco2e_per_m_output_tokens",
)
ROOM_FOR_ALL = 110
MODEL_WIDTH = 18  # so long a name is never folded
MOST_PRICES = 6
UTILISED = "at 100 % utilisation, which no service has"


def with_columns(names: Iterable[str], shown: Sequence[Shown] = SHOWN) -> list[Shown]:
    """The columns a reader sees, and after those that say which row it is the ones that were asked for."""
    seen = {each.column for each in shown}
    asked = [Shown(name, name, _any) for name in dict.fromkeys(names) if name not in seen]
    return [*WHICH, *asked, *shown[len(WHICH) :]]


def _identity(row: Row) -> tuple[Any, ...]:
    return (*same_load(row), row["model"], *(row[column] for column in TELLING))


def with_relative(rows: Sequence[Row]) -> list[Row]:
    """Adds tokens/s over the first model's at the same load, so that a changing order shows."""
    first: dict[tuple[Any, ...], float | None] = {}
    for row in rows:
        first.setdefault(same_load(row), row["output_tokens_per_s"])
    return [row | {"relative": _ratio(row["output_tokens_per_s"], first[same_load(row)])} for row in rows]


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def chosen(rows: Sequence[Row], width: int, shown: Sequence[Shown]) -> list[Shown]:
    """The columns worth showing: no power where none was measured, no ratio of one model to itself."""
    left_out = set()
    if all(row["power_w_mean"] is None for row in rows):
        left_out |= {"power_w_mean", "energy_j_per_output_token"}
    left_out |= {name for name in WHERE_THERE_IS_ONE if all(row[name] is None for row in rows)}
    left_out |= {column for column in TELLING if len({row[column] for row in rows}) < 2}
    left_out |= {each.column for each in shown if _is_ratio(each) and not _has(rows, each.column)}
    if len({row.get("baseline") for row in rows}) == 1:
        left_out.add("baseline")
    if all(row["runs"] == 1 for row in rows):
        left_out.add("runs")
    if len({(row["model"], row["routing"]) for row in rows}) == len({row["model"] for row in rows}):
        left_out.add("routing")
    if len({_identity(row) for row in rows}) == len(rows):
        left_out.add("run")
    if len({(row["model"], row["engine"], row["run"]) for row in rows}) < 2 or _has(rows, "baseline"):
        left_out.add("relative")
    return [
        each for each in shown if each.column not in left_out and (width >= ROOM_FOR_ALL or not each.spare)
    ]


def _is_ratio(each: Shown) -> bool:
    return each.column.endswith("_ratio")


def _has(rows: Sequence[Row], column: str) -> bool:
    return any(row.get(column) is not None for row in rows)


def cells(
    rows: Sequence[Row], width: int = ROOM_FOR_ALL, shown: Sequence[Shown] = SHOWN
) -> tuple[list[str], list[list[str]], set[tuple[int, int]]]:
    """Headers, cell texts and the (row, column) places of the best values."""
    columns = chosen(rows, width, shown)
    texts = [[one_line(each.write(row, each.column)) for each in columns] for row in with_relative(rows)]
    return [each.header for each in columns], texts, marked(rows, columns)


def marked(rows: Sequence[Row], columns: Sequence[Shown]) -> set[tuple[int, int]]:
    """The (row, column) places of the best values."""
    return {
        (number, place)
        for place, each in enumerate(columns)
        if each.marks_best
        for number in best(rows, each.column).values()
    }


def rich_table(rows: Sequence[Row], width: int = ROOM_FOR_ALL, shown: Sequence[Shown] = SHOWN) -> Table:
    """The terminal's table: a section a load, best values bold with a star."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    headers, texts, stars = cells(rows, width, shown)
    written = [
        [cell + "★" * ((number, place) in stars) for place, cell in enumerate(text)]
        for number, text in enumerate(texts)
    ]
    columns = list(zip(headers, *written, strict=True))
    has_room = sum(max(map(len, (*head.split(), *cell))) + 2 for head, *cell in columns) <= width
    table = Table(box=box.SIMPLE_HEAD, padding=(0, int(has_room), 0, 0), pad_edge=False)
    for header, *column in columns:
        is_model = header == "model"
        table.add_column(
            header,
            justify="left" if is_model else "right",
            overflow="fold",
            no_wrap=is_model and max(map(len, column), default=0) <= MODEL_WIDTH,
            min_width=0 if is_model else whole_numbers(column),
        )
    loads = [same_load(row) for row in rows]
    changes = [here != after for here, after in zip(loads, [*loads[1:], None], strict=True)]
    together = sum(changes) == len(set(loads))
    for number, text in enumerate(written):
        styled = [
            f"[bold]{escape(cell)}[/bold]" if (number, place) in stars else escape(cell)
            for place, cell in enumerate(text)
        ]
        table.add_row(*styled, end_section=together and changes[number])
    return table


def markdown(rows: Sequence[Row], shown: Sequence[Shown] = SHOWN) -> str:
    headers, texts, stars = cells(rows, shown=shown)
    lines = ["| " + " | ".join(headers) + " |", "|" + "|".join("---" for _ in headers) + "|"]
    for number, text in enumerate(texts):
        written = map(in_markdown, text)
        styled = [f"**{c}★**" if (number, place) in stars else c for place, c in enumerate(written)]
        lines.append("| " + " | ".join(styled) + " |")
    return "\n".join(lines) + "\n"


def footnotes(rows: Sequence[Row], hosts: Sequence[str]) -> list[str]:
    """What a reader must know beside the numbers."""
    notes = [_interval_note(rows), *_status_notes(rows)]
    notes += [f"unlike hosts, do not rank across them: {line}" for line in hosts]
    return notes + _shared_notes(rows)


def _interval_note(rows: Sequence[Row]) -> str:
    marks = "n/a: not measured; ★ best at that load"
    if any(row["runs"] > 1 for row in rows):
        alone = ", of a single run its own" if any(row["runs"] == 1 for row in rows) else ""
        runs = _span(row["runs"] for row in rows)
        return f"mean of {runs} runs, ± half its 95 % interval over runs{alone}; {marks}"
    if {row["repeats"] for row in rows} == {1}:
        return f"one repeat: ± is precision within that run only; {marks}"
    return f"± half the 95 % interval over {_span(row['repeats'] for row in rows)} repeats; {marks}"


def _span(numbers: Iterable[int]) -> str:
    """``3``, or ``1–3``."""
    found = sorted(numbers)
    return "–".join(str(n) for n in sorted({found[0], found[-1]})) if found else "0"


def _status_notes(rows: Sequence[Row]) -> Iterator[str]:
    others = sorted({f"{row['model']} by {row['imported']}" for row in rows if row["imported"]})
    if others:
        yield f"imported, measured by another tool and in its way: {', '.join(others)}"
    drawn = sorted({row["model"] for row in rows if row["weights"] == "random"})
    if drawn:
        yield (
            f"random weights ({', '.join(drawn)}): memory and dense speed are true, "
            "a MoE's routing is not a trained router's"
        )
    yield from sorted({f"{row['model']}: {row['status']} run" for row in rows if row["status"] != "complete"})
    yield from (f"{row['model']} at {load_text(row)}: {row['failures']}" for row in rows if row["failures"])
    yield from (
        f"{CLIENT_MARK} client: the load generator's own delay is in {row['model']} at {load_text(row)}: "
        f"{row['client_bound']}"
        for row in rows
        if row["client_bound"]
    )


def _shared_notes(rows: Sequence[Row]) -> list[str]:
    """Each distinct note once, naming the models it holds for unless it holds for all."""
    holders: dict[str, list[str]] = {}
    for row in rows:
        for note in (row["notes"] or "").split(NOTE_SEPARATOR):
            if note and row["model"] not in holders.setdefault(note, []):
                holders[note].append(row["model"])
    everyone = len({row["model"] for row in rows})
    return [note if len(who) == everyone else f"{', '.join(who)}: {note}" for note, who in holders.items()]


def price_lines(rows: Sequence[Row], with_ages: bool = True) -> list[str]:
    """On which basis a row's cost stands, by whose price, how old that is, and how busy the engine is taken
    to be; why there is none is among the notes of the row.  What owning costs by the power that was
    measured at each load is one line."""
    words = partial(_price_words, with_age=with_ages)
    alike: dict[str, list[Row]] = {}
    for row in rows:
        if row["price_basis"] is not None:
            amount = None if row["cost_basis"] == "owned" else row["price_usd_per_hour"]
            alike.setdefault(f"{amount} {_SPAN.sub('', words(row))}", []).append(row)
    found = sorted(_price_line(held, words(held[0])) for held in alike.values())
    more = len(found) - MOST_PRICES
    further = f"{more:,} further prices: price_usd_per_hour and price_basis in --format csv"
    return found if more <= 0 else [*found[:MOST_PRICES], further]


_SPAN = re.compile(r", offers [\d.,]+–[\d.,]+")


def _price_line(alike: Sequence[Row], words: str) -> str:
    amounts = sorted({row["price_usd_per_hour"] for row in alike if row["price_usd_per_hour"] is not None})
    if len(amounts) > 1:
        return f"price: {significant(amounts[0])} to {significant(amounts[-1])} USD {_SPAN.sub('', words)}"
    return f"price: {significant(amounts[0])} USD {words}" if amounts else f"price: {words}"


def _price_words(row: Row, with_age: bool) -> str:
    used = row["utilization_frac"]
    idle = "" if used is None else f", at {used:.3g} utilisation" if used < 1 else f", {UTILISED}"
    basis = f"{row['price_basis']}{age(row['price_date']) if with_age else ''}"
    return f"{basis}; {row['cost_basis']}{idle}; the whole bill on output tokens"


def age(dates: str | None) -> str:
    """How long ago the price was seen, and the oldest offer that it was taken from."""
    today = datetime.date.today()
    ages = [catalog.age_days(date, today) for date in re.findall(r"\d{4}-\d\d-\d\d", dates or "")]
    days = sorted({age for age in ages if age is not None})
    return f" ({' to '.join(f'{age:,}' for age in days)} days ago)" if days else ""


def empty_runs(runs: Sequence[RunResult]) -> list[str]:
    """A line for each run that has no row to show."""
    return [
        f"{run.folder.name}: {run.manifest.status} before its first window was finished"
        for run in runs
        if not run.manifest.windows and run.manifest.imported is None
    ]
