"""Serving a model oneself against buying its tokens: sealed runs on one side, price lists on the other.

What an API takes is that of its list price for the very tokens that were measured.  Providers differ, and so
do offers of the same GPU: the price is the geometric middle of the cheapest and the dearest, and the ratio
may be off by as much as those are from it, so that a claim is supported only if it holds between any two.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Sequence

import msgspec

from profiler import catalog
from profiler.claims import cells, comparable, configs, making, sides
from profiler.claims.cells import Found, Point
from profiler.claims.nouns import Case, Cell, Claim, Evidence, Models, Setting, Side
from profiler.claims.sides import Group, Pair
from profiler.cost import bought, listed
from profiler.cost.listed import TokenPrice
from profiler.cost.terms import Terms
from profiler.errors import InputError
from profiler.figures import Figures
from profiler.prices import Missing
from profiler.store import RunResult

TERMS = Terms()
Price = Callable[[Figures, TokenPrice], float | None]
EXCLUDED = "not counted: staff, redundancy, discounts and rate limits, and whether the answers are as good"


def cases(claim: Claim, runs: Sequence[RunResult]) -> list[Case]:
    """Raises InputError for a metric that no price list tells."""
    if claim.metric not in _PRICES:
        raise InputError(f"metric {claim.metric}: no price list says it; {', '.join(_PRICES)} can be bought")
    if claim.subject.api is not None and claim.baseline.api is not None:
        return _of_lists(claim, claim.subject.api, claim.baseline.api)
    sold = claim.subject.api or claim.baseline.api
    own = claim.baseline if claim.subject.api else claim.subject
    assert sold is not None, "one side is sold by the token"
    offers = listed.prices(sold, TERMS)
    if isinstance(offers, Missing):
        raise InputError(offers.reason)
    bearing = [
        run
        for run in runs
        if sides.is_of(own, run.manifest) and sides.unmet(claim.conditions, run.manifest) is None
    ]
    groups = sides.groups(sides.starts(bearing), set())
    found = [_case(claim, group, sold, offers.offers) for group in groups]
    held = [each for each in found if any(one.subject.values or one.baseline.values for one in each.evidence)]
    return held or [Case(claim=claim, missing=_nothing(claim, own))]


def _nothing(claim: Claim, own: Models) -> tuple[str, ...]:
    cell = claim.grid()[0]
    words = ["--set", f"load.concurrency={cell.batch}"] if cell.batch else []
    for name in cells.LENGTHS:
        if length := getattr(cell, name):
            words += ["--set", f"workload.{name}={length}"]
    command = ["profile", "run", "--model", making.any_of(own), "--price", "USD_PER_HOUR", *words]
    return f"no run of {making.who(own)} with a price", shlex.join(command)


# ------------------------------------------------------------------------------------- runs against lists


def _case(claim: Claim, group: Group, sold: str, offers: Sequence[TokenPrice]) -> Case:
    pair = Pair(group, group, ())
    told = sides.setting(pair)
    names = (group.model, f"{sold} (API)") if claim.baseline.api else (f"{sold} (API)", group.model)
    quality = claim.conditions.quality
    plain = msgspec.structs.replace(claim, conditions=msgspec.structs.replace(claim.conditions, quality=None))
    doubts = comparable.doubts(plain, pair)
    if quality is not None and (why := configs.unmatched(group.model, sold, quality)):
        doubts.append(why)
    return Case(
        claim=claim,
        setting=Setting(subject=names[0], baseline=names[1], machine=told.machine, engine=told.engine),
        evidence=tuple(_evidence(claim, group, cell, offers) for cell in claim.grid()),
        doubts=tuple(doubts),
    )


def _evidence(claim: Claim, group: Group, cell: Cell, offers: Sequence[TokenPrice]) -> Evidence:
    points = _most([each for each in cells.points(group.starts) if cells.fits(cell, each)])
    known = [(point, told.value) for point in points if (told := point.line.estimate(claim.metric))]
    own = Side(
        values=tuple(value for _, value in known),
        runs=tuple(dict.fromkeys(point.start.folder for point, _ in known)),
        facts={"model": group.model, "price_usd_per_hour": known[0][0].line.costs.facts["price_usd_per_hour"]}
        if known
        else {},
    )
    found = Found(cell, points, [])
    doubts = comparable.doubts_of_cell(claim, found)
    if 0 < len(known) < len(points):
        doubts.append(f"{group.model}: n/a in {len(points) - len(known)} of {len(points)} starts")
    api, spread_frac, notes = _list_side(claim.metric, [point for point, _ in known], offers)
    mine = max((_rent_frac(point) for point, _ in known), default=0.0)
    return Evidence(
        cell=cell,
        subject=own if claim.baseline.api else api,
        baseline=api if claim.baseline.api else own,
        doubts=tuple(doubts),
        missing=tuple(_missing(group.model, own, making.place(cell))),
        notes=(*notes, *_at_use(own, api, spread_frac), EXCLUDED),
        systematic_frac=(1 + spread_frac) * (1 + mine) - 1,
    )


def _most(points: Sequence[Point]) -> list[Point]:
    """Of several kinds of requests at one place, those with the most starts."""
    held: dict[str, list[Point]] = {}
    for point in points:
        held.setdefault(point.asked, []).append(point)
    return max(held.values(), key=len, default=[])


def _list_side(
    metric: str, points: Sequence[Point], offers: Sequence[TokenPrice]
) -> tuple[Side, float, tuple[str, ...]]:
    """What providers take for the tokens of these points, how far they are from their middle, and who."""
    asked = []
    for offer in offers:
        each = [_PRICES[metric](point.line.found, offer) for point in points]
        known = [usd for usd in each if usd is not None and usd > 0]
        if known and len(known) == len(each):
            asked.append((math.exp(sum(map(math.log, known)) / len(known)), offer))
    if not asked:
        return Side(), 0.0, ()
    (low, cheap), (high, dear) = (pick(asked, key=lambda pair: pair[0]) for pick in (min, max))
    told = (
        f"list prices of {len(asked)} providers, {cheap.provider} the cheapest, {dear.provider} the dearest"
    )
    if len(asked) == 1:
        told = f"list price of {cheap.provider}, {cheap.date}"
    facts = {"usd_cheapest": low, "usd_dearest": high, "providers": [offer.provider for _, offer in asked]}
    side = Side(exact=math.sqrt(low * high), facts=facts | {"date": max(cheap.date, dear.date)})
    return side, math.sqrt(high / low) - 1, (told,)


def _rent_frac(point: Point) -> float:
    """How far the offers of the GPU are from the price that was taken; nothing where the user named one."""
    facts, bill = point.line.costs.facts, point.line.costs.estimates.get("usd_per_m_output_tokens")
    low, high = (facts[f"usd_per_m_output_tokens_{end}"] for end in ("cheapest", "dearest"))
    if bill is None or low is None or high is None:
        return 0.0
    return float(max(high / bill.value, bill.value / low) - 1)


def _at_use(own: Side, api: Side, spread_frac: float) -> Iterator[str]:
    """The run works all of the hours that it pays for; a service does not."""
    if not own.values or api.exact is None:
        return
    share = sum(own.values) / len(own.values) / api.exact
    dearest, cheapest = share / (1 + spread_frac), share * (1 + spread_frac)
    shares = f"{dearest:.0%}" if spread_frac == 0 else f"{dearest:.0%} to {cheapest:.0%}"
    yield f"at full use; serving it oneself is no dearer from {shares} of the paid hours at work"


def _missing(model: str, own: Side, where: str) -> list[str]:
    if not own.values:
        return [f"no cost of {model} at {where}: runs there, with --price"]
    return making.more_starts(len(own.values), f"{model} at {where}")


# ---------------------------------------------------------------------------------- lists against lists


def _of_lists(claim: Claim, subject: str, baseline: str) -> list[Case]:
    """A case for each provider that sells both: two providers' prices tell of the providers."""
    ours, theirs = (dict(_offers(model)) for model in (subject, baseline))
    for model, found in ((subject, ours), (baseline, theirs)):
        if not found:
            raise InputError(f"no provider in the catalog sells {model} (profile list api-prices)")
    common = sorted(key for key in ours.keys() & theirs.keys() if not key[0].startswith("("))  # no one's name
    if not common:
        return [
            Case(claim=claim, impossible=f"no provider in the catalog sells both {subject} and {baseline}")
        ]
    quality = claim.conditions.quality
    doubt = configs.unmatched(subject, baseline, quality) if quality else None
    return [
        Case(
            claim=claim,
            setting=Setting(
                subject=subject, baseline=baseline, machine=provider, engine=f"price list, {code}"
            ),
            evidence=tuple(
                _of_offers(claim.metric, cell, ours[provider, code], theirs[provider, code])
                for cell in claim.grid()
            ),
            doubts=(doubt,) if doubt else (),
        )
        for provider, code in common
    ]


def _offers(model: str) -> Iterator[tuple[tuple[str, str], TokenPrice]]:
    """By provider and currency; prices of another currency stay in it, as a ratio needs no rate."""
    for code in sorted({each.currency for each in catalog.api_prices()}):
        for each in catalog.api_offers(model, {code: 1.0} if code != "USD" else {}):
            is_own = code == "USD" or each not in catalog.api_offers(model)
            if is_own:
                yield (
                    (each.provider, code),
                    TokenPrice(
                        input=each.usd_per_m_input,
                        output=each.usd_per_m_output,
                        cached=each.usd_per_m_cached_input,
                        provider=each.provider,
                        date=each.date,
                    ),
                )


def _of_offers(metric: str, cell: Cell, ours: TokenPrice, theirs: TokenPrice) -> Evidence:
    both = [_listed(metric, cell, each) for each in (ours, theirs)]
    lacking = any(each is None for each in both)
    missing = (f"{metric} depends on lengths: cells of input_tokens and output_tokens",) if lacking else ()
    dates = dict.fromkeys(each.date or "undated" for each in (ours, theirs))
    notes = (f"list prices of {' and '.join(dates)}",)
    subject, baseline = (
        Side(exact=value, facts={"provider": offer.provider, "date": offer.date, "input": offer.input,
                                 "output": offer.output})
        for value, offer in zip(both, (ours, theirs), strict=True)
    )  # fmt: skip
    return Evidence(cell=cell, subject=subject, baseline=baseline, missing=missing, notes=notes)


def _listed(metric: str, cell: Cell, offer: TokenPrice) -> float | None:
    """What a provider takes by the metric's own count; None where lengths are needed and not given."""
    alone = {
        "usd_per_m_input_tokens": offer.input,
        "usd_per_m_output_tokens_apart": offer.output,
        "usd_per_m_blended_tokens": bought.blended(offer, TERMS.blend),
    }
    if metric in alone:
        return alone[metric]
    if cell.input_tokens is None or cell.output_tokens is None:
        return None
    whole = offer.of(cell.input_tokens, cell.output_tokens)
    return whole / cell.output_tokens if metric == "usd_per_m_output_tokens" else whole / 1e6


def _per_request(found: Figures, offer: TokenPrice) -> float | None:
    told = bought.per_request(found, offer)
    return told.value if told else None


_PRICES: dict[str, Price] = {
    "usd_per_m_output_tokens": bought.per_m_output,
    "usd_per_m_input_tokens": lambda _, offer: offer.input,
    "usd_per_m_output_tokens_apart": lambda _, offer: offer.output,
    "usd_per_m_blended_tokens": lambda _, offer: bought.blended(offer, TERMS.blend),
    "usd_per_request": _per_request,
}
