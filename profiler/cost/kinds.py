"""What a token of each kind takes of the engine's time at a load.  No price is needed for that.

A second of the engine is divided without a rest:

    1 s  =  idle  +  input_rate · s_input  +  cached_rate · s_cached  +  output_rate · s_output

``idle`` is the share of the window without a request in flight.  ``s_input`` is measured apart: in answers of
one token (scenario ``prefill``) or else as mean TTFT at concurrency 1, in this run or in one alike
(:mod:`profiler.prefill`, as for the cost table); else by the regression over slices of this very load
(:mod:`profiler.split`).  ``s_cached``, of a prompt's token that a prefix cache had, comes from the same point
held with and without hits.  ``s_output`` is what they leave at this load, over *all* output tokens, as they
are sold: an answer's first token costs nothing beside its prompt.  So the kinds times their counts, and the
idle time, are the bill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from profiler import prefill, stats, trust
from profiler.figures import Figures
from profiler.schema import Estimate

INPUT, CACHED, OUTPUT = "input", "cached input", "output"
ALL, ALL_ON_OUTPUT = "all tokens", "all on output"
SAME_LENGTH_FRAC = 0.1
HOW = "give a run of scenario prefill of the same model and engine too"
NO_CACHED = (
    "not measured: give this load without shared prefixes too (workload.shared_prefix_tokens=0), both at "
    "concurrency 1 or with answers of one token"
)
Regression = Callable[[Figures], tuple[Estimate | None, str | None]]


class Kind(Struct, frozen=True, kw_only=True):
    """Tokens of one kind: how many come in a second, and what one takes (seconds of the whole engine)."""

    name: str
    tokens_per_s: float
    engine_s: Estimate

    @property
    def share(self) -> float:
        """Of the engine's time."""
        return self.tokens_per_s * self.engine_s.value


class Kinds(Struct, frozen=True, kw_only=True):
    """The kinds at a load; their shares and ``idle_frac`` add up to 1.

    ``whole_s``: engine seconds over the output tokens, everything inside.  ``way``: where ``s_input`` comes
    from; ``missing``: why there is only one kind, ``cached_missing``: why cached input is none of its own.
    ``idle_frac`` is None where nobody saw when requests were in flight; it is then inside the kinds.
    """

    kinds: tuple[Kind, ...] = ()
    idle_frac: float | None = None
    whole_s: Estimate | None = None
    way: str | None = None
    missing: str | None = None
    cached_missing: str | None = None

    def of(self, name: str) -> Kind | None:
        return next((each for each in self.kinds if each.name == name), None)


class Source(NamedTuple):
    """``input_s``: what a computed token of a prompt takes, or where ``is_mean`` any token of one."""

    input_s: Estimate
    way: str
    is_mean: bool = False


def of_points(
    measured: Sequence[Figures],
    regression: Regression | None = None,
    wanted: Sequence[Figures] | None = None,
) -> list[Kinds]:
    """The kinds of every load point, or of those ``wanted``, in their order; ``regression`` is asked where
    prefill stands alone in no run: its input_s, or why there is none."""
    groups: dict[str, list[Figures]] = {}
    for each in measured:
        groups.setdefault(each.alike, []).append(each)
    cached = {key: cached_s(points) for key, points in groups.items()}
    return [
        _of(each, groups[each.alike], cached[each.alike], regression)
        for each in (measured if wanted is None else wanted)
    ]


def _of(
    found: Figures, group: Sequence[Figures], cached: Estimate | str, regression: Regression | None
) -> Kinds:
    """By the first source that leaves something to the answers; else all tokens are one kind, and why."""
    why = f"no run holds prefill alone: {HOW}"
    for source in _sources(found, group):
        kinds = of_point(found, source, cached)
        if kinds.missing is None:
            return kinds
        why = kinds.missing
    if regression is not None:
        input_s, undecided = regression(found)
        if input_s is not None and input_s.value > 0:
            return of_point(found, Source(input_s, "regression over slices of this load"), cached)
        why += f"; regression: {undecided}" if undecided else ""
    return _together(found, why)


def _sources(found: Figures, group: Sequence[Figures]) -> Iterator[Source]:
    own = [each for each in group if each.run == found.run]
    others = [each for each in group if each.run != found.run]
    for points, whose in ((own, "this run"), (others, "a run alike")):
        fresh = [each for each in points if hits(each) < trust.FRESH_HIT_FRAC]
        if input_s := prefill.s_per_token(fresh):
            yield Source(input_s, f"{_way(fresh)} of {whose}")
    if hits(found) >= trust.FRESH_HIT_FRAC and (input_s := prefill.s_per_token(own)):
        yield Source(input_s, f"{_way(own)} of this run", is_mean=True)


def hits(found: Figures) -> float:
    """The known share of prompt tokens that a prefix cache had; engines without one do not tell."""
    hit = found.estimates.get("prefix_cache_hit_frac")
    return hit.value if hit else 0.0


def _way(points: Iterable[Figures]) -> str:
    if any(prefill.answers_of_one(each) for each in points):
        return "answers of one token"
    return "TTFT at concurrency 1"


# ------------------------------------------------------------------------------------- one load


def of_point(found: Figures, source: Source, cached: Estimate | str = NO_CACHED) -> Kinds:
    """The kinds of a load whose prompts take ``source``; ``cached``: what a cached token takes, or why that
    is not known."""
    inputs, outputs = (found.estimates.get(f"{kind}_tokens_per_s") for kind in (INPUT, OUTPUT))
    if inputs is None or outputs is None or outputs.value <= 0:
        return _together(found, "the endpoint does not say how long the prompts were")
    busy = 1 - (_idle(found) or 0.0)
    shared = 0.0 if source.is_mean else hits(found)
    known = isinstance(cached, Estimate) and shared >= trust.FRESH_HIT_FRAC
    paid = [Kind(name=INPUT, tokens_per_s=inputs.value * (1 - shared), engine_s=source.input_s)]
    if known and isinstance(cached, Estimate):
        paid.append(Kind(name=CACHED, tokens_per_s=inputs.value * shared, engine_s=cached))
    left = busy - sum(each.share for each in paid)
    if prefill.answers_of_one(found):
        return _prompts_alone(found, paid, busy)
    if left <= 0:
        return _together(
            found,
            f"prompts ({source.way}) would take {(busy - left) / busy:.0%} of the engine's time here, where "
            f"many are read at once: {HOW}",
        )
    whole = stats.inverted(outputs, busy)
    parts = [(1.0, whole)] + [(-each.tokens_per_s / outputs.value, each.engine_s) for each in paid]
    rest = combined(parts)
    answers = Kind(name=OUTPUT, tokens_per_s=outputs.value, engine_s=rest)
    is_silent = hits(found) >= trust.FRESH_HIT_FRAC and not known
    return Kinds(
        kinds=(*paid, answers),
        idle_frac=_idle(found),
        whole_s=stats.inverted(outputs, 1.0),
        way=source.way,
        cached_missing=_inside(found, source, cached) if is_silent else None,
    )


def _inside(found: Figures, source: Source, cached: Estimate | str) -> str:
    """Where the time of cached tokens is when it is none of its own."""
    where = "the mean over computed and cached input" if source.is_mean else "inside output"
    return f"{hits(found):.0%} of the input was cached; what that takes is {where} ({cached})"


def _prompts_alone(found: Figures, paid: Sequence[Kind], busy: float) -> Kinds:
    """Answers of one token come out of prefill: the prompts take all of the time."""
    first, *cached = paid
    each_s = stats.inverted(found.estimates["input_tokens_per_s"], 1.0)
    left = (busy - sum(each.share for each in cached)) / first.tokens_per_s
    own = Kind(
        name=INPUT, tokens_per_s=first.tokens_per_s, engine_s=stats.scaled(each_s, left / each_s.value)
    )
    outputs = found.estimates["output_tokens_per_s"]
    return Kinds(
        kinds=(own, *cached),
        idle_frac=_idle(found),
        whole_s=stats.inverted(outputs, 1.0),
        way="answers of one token of this run",
    )


def _together(found: Figures, why: str) -> Kinds:
    outputs = found.estimates.get("output_tokens_per_s")
    total, name = found.estimates.get("total_tokens_per_s"), ALL
    if total is None:  # nobody counted the prompts
        total, name = outputs, ALL_ON_OUTPUT
    idle = _idle(found)
    if total is None or total.value <= 0 or outputs is None or outputs.value <= 0:
        return Kinds(idle_frac=idle, missing="no token was measured at this load")
    each_s = stats.inverted(total, 1 - (idle or 0.0))
    return Kinds(
        kinds=(Kind(name=name, tokens_per_s=total.value, engine_s=each_s),),
        idle_frac=idle,
        whole_s=stats.inverted(outputs, 1.0),
        missing=why,
    )


def _idle(found: Figures) -> float | None:
    busy = found.estimates.get("engine_busy_frac")
    return None if busy is None else min(1.0, max(0.0, 1 - busy.value))


def blended(kinds: Kinds, blend: Sequence[float]) -> Estimate | None:
    """Engine seconds of a token of the mix ``blend``: shares of input, output and maybe cached input, which
    sum to 1; None where a kind of it is not known."""
    return of_tokens(kinds, dict(zip((INPUT, OUTPUT, CACHED), blend, strict=False)))


def of_tokens(kinds: Kinds, amounts: Mapping[str, float]) -> Estimate | None:
    """Engine seconds of so many tokens of each kind, the idle time carried by the output tokens (as in
    ``usd_per_m_blended_tokens`` of the cost table); None where a kind of them is not known."""
    output = kinds.of(OUTPUT)
    wanted = [name for name, amount in amounts.items() if amount > 0]
    if output is None or kinds.whole_s is None or any(kinds.of(name) is None for name in wanted):
        return None
    answers = amounts[OUTPUT]
    parts = [(answers, kinds.whole_s)]
    for each in kinds.kinds:
        if each.name != OUTPUT:
            ratio = each.tokens_per_s / output.tokens_per_s
            parts.append((amounts.get(each.name, 0.0) - answers * ratio, each.engine_s))
    return combined(parts)


def combined(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """Σ factor · x of times on one machine, which cannot be negative; no interval where one has none.

    A slow day lengthens all of them, so their correlation is anywhere from 0 to 1.  The distances to the ends
    are taken for the worst of it: terms of one sign add up, the two signs stand in quadrature (recovery of
    variance from limits: Zou & Donner, Statistics in Medicine 27, 2008).
    """
    value = sum(factor * each.value for factor, each in parts)
    n, over = min(each.n for _, each in parts), parts[0][1].over
    down, up = [0.0, 0.0], [0.0, 0.0]
    for factor, each in parts:
        if each.low is None or each.high is None:
            return Estimate(value, n=n, over=over)
        below, above = abs(factor) * (each.value - each.low), abs(factor) * (each.high - each.value)
        sign = factor < 0
        down[sign] += above if sign else below
        up[sign] += below if sign else above
    return Estimate(value, max(0.0, value - math.hypot(*down)), value + math.hypot(*up), n, over)


# ------------------------------------------------------------------------------------- cached input


def cached_s(group: Sequence[Figures]) -> Estimate | str:
    """Engine seconds of a cached token of a prompt, or why it is not known, from runs alike.

    Of a prompt with a share h of hits a token takes, on average, (1 − h) · s_input + h · s_cached; the same
    load without hits gives s_input, both measured the same way.
    """
    why = NO_CACHED
    for fresh, shared in _pairs(group):
        found = _told_apart(fresh, shared)
        if isinstance(found, Estimate):
            return found
        why = found
    return why


def _pairs(group: Sequence[Figures]) -> Iterator[tuple[Figures, Figures]]:
    """The same load without and with hits, prompts of one length; answers of one token before others."""
    known = [each for each in group if each.estimates.get("prefix_cache_hit_frac") is not None]
    known.sort(key=lambda each: (not prefill.answers_of_one(each), -(each.point.concurrency or 0)))
    for shared in (each for each in known if hits(each) >= trust.FRESH_HIT_FRAC):
        for fresh in (each for each in known if hits(each) < trust.FRESH_HIT_FRAC):
            if shared.point == fresh.point and _alike(shared, fresh):
                yield fresh, shared


def _alike(a: Figures, b: Figures) -> bool:
    if prefill.answers_of_one(a) != prefill.answers_of_one(b):
        return False
    lengths = [each.estimates.get("input_tokens_mean") for each in (a, b)]
    if lengths[0] is None or lengths[1] is None:
        return False
    return abs(lengths[0].value / lengths[1].value - 1) <= SAME_LENGTH_FRAC


def _told_apart(fresh: Figures, shared: Figures) -> Estimate | str:
    alone, mean = prefill.s_per_token([fresh]), prefill.s_per_token([shared])
    if alone is None or mean is None:
        return NO_CACHED
    share = hits(shared)
    found = combined([(1 / share, mean), (-(1 - share) / share, alone)])
    if not 0 < found.value <= alone.value:
        more = "nothing" if found.value <= 0 else "more than a computed one"
        return f"undecided: with {share:.0%} of hits a cached token seems to take {more}, the noise is larger"
    return found
