"""The same tokens bought from an API at its list price: no hour, no idle time, no engine."""

from __future__ import annotations

from collections.abc import Sequence

from profiler import stats
from profiler.cost import kinds
from profiler.cost.listed import TokenPrice
from profiler.figures import Figures
from profiler.schema import Estimate


def prices(offer: TokenPrice) -> dict[str, float]:
    """USD per 10⁶ tokens of each kind; without a price of its own a cached token is an input token."""
    cached = offer.input if offer.cached is None else offer.cached
    return {kinds.INPUT: offer.input, kinds.CACHED: cached, kinds.OUTPUT: offer.output}


def rates(found: Figures) -> dict[str, Estimate] | None:
    """Tokens a second of each kind that occurs; None where the lengths of the prompts are not known."""
    inputs, outputs = (found.estimates.get(f"{kind}_tokens_per_s") for kind in ("input", "output"))
    if inputs is None or outputs is None or outputs.value <= 0:
        return None
    hits = kinds.hits(found)
    each = {kinds.INPUT: inputs if not hits else stats.scaled(inputs, 1 - hits)}
    if hits:
        each[kinds.CACHED] = stats.scaled(inputs, hits)
    return each | {kinds.OUTPUT: outputs}


def of_tokens(found: Figures, offer: TokenPrice, inputs: float, outputs: float) -> Estimate:
    """USD for so many tokens, of the input as large a share cached as in this load."""
    each, hits = prices(offer), kinds.hits(found)
    of_input = (1 - hits) * each[kinds.INPUT] + hits * each[kinds.CACHED]
    return Estimate((inputs * of_input + outputs * each[kinds.OUTPUT]) / 1e6)


def per_m_output(found: Figures, offer: TokenPrice) -> float | None:
    """USD for all tokens of this load over 10⁶ of its output tokens."""
    each = rates(found)
    if each is None:
        return None
    return sum(rate.value * prices(offer)[kind] for kind, rate in each.items()) / each[kinds.OUTPUT].value


def per_request(found: Figures, offer: TokenPrice) -> Estimate | None:
    means = [found.estimates.get(f"{kind}_tokens_mean") for kind in ("input", "output")]
    known = [each.value for each in means if each is not None]
    return of_tokens(found, offer, *known) if len(known) == len(means) else None


def blended(offer: TokenPrice, blend: Sequence[float]) -> float:
    """USD per 10⁶ tokens of the mix (shares of input, output and maybe cached input)."""
    each = prices(offer)
    names = (kinds.INPUT, kinds.OUTPUT, kinds.CACHED)
    return sum(share * each[name] for name, share in zip(names, blend, strict=False))
