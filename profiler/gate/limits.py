"""``--max-regression`` and ``--metric`` → Limits."""

from __future__ import annotations

from collections.abc import Sequence

from profiler import utilisation
from profiler.comparison.columns import ESTIMATES
from profiler.errors import InputError, nearest
from profiler.gate.nouns import FAILURES, Limits

DEFAULT = "5%"
DEFAULT_METRICS = (
    "output_tokens_per_s",
    "ttft_s_p50",
    "itl_s_p50",
    "energy_j_per_output_token",
    "memory_peak_bytes",
    "usd_per_m_output_tokens",
)
FAILURES_DEFAULT = 0.01  # as ``profile run --max-failed``
# Neither more nor less of them is better: they tell the load, how it was counted, or how busy something was.
WITHOUT_DIRECTION = {
    *("input_tokens_mean", "output_tokens_mean", "offered_requests_per_s", "tokens_per_chunk_mean"),
    *("prefix_cache_hit_frac", "engine_busy_frac", *utilisation.ESTIMATES),
}


def read(max_regression: str = DEFAULT, metrics: Sequence[str] = ()) -> Limits:
    """``metrics``: names, each with a limit of its own after ``=`` where it has one.  Raises InputError."""
    general = share(max_regression, "--max-regression")
    if not metrics:
        return Limits(of=dict.fromkeys(DEFAULT_METRICS, general) | {FAILURES: FAILURES_DEFAULT})
    found: dict[str, float] = {}
    for text in metrics:
        name, equals, limit = text.partition("=")
        _check(name)
        usual = FAILURES_DEFAULT if name == FAILURES else general
        found[name] = share(limit, f"--metric {name}") if equals else usual
    return Limits(of=found | {FAILURES: found.get(FAILURES, FAILURES_DEFAULT)}, named=True)


def share(text: str, where: str) -> float:
    """``5%`` or ``0.05``; raises InputError outside [0, 1)."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise InputError(f"{where} {text}: expected a share from 0% to below 100%, such as 5% or 0.05")
    return value


def _check(name: str) -> None:
    judged = [FAILURES, *(each for each in ESTIMATES if each not in WITHOUT_DIRECTION)]
    if name in WITHOUT_DIRECTION:
        raise InputError(f"--metric {name}: neither more nor less of it is a regression")
    if name not in judged:
        raise InputError(f"--metric {name}: no such metric{nearest(name, judged)}")
