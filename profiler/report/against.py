"""The ratios table, below the cost table of a comparison with a baseline."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.charts.words import NA, significant
from profiler.comparison import MEANING
from profiler.report.table import WHICH, Row, Shown, plain


def _times(row: Row, column: str) -> str:
    """``0.82× (0.79 – 0.85)``: spaces, so that a narrow column breaks no number."""
    value, low, high = (row.get(f"{column}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return NA
    interval = "" if low is None or high is None else f" ({significant(low)} – {significant(high)})"
    return f"{significant(value)}×{interval}"


SHOWN = (
    *WHICH,
    Shown("over", "baseline", plain),
    Shown("tokens/s out", "output_tokens_per_s_ratio", _times),
    Shown("TTFT p50", "ttft_s_p50_ratio", _times),
    Shown("ITL p50", "itl_s_p50_ratio", _times),
    Shown("goodput", "goodput_requests_per_s_ratio", _times),
    Shown("peak GiB", "memory_peak_bytes_ratio", _times),
    Shown("J/token", "energy_j_per_output_token_ratio", _times),
    Shown("USD/M out", "usd_per_m_output_tokens_ratio", _times),
)


def known(rows: Sequence[Row]) -> list[Row]:
    """The rows that have a baseline; why others have none is among the notes of the comparison."""
    return [row for row in rows if row.get("baseline") is not None]


def footnotes(rows: Sequence[Row]) -> list[str]:
    """What the ratios of ``known`` rows are, and where their intervals come from."""
    bases = {row["baseline"] for row in rows}
    over = bases.pop() if len(bases) == 1 else "the baseline"
    used = dict.fromkeys(row["ratio_interval"] for row in rows if row["ratio_interval"])
    how = " or ".join(MEANING[each] for each in used)
    return [f"× over {over} at the same load" + (f"; in brackets 95 % by {how}" if used else "")]
