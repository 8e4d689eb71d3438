"""``profile compare --show split`` as terminal text, CSV, Markdown and JSON: what tokens of a kind take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from profiler import comparison, split
from profiler.charts.words import NA, significant
from profiler.figures import NOTE_SEPARATOR
from profiler.report.csv_text import as_csv
from profiler.report.table import Row, load_text, with_interval
from profiler.split.ways import POINTS

if TYPE_CHECKING:
    from rich.table import Table

PER_M = 1e6
HEADERS = (
    *("scenario", "load", "model", "per million tokens", "way", "input", "output"),
    *("residual", "slices", "VIF", "in + out + idle + rest"),
)
TEXT_COLUMNS = 5
# Joules of a million tokens are many; a thousandth of them is read more easily.
QUANTITIES = {"energy": ("kJ", PER_M / 1e3), "engine time": ("GPU-s", PER_M), "cost": ("USD", PER_M)}
WAYS = {split.RATIO: "regression ÷ points"}


def cells(rows: Sequence[Row]) -> list[list[str]]:
    return [_cells(row) for row in rows]


def _cells(row: Row) -> list[str]:
    unit, factor = QUANTITIES[row["quantity"]]
    if unit == "GPU-s" and not row["gpus"]:
        unit = "s"
    return [
        row["scenario"],
        load_text(row),
        row["model"],
        f"{row['quantity']}, {unit}",
        WAYS.get(row["way"], row["way"]),
        *(_figure(row, f"per_{kind}_token", factor) for kind in split.KINDS),
        _percent(row["residual_frac"]),
        NA if row["slices"] is None else str(row["slices"]),
        significant(row["vif"], 2),
        _shares(row),
    ]


def _figure(row: Row, column: str, factor: float) -> str:
    """A figure with its interval; of a ratio both ends, which tell whether 1 is between them."""
    if row["way"] != split.RATIO or row[f"{column}_low"] is None:
        return with_interval(row, column, factor if row["way"] != split.RATIO else 1.0)
    value, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    return f"{value:.2f} ({low:.2f}–{high:.2f})"


def _percent(share: float | None) -> str:
    return NA if share is None else f"{share * 100:.1f}%"


def _shares(row: Row) -> str:
    """What the parts come to: all of what the windows took, to within the rest."""
    if row["remainder_frac"] is None:
        return NA
    *parts, rest = (row[f"{part}_frac"] * 100 for part in split.PARTS)
    return " + ".join(f"{each:.0f}" for each in parts) + f" {'+' if rest >= 0 else '−'} {abs(rest):.1f}%"


def rich_table(rows: Sequence[Row]) -> Table:
    """A section a load and quantity."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, header in enumerate(HEADERS):
        table.add_column(header, justify="left" if place < TEXT_COLUMNS else "right", overflow="fold")
    for number, row in enumerate(rows):
        last = number + 1 == len(rows) or _section(row) != _section(rows[number + 1])
        table.add_row(*(escape(cell) for cell in _cells(row)), end_section=last)
    return table


def _section(row: Row) -> tuple[Any, ...]:
    return row["model"], row["runs"], load_text(row), row["quantity"]


def footnotes(rows: Sequence[Row]) -> Iterator[str]:
    """What the figures mean, what is missing and why, what they rest on."""
    yield (
        "output: tokens after an answer's first, which prefill gives; ±: half the 95 % interval, of separate "
        "points over repeats, of a regression within these windows; rest: what the parts leave of all"
    )
    if not any(row["quantity"] == "cost" for row in rows):
        yield "no price: cost is n/a; give one with --price USD_PER_HOUR"
    yield from dict.fromkeys(row["price_basis"] for row in rows if row["price_basis"])
    for told in (_standing, _context, _basis, _missing, _apart):
        yield from dict.fromkeys(line for row in rows if (line := told(row)))
    yield from dict.fromkeys(
        note for row in rows for note in (row["notes"] or "").split(NOTE_SEPARATOR) if note
    )


def _at(row: Row) -> str:
    return f"{row['model']}, {row['scenario']} at {load_text(row)}"


def _standing(row: Row) -> str | None:
    """What the machine draws for being there is either a part of its own or in the tokens' figures."""
    if row["standing"] is None:
        return None
    if row["standing_w"] is None:
        return f"{_at(row)}: energy of standing by is in the tokens' figures (no idle baseline)"
    return f"{_at(row)}: energy above standing by, {row['standing_w']:.4g} W ({row['standing']})"


def _context(row: Row) -> str | None:
    """A figure for output tokens holds at the context they had."""
    more = row["per_output_token_and_1000_context"]
    if more is None or row["quantity"] == "cost":
        return None
    return (
        f"{_at(row)}: {row['quantity']} of an output token is at the mean context of these windows; "
        f"1000 more tokens before it take {significant(more, 2)} {row['unit']} more"
    )


def _basis(row: Row) -> str | None:
    if row["way"] != POINTS or row["per_input_token"] is None:
        return None
    return f"{_at(row)}: separate points: {row['basis']}"


def _missing(row: Row) -> str | None:
    if row["undecided"] is None or row["quantity"] == "cost":
        return None
    return f"{_at(row)}: {row['quantity']} by {row['way']} undecided: {row['undecided']}"


def _apart(row: Row) -> str | None:
    """Kinds for which the two ways contradict each other."""
    if row["way"] != split.RATIO or row["quantity"] == "cost":
        return None
    off = [
        f"{kind} tokens by {abs(row[f'per_{kind}_token'] - 1):.0%}"
        for kind in split.KINDS
        if (low := row[f"per_{kind}_token_low"]) is not None
        and not low <= 1 <= (row[f"per_{kind}_token_high"] or 1)
    ]
    if not off:
        return None
    return (
        f"{_at(row)}: the two ways differ in {row['quantity']} of {' and '.join(off)}: more than chance; "
        "steps that hold both kinds do not take what they take apart"
    )


def _markdown(rows: Sequence[Row]) -> str:
    lines = [HEADERS, ["---"] * len(HEADERS), *cells(rows)]
    table = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    return table + "\n" + "".join(f"* {note}\n" for note in footnotes(rows))


TEXTS: dict[str, Callable[[Sequence[Row]], str]] = {
    "csv": lambda rows: as_csv(rows, split.COLUMNS),
    "md": _markdown,
    "json": comparison.as_json,
}
