"""Which rows of a sheet are not believed, and why: ratios that real prices do not have.

A doubtful row is kept and shown with its reason; it counts in no median.  The limits were set on the shipped
rows (2023 to 2026), far beyond the widest spread of real prices seen there:

GPU-hours (:func:`doubts`)
    more than 5 × above or below the median of at least 2 other vendors of the same GPU on the same kind of
    terms (the widest real one: Azure's H100 at 12.29 USD, 3.1 × the median);
    spot or reserved dearer than the same vendor's newest on-demand price for the GPU;
    an extreme of a market, which is nobody's offer.

Tokens (:func:`api_doubts`)
    output cheaper than input, or more than 12.5 × dearer (the steepest real one: Qwen3-235B-Thinking, 12 ×);
    cached input dearer than input;
    dated before the model was published;
    more than 5 × off in input or output, or more than 2.5 × off in their ratio, from what the model's maker
    asks, else from the median of at least 2 other providers; the row farthest off goes first and is no
    yardstick for the others.  This finds the aggregators' slips: Groq's Llama-3.3-70B at 7.9 for output,
    Fireworks' Qwen3-235B at 0.1 / 0.1 where others ask 0.2 / 0.6.

Hardware (:func:`capex_doubt`)
    a price per GPU that renting would reach in under 1,000 hours (6 weeks) or not in 50,000 (6 years); the
    shipped rows take 2,200 to 9,400.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from profiler.catalog.entries import ApiOffer, Capex, PriceOffer
from profiler.catalog.rows import before, day

SPREAD = 5.0
SHAPE = 2.5
STEEPEST = 12.5
LEAST_PEERS = 2
LEAST_HOURS, MOST_HOURS = 1_000, 50_000

DISCOUNTED = ("spot", "reservation", "rental_3yr", "reserved")


def doubts(offers: Sequence[PriceOffer]) -> list[str | None]:
    """Why each GPU offer is not believed, None where nothing speaks against it."""
    groups: dict[tuple[str, str, str], list[PriceOffer]] = {}
    for offer in offers:
        groups.setdefault(_terms(offer), []).append(offer)
    asked = {
        (offer.gpu, offer.currency, offer.vendor): offer.price_per_gpu_hour
        for offer in sorted(offers, key=_newest)
        if offer.kind == "on_demand"
    }
    return [
        _extreme(offer) or _dearer_than_on_demand(offer, asked) or _far_from(offer, groups[_terms(offer)])
        for offer in offers
    ]


def _terms(offer: PriceOffer) -> tuple[str, str, str]:
    return offer.gpu, offer.currency, offer.kind.removesuffix("_avg")


def _newest(offer: PriceOffer | ApiOffer) -> int:
    found = day(offer.date)
    return found.toordinal() if found else 0


def _extreme(offer: PriceOffer) -> str | None:
    return "an extreme of the market, nobody's offer" if offer.vendor.startswith("market ") else None


def _dearer_than_on_demand(offer: PriceOffer, asked: Mapping[tuple[str, str, str], float]) -> str | None:
    whole = asked.get((offer.gpu, offer.currency, offer.vendor))
    if offer.kind not in DISCOUNTED or whole is None or offer.price_per_gpu_hour <= whole:
        return None
    return f"{offer.kind} dearer than the same vendor's on-demand {whole:g}"


def _far_from(offer: PriceOffer, group: Sequence[PriceOffer]) -> str | None:
    others = {each.vendor: each.price_per_gpu_hour for each in sorted(group, key=_newest)}
    others.pop(offer.vendor, None)
    return far_off(offer.price_per_gpu_hour, list(others.values()), "other vendors")


def far_off(price: float, others: Sequence[float], whose: str) -> str | None:
    """Says how far a price is from the median of others' where that is beyond :data:`SPREAD`."""
    from statistics import median

    if len(others) < LEAST_PEERS:
        return None
    middle = median(others)
    if 1 / SPREAD <= price / middle <= SPREAD:
        return None
    times = f"{price / middle:.3g} ×" if price > middle else f"1/{middle / price:.3g} of"
    return f"{times} the median of {len(others)} {whose} ({middle:g})"


# -------------------------------------------------------------------------------------------- tokens


def api_doubts(
    offers: Sequence[ApiOffer], maker: Callable[[str], str | None], published: Callable[[str], str | None]
) -> list[str | None]:
    """Why each offer of one model is not believed; ``maker`` and ``published`` say of a model's name which
    provider made it and when it came out."""
    found = [_by_itself(offer, published(offer.model)) for offer in offers]
    while True:
        trusted = [place for place, doubt in enumerate(found) if doubt is None]
        distances = {place: _distance(offers, trusted, place, maker) for place in trusted}
        worst = max(trusted, key=lambda place: distances[place][0], default=None)
        if worst is None or distances[worst][0] <= 1:
            return found
        found[worst] = distances[worst][1]


def _by_itself(offer: ApiOffer, published: str | None) -> str | None:
    steep = offer.per_m_output / offer.per_m_input
    if steep < 1:
        return f"output cheaper than input ({steep:.2g} ×)"
    if steep > STEEPEST:
        return f"output {steep:.3g} × the input price"
    if offer.per_m_cached_input is not None and offer.per_m_cached_input > offer.per_m_input:
        return "cached input dearer than input"
    if published and before(offer.date, published):
        return f"dated before the model was published ({published})"
    return None


def _distance(
    offers: Sequence[ApiOffer], trusted: Sequence[int], place: int, maker: Callable[[str], str | None]
) -> tuple[float, str]:
    """How far beyond the limits (1 is on them) an offer is from the yardstick, and that in words."""
    from statistics import median

    offer = offers[place]
    others = {offers[each].provider: offers[each] for each in trusted if each != place}
    others.pop(offer.provider, None)
    own = others.get(maker(offer.model) or "")
    if own is None and (len(others) < LEAST_PEERS or offer.provider == maker(offer.model)):
        return 0.0, ""
    ruler = [own] if own else list(others.values())
    whose = f"the maker's ({own.provider}" if own else f"the median of {len(ruler)} other providers ("
    far: list[tuple[float, str]] = []
    for name, limit, of in _RATIOS:
        middle = median(of(each) for each in ruler)
        ratio = of(offer) / middle
        said = f"{name} {ratio:.3g} × {whose}{', ' if own else ''}{middle:.3g})"
        far.append((max(ratio, 1 / ratio) / limit, said))
    return max(far)


_RATIOS: tuple[tuple[str, float, Callable[[ApiOffer], float]], ...] = (
    ("input", SPREAD, lambda offer: offer.per_m_input),
    ("output", SPREAD, lambda offer: offer.per_m_output),
    ("output/input", SHAPE, lambda offer: offer.per_m_output / offer.per_m_input),
)


# ------------------------------------------------------------------------------------------- hardware


def capex_doubt(bought: Capex, usd_per_gpu_hour: float | None) -> str | None:
    """Why a price of hardware is not believed, from what renting the same GPU costs."""
    if usd_per_gpu_hour is None:
        return None
    hours = bought.usd_per_gpu / usd_per_gpu_hour
    if LEAST_HOURS <= hours <= MOST_HOURS:
        return None
    return f"{hours:,.0f} hours of rent at {usd_per_gpu_hour:g} USD pay for it"
