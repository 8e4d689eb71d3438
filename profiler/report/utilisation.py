"""The utilisation table, below the cost table wherever the machine's ceilings are known: how near to them a
load came, what bounds it there, and which experts that rests on."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.charts.words import NA, significant
from profiler.report.table import WHICH, Row, Shown, number, with_interval


def _of_ceiling(row: Row, column: str) -> str:
    """``61% of bandwidth``."""
    return NA if row[column] is None else f"{significant(row[column] * 100)}% of {row['ceiling_bound_by']}"


def _percent(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{significant(row[column] * 100)}%"


def _coverage(row: Row, column: str) -> str:
    """Share of the experts, and who says so; nothing of a dense model."""
    if row[column] is None:
        return "–" if row["kind"] == "dense" else NA
    return f"{_percent(row, column)} ({row['coverage_source']})"


SHOWN = (
    *WHICH,
    Shown("tokens/s out", "output_tokens_per_s", with_interval),
    Shown("ceiling", "ceiling_output_tokens_per_s", number),
    Shown("reached", "ceiling_frac", _of_ceiling),
    Shown("MBU", "mbu_frac", _percent),
    Shown("S-MBU", "s_mbu_frac", _percent),
    Shown("MFU", "mfu_frac", _percent),
    Shown("S-MFU", "s_mfu_frac", _percent),
    Shown("experts touched", "coverage_frac", _coverage),
)


def known(rows: Sequence[Row]) -> list[Row]:
    """The rows that have a ceiling; why others have none is among their notes."""
    return [row for row in rows if row["ceiling_frac"] is not None]


def footnotes(rows: Sequence[Row]) -> list[str]:
    """What the figures mean, and whose word the ceilings are."""
    sources = dict.fromkeys(row["ceiling_source"] for row in rows)
    meaning = (
        "ceiling: tokens/s at this load if every operation ran at full bandwidth, at full matrix rate or, on "
        "a GPU, took what starting it takes"
    )
    sparse = "; S-MBU and S-MFU count the experts that tokens went to, MBU and MFU all"
    is_moe = any(row["kind"] == "moe" for row in rows)
    return [meaning + (sparse if is_moe else ""), *(f"ceilings {source}" for source in sources)]
