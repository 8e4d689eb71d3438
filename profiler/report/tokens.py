"""The table of ``profile tokens``: what each language takes with each tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from profiler import tokens
from profiler.charts.words import NA
from profiler.figures import NOTE_SEPARATOR
from profiler.report.sections import Section, View
from profiler.report.table import Row, Shown, number


def section(rows: Sequence[Row]) -> Section:
    """``rows`` of :func:`profiler.tokens.rows`, which are not empty."""
    lines = list(dict.fromkeys(_lines(rows)))
    view = View(
        title="Tokens by language",
        columns=tokens.COLUMNS,
        find=lambda _: list(rows),
        shown=_shown(rows[0]["baseline"]),
        lines=lambda *_: lines,
        groups=("tokenizer",),
    )
    return Section("tokens", view, rows, lines)


def _shown(baseline: str) -> tuple[Shown, ...]:
    return (
        Shown("tokenizer", "tokenizer", _text),
        Shown("language", "language", _text),
        Shown("words", "words", _count, spare=True),
        Shown("characters", "characters", _count, spare=True),
        Shown("tokens", "tokens", _count),
        Shown("tokens/\nword", "tokens_per_word", number),
        Shown("tokens/\ncharacter", "tokens_per_character", number),
        Shown("tokens/\nbyte", "tokens_per_byte", number),
        Shown(f"× tokens\nof {baseline}", "premium", _premium),
        Shown("over\nlines", "premium_lines", _count, spare=True),
        Shown("USD/1k\nwords,\nread", "usd_per_1k_words_read", number, spare=True),
        Shown("USD/1k\nwords,\nwritten", "usd_per_1k_words_written", number, spare=True),
        Shown(f"USD/1k\nwords of\n{baseline}, read", "usd_per_1k_baseline_words_read", number),
        Shown(f"USD/1k\nwords of\n{baseline}, written", "usd_per_1k_baseline_words_written", number),
    )


def _text(row: Row, column: str) -> str:
    return str(row[column])


def _count(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{row[column]:,}"


def _premium(row: Row, column: str) -> str:
    if row[column] is None:
        return "1" if row["language"] == row["baseline"] else NA
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return f"{row[column]:.2f}" + (f" ({low:.2f}–{high:.2f})" if low is not None else "")


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    baseline = rows[0]["baseline"]
    compared = [row for row in rows if row["premium_low"] is not None]
    if compared:
        counts = sorted({row["premium_lines"] for row in compared})
        told = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        yield (
            f"× tokens of {baseline}: over {told} parallel lines, with the 95 % interval of other lines of "
            "this kind of text; other kinds of text may differ by more"
        )
    yield (
        "tokens: line by line, without tokens that open or end a text and without a chat template; "
        "characters: as a reader sees them (grapheme clusters), bytes: UTF-8"
    )
    for row in rows:
        yield from (row["notes"] or "").split(NOTE_SEPARATOR) if row["notes"] else ()
    if rows[0]["price_source"]:
        yield f"price: {rows[0]['price_source']}; read: as input, written: as output"
        yield f"words of {baseline}: what 1,000 words of it say costs this in each language"
        if len({row["tokenizer"] for row in rows}) > 1:
            yield "one price for every tokenizer: what a model would cost whose tokens are priced alike"
    else:
        yield "no price: cost is n/a; give --usd-per-m-input and --usd-per-m-output, --run RUN or --api MODEL"
