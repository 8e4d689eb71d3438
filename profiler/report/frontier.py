"""The tables of ``profile frontier``: cost beside quality, and which models are equally good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from profiler import frontier
from profiler.charts.words import NA, significant
from profiler.figures import NOTE_SEPARATOR
from profiler.report.sections import Section, View
from profiler.report.table import Row, Shown, with_interval

MANY_PAIRS = 10
NO_INTERVAL = "without an interval it is taken as exact"


def sections(
    rows: Sequence[Row], pairs: Sequence[Row], terms: Sequence[str] = (), every: bool = False
) -> list[Section]:
    """The frontier with what is said of its ``terms``, and below it the pairs where there are two models with
    a score; of many pairs those that are not equivalent are only counted, unless ``every`` is wanted."""
    benchmark = rows[0]["benchmark"]
    found = [_section("frontier", f"Cost and quality: {benchmark}", rows, [*_lines(rows), *terms])]
    if pairs:
        title = f"Equally good within ±{pairs[0]['margin']:g} {benchmark}?"
        shown = [row for row in pairs if row["verdict"] != "not equivalent"]
        shown = list(pairs) if every or len(pairs) <= MANY_PAIRS else shown
        lines = [*_pair_lines(pairs[0]["margin"], shown), *_left_out(len(pairs) - len(shown))]
        found.append(_section("pairs", title, shown, lines))
    return found


def _section(name: str, title: str, rows: Sequence[Row], lines: Sequence[str]) -> Section:
    columns, shown = SHOWN[name]
    view = View(title, columns, lambda _: list(rows), shown, lambda *_: lines, ("scenario",))
    return Section(name, view, rows, lines)


def _text(row: Row, column: str) -> str:
    return NA if row[column] is None else str(row[column])


def _model(row: Row, column: str) -> str:
    """Without its maker, which a table has no room for."""
    return _text(row, column).rpartition("/")[2] if row[column] else NA


def _behind(row: Row, column: str) -> str:
    return "—" if row["on_frontier"] else _model(row, column)


def _usd(row: Row, column: str) -> str:
    return with_interval(row, column)


def _score(row: Row, column: str) -> str:
    """A score with its bounds as published; a difference with its sign."""
    value, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return NA
    if value == low == high == 0:
        return "same score"
    sign = "+" if column == "difference" else ""
    bounds = "" if low is None else f" [{_figure(low, sign)}, {_figure(high, sign)}]"
    return _figure(value, sign) + bounds


def _figure(value: float, sign: str) -> str:
    return f"{value:{sign}.3f}" if abs(value) < 1 else f"{value:{sign}.1f}"


def _chance(row: Row, column: str) -> str:
    """A probability no finer than its draws can tell."""
    p, error = row[column], row["p_error"]
    if p is None:
        return NA
    return f"{p:.1%} ±{1.96 * error:.1%}" if error else f"{p:.0%}"


def _share(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{row[column]:.1%}"


def _p(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{row[column]:.2g}" if row[column] >= 1e-4 else "<0.0001"


def _times(row: Row, column: str) -> str:
    value, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return NA
    bounds = "" if low is None or high is None else f" ({significant(low)}–{significant(high)})"
    return significant(value) + bounds


SHOWN: dict[str, tuple[tuple[str, ...], tuple[Shown, ...]]] = {
    "frontier": (
        frontier.COLUMNS,
        (
            Shown("scenario", "scenario", _text),
            Shown("model", "model", _model),
            Shown("basis", "cost_basis", _text, spare=True),
            Shown("USD/M out", "usd_per_m_output_tokens", _usd),
            Shown("score", "score", _score),
            Shown("P(on frontier)", "p_on_frontier", _chance),
            Shown("ruled out by", "ruled_out_by", _behind),
        ),
    ),
    "pairs": (
        frontier.PAIR_COLUMNS,
        (
            Shown("scenario", "scenario", _text, spare=True),
            Shown("better", "model", _model),
            Shown("than", "other", _model),
            Shown("difference", "difference", _score),
            Shown("P(win)", "p_win", _share),
            Shown("p of TOST", "p_equivalent", _p),
            Shown("equally good?", "verdict", _text),
            Shown("× the cost", "cost_ratio", _times),
        ),
    ),
}


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    full = [row for row in rows if row["p_on_frontier"] is not None]
    if full:
        yield (
            f"P(on frontier): share of {frontier.DRAWS:,} draws of scores and costs from their intervals in "
            "which no other model is as good and as cheap, ± the error of drawing; "
            "ruled out by: at the figures as they stand"
        )
        yield "USD/M out: the whole bill over the output tokens, the prompts' share inside"
    loose = [_model(row, "model") for row in full if row["score_low"] is None]
    if loose:
        yield f"no interval of the score of {', '.join(dict.fromkeys(loose))}: {NO_INTERVAL}"
    fixed = [
        _model(row, "model")
        for row in full
        if row["usd_per_m_output_tokens_low"] is None and row["cost_basis"] != "api"
    ]
    if fixed:
        yield f"no interval of the cost of {', '.join(dict.fromkeys(fixed))} (one run): {NO_INTERVAL}"
    dates = sorted({row["score_date"] for row in full if row["score_date"]})
    if len(dates) > 1:
        yield f"scores of {dates[0]} stand beside scores of {dates[-1]}: ratings drift"
    for row in rows:
        yield f"{_model(row, 'model')}: {row['at']}"
        for note in row["notes"].split(NOTE_SEPARATOR) if row["notes"] else ():
            yield f"{_model(row, 'model')}: {note}"
    for source, date in dict.fromkeys((row["score_source"], row["score_date"]) for row in full):
        yield f"score: {source}" + ("" if not date or date in source else f" ({date})")


def _pair_lines(margin: float, pairs: Sequence[Row]) -> Iterator[str]:
    yield (
        f"two one-sided tests at 5 % (TOST) against ±{margin:g}, scores taken as independent: "
        "equivalent needs the whole 90 % interval inside, not equivalent the whole of it outside"
    )
    for row in pairs:
        if row["verdict"] == "undecided":
            names = f"{_model(row, 'model')} and {_model(row, 'other')}"
            yield f"{names} undecided: {row['reason']}"


def _left_out(pairs: int) -> Iterator[str]:
    if pairs:
        yield f"{pairs} more pairs are not equivalent: --format json has them all"
