"""Figures × Price → USD per million tokens.

Three figures, three meanings (docs/results.md):

``usd_per_m_output_tokens``  the whole bill over the output tokens; prompt work is inside.  Always known
                             when there is a price.
``usd_per_m_input_tokens``   the price of the GPU time that prompt tokens take, from a point where prefill
                             was measured apart (:mod:`profiler.prefill`).
``usd_per_m_blended_tokens`` 3 : 1 input to output, with what remains of the bill on the output tokens:
                             (3·in + out)/4, so that the two kinds times their counts are the bill.

Charging the whole bill to each kind and adding them counts it twice.  Where prefill was never measured
apart, the last two are None.
"""

from __future__ import annotations

from profiler import prefill, stats
from profiler.prefill import Held
from profiler.prices import usd_per_s
from profiler.schema import Estimate, Price

BLEND_INPUT, BLEND_OUTPUT = 3, 1
ESTIMATES = ("usd_per_m_output_tokens", "usd_per_m_input_tokens", "usd_per_m_blended_tokens")


def costs(
    point: Held, price: Price | None, gpus: int, prefill_s: Estimate | None
) -> dict[str, Estimate | None]:
    """The three cost columns of one load point (USD per 10⁶ tokens).

    ``gpus`` multiplies a per-GPU price; a machine price stands as it is.
    """
    rate = point.estimates.get("output_tokens_per_s")
    per_s = usd_per_s(price, gpus)
    if per_s is None or rate is None or rate.value <= 0:
        return dict.fromkeys(ESTIMATES)
    return {
        "usd_per_m_output_tokens": stats.inverted(rate, per_s * 1e6),
        **_split(point, rate, prefill_s, per_s * 1e6),
    }


def _split(
    point: Held, output_rate: Estimate, prefill_s: Estimate | None, usd_per_m_s: float
) -> dict[str, Estimate | None]:
    """Input and blended price; None when prefill is unknown or would exceed the whole bill."""
    nothing: dict[str, Estimate | None] = dict.fromkeys(
        ("usd_per_m_input_tokens", "usd_per_m_blended_tokens")
    )
    input_rate = point.estimates.get("input_tokens_per_s")
    if prefill_s is None or input_rate is None:
        return nothing
    left = 1 - input_rate.value * prefill_s.value
    if left < 0 or (left == 0 and not prefill.answers_of_one(point)):
        return nothing
    output_s = left / output_rate.value
    blended = (BLEND_INPUT * prefill_s.value + BLEND_OUTPUT * output_s) / (BLEND_INPUT + BLEND_OUTPUT)
    return {
        "usd_per_m_input_tokens": stats.scaled(prefill_s, usd_per_m_s),
        "usd_per_m_blended_tokens": Estimate(blended * usd_per_m_s, n=output_rate.n, over=output_rate.over),
    }
