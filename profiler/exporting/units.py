"""The unit of a column, read off its name: every name ends in its unit, or in its unit and a statistic."""

from __future__ import annotations

import re

# First match counts; ``1`` is a pure number.
RULES = tuple(
    (re.compile(pattern), unit)
    for pattern, unit in (
        (r"_usd_per_m_|^usd_per_m_", "USD/10^6 tokens"),
        (r"^gco2e_per_m_", "g CO2e/10^6 tokens"),
        (r"usd_per_hour$", "USD/h"),
        (r"usd_per_request$", "USD"),
        (r"_j_per_\w*token$", "J/token"),
        (r"tokens_per_s$", "tokens/s"),
        (r"requests_per_s$", "requests/s"),
        (r"tokens_per_chunk_mean$|(input|output|cached)_tokens(_mean)?$", "tokens"),
        (r"_bytes(_mean|_max)?$", "bytes"),
        (r"_frac$|^pue$", "1"),
        (r"_w(_mean)?$", "W"),
        (r"_j$", "J"),
        (r"_c_mean$", "°C"),
        (r"_mhz_median$", "MHz"),
        (r"_cores$", "cores"),
        (r"_ns$", "ns"),
        (r"_s(_mean|_max|_p\d+)?$", "s"),
    )
)
COUNTS = frozenset(
    (
        *("concurrency", "gpus", "requests_ok", "requests_failed", "first_wave_requests", "repeats", "runs"),
        *("window", "repeat", "index", "share", "turn"),
    )
)


def of(column: str) -> str | None:
    """None for texts and flags; the ends of an interval have the unit of what they bound."""
    if column in COUNTS:
        return "1"
    name = re.sub("_(low|high|cheapest|dearest)$", "", column)
    return next((unit for pattern, unit in RULES if pattern.search(name)), None)
