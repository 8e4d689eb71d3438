"""Evidence → verdicts: what may be said of a claim, cell by cell and over all.

A cell is *supported* where the interval of its ratio lies at or above the bar, *refuted* where it lies below
it, *direction only* where it lies below the bar and above 1; else it is undecided.  Whatever else is doubtful
of a cell takes its verdict away, never its ratio.  The chance that any cell of a claim is decided wrongly is
held at the level of one test, over all its pre-registered cells (Holm), whether they were measured or not;
that of a trial over all its looks as well (Lan & DeMets, Biometrika 70, 1983).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from profiler import stats
from profiler.claims import law, metrics, region
from profiler.claims.law import Bar, Said
from profiler.claims.nouns import Case, Evidence, Finding, Ruling, Side, Verdict
from profiler.schema import Estimate
from profiler.stats import families, planning, ratios, robust, sequential

FEASIBLE = 200  # starts a side, beyond which "measure more" is no advice
ONE_START = "one engine start on a side: within-run precision only, which says nothing of the next start"
FEW_STARTS = f"fewer than {law.FEWEST_STARTS} engine starts on a side: two may be alike by chance alone"
NO_FIGURES = "nothing was measured here"
NO_RATIO = "a figure of 0, or none at all, has no ratio"
NO_SCATTER = (
    "every start of a side gave the very same figure, so how far the next one would be off is not known; "
    "longer windows tell starts apart"
)
OPEN: tuple[Verdict, ...] = ("undecided", "not comparable", "not testable here")


def ruling(case: Case) -> Ruling:
    """The case judged.  Raises InputError for a metric nobody knows."""
    findings = _findings(case) if case.evidence else ()
    verdict, why = _overall(case, findings)
    own = [line for each in case.evidence for line in each.missing]
    return Ruling(
        case=case,
        verdict=verdict,
        why=why,
        findings=findings,
        region=region.words(findings),
        crossovers=region.crossovers(findings),
        missing=tuple(dict.fromkeys([*own, *case.missing])),  # commands come last
    )


# ------------------------------------------------------------------------------------------- the level


class Level(NamedTuple):
    """How sure a test must be; ``looks`` are those of the trial the figures come from, None: of none."""

    looks: tuple[float, ...] | None

    def one(self, equal: bool = False) -> float:
        """The share of tests that may err over all looks, one-sided; ``equal``: each of the two for it."""
        if self.looks is None:
            return law.ALPHA_UNPLANNED
        return law.ALPHA_EQUAL if equal else law.ALPHA

    def now(self, alpha: float) -> float:
        """What a p value is compared with at this look, so that all looks together err in ``alpha``."""
        return alpha if self.looks is None else sequential.nominal(self.looks, alpha)[-1]

    def confidence(self, equal: bool = False) -> float:
        """Of the two-sided interval a verdict rests on."""
        return 1 - 2 * self.now(self.one(equal))

    def sure(self, p_values: Sequence[float], equal: bool = False) -> list[bool]:
        """Which cells of a claim a test decides, at one level over all of them (Holm)."""
        return families.rejected(p_values, lambda left: self.now(self.one(equal) / left))


# ------------------------------------------------------------------------------------------- the cells


class _Cell(NamedTuple):
    """A cell with figures that a test can decide; ``n``: starts of each side, 0 where it is exact."""

    said: Said
    n: tuple[int, int]


class _Test(NamedTuple):
    """Of one cell, among all of the claim: whether it errs rarely enough, and the p value of that."""

    is_sure: bool
    p: float | None


class _Outcome(NamedTuple):
    verdict: Verdict
    why: str
    p: float | None = None
    needed: int | None = None


class _Rule(NamedTuple):
    """What all cells of a case are judged by."""

    bar: Bar
    level: Level
    cells: int

    @property
    def is_equal(self) -> bool:
        return self.bar.high is not None


def _findings(case: Case) -> tuple[Finding, ...]:
    """Every cell judged, all of them as one family."""
    bar = law.bar(case.claim, metrics.margin_frac(case.claim))
    rule = _Rule(bar, Level(case.looks), len(case.evidence))
    cells = [_cell(each, bar) for each in case.evidence]
    barred = [_barred(case, *each) for each in zip(case.evidence, cells, strict=True)]
    open_ = [None if why else cell for why, cell in zip(barred, cells, strict=True)]
    supports = _family(rule.level, [cell and law.p_support(cell.said, bar) for cell in open_], rule.is_equal)
    refutes = _family(rule.level, [cell and law.p_refute(cell.said, bar) for cell in open_])
    found = []
    for place, (each, cell) in enumerate(zip(case.evidence, cells, strict=True)):
        outcome = barred[place]
        if outcome is None and cell is not None:
            outcome = _decided(rule, cell, supports[place], refutes[place])
        found.append(_finding(rule, each, cell, outcome or _Outcome("undecided", NO_FIGURES)))
    return tuple(found)


def _cell(evidence: Evidence, bar: Bar) -> _Cell | None:
    found = law.log_ratio(evidence.subject, evidence.baseline)
    if found is None:
        return None
    said = Said(found.inverse if bar.inverted else found, evidence.systematic_frac)
    return _Cell(said, (_starts(evidence.subject), _starts(evidence.baseline)))


def _starts(side: Side) -> int:
    return 0 if side.exact is not None else len(side.values)


def _family(level: Level, p_values: Sequence[float | None], equal: bool = False) -> list[_Test]:
    """A cell without a p value counts as one that failed: what is measured later makes nothing unsure that
    was sure before."""
    full = [1.0 if p is None else p for p in p_values]
    sure, adjusted = level.sure(full, equal), stats.holm(full)
    return [
        _Test(yes, None if p is None else at) for p, yes, at in zip(p_values, sure, adjusted, strict=True)
    ]


def _barred(case: Case, evidence: Evidence, cell: _Cell | None) -> _Outcome | None:
    """Why no test may decide a cell, whatever its figures say; None where one may."""
    if case.impossible:
        return _Outcome("not testable here", case.impossible)
    sides = (evidence.subject, evidence.baseline)
    doubts = (*case.doubts, *evidence.doubts)
    if doubts and (case.doubts or all(map(_has_figures, sides))):
        return _Outcome("not comparable", "; ".join(doubts))
    if not all(map(_has_figures, sides)):
        return _Outcome("undecided", "; ".join(evidence.missing) or NO_FIGURES)
    if cell is None:
        alone = any(side.exact is None and len(side.values) < 2 for side in sides)
        return _Outcome("undecided", ONE_START if alone else NO_RATIO)
    return _barred_if_timed(case, sides)


def _barred_if_timed(case: Case, sides: Sequence[Side]) -> _Outcome | None:
    if not _is_timed(case):
        return None
    scattering = [side.values for side in sides if side.exact is None]
    if any(len(values) < law.FEWEST_STARTS for values in scattering):
        return _Outcome("undecided", FEW_STARTS, needed=law.FEWEST_STARTS)
    if any(map(robust.no_scatter, scattering)):
        return _Outcome("undecided", NO_SCATTER)
    return None


def _is_timed(case: Case) -> bool:
    """Whether a clock or a meter is in the metric; bytes are counted, and may well be the same each time."""
    metric = metrics.of(case.claim.metric)
    return metric.kind in ("runs", "answers") and metric.unit != "bytes"


def _has_figures(side: Side) -> bool:
    return bool(side.values) or side.exact is not None or side.within is not None


# ----------------------------------------------------------------------------------------- the verdict


def _decided(rule: _Rule, cell: _Cell, support: _Test, refute: _Test) -> _Outcome:
    """The law."""
    what = "the ratio" if cell.said.is_point else "all of the interval"
    if not (support.is_sure or refute.is_sure):
        return _open(rule, cell)
    p = None if cell.said.is_exact else (support if support.is_sure else refute).p
    chance = "" if p is None else f", p = {p:.2g}" + (f" among {rule.cells} cells" if rule.cells > 1 else "")
    why = f"{what} is {_place(rule.bar, wanted=support.is_sure)}{chance}"
    if support.is_sure:
        return _Outcome("supported", why, p)
    if _direction_holds(rule, cell):
        return _Outcome("direction only", f"the direction holds, but {why}", p)
    return _Outcome("refuted", why, p)


def _direction_holds(rule: _Rule, cell: _Cell) -> bool:
    """That of "more" and "less" in this cell by itself; "equal" and "about" have none."""
    return not rule.is_equal and cell.said.ends(rule.level.confidence())[0] > 1


def _place(bar: Bar, wanted: bool) -> str:
    """Where the claim wants subject / baseline, or where not."""
    if bar.high is not None:
        return f"{'between' if wanted else 'outside'} {bar.low:.4g} and {bar.high:.4g}"
    if bar.inverted:
        return f"{'at or below' if wanted else 'above'} {1 / bar.low:.4g}"
    return f"{'at or above' if wanted else 'below'} {bar.low:.4g}"


def _open(rule: _Rule, cell: _Cell) -> _Outcome:
    """Undecided, and what would decide it."""
    low, high = cell.said.ends(rule.level.confidence())
    bars = [each for each in (rule.bar.low, rule.bar.high) if each is not None]
    inside = [f"{1 / each if rule.bar.inverted else each:.4g}" for each in bars if low < each <= high]
    if inside:
        parts = [f"the interval includes {' and '.join(inside)}"]
    else:
        parts = [f"sure enough for a single cell, not for one of {rule.cells}"]
    if _direction_holds(rule, cell):
        parts.append("the direction holds")
    needed = _needed(rule, cell)
    if needed is not None:
        parts.append(f"about {needed} starts a side would decide, if the ratio is as seen")
    elif not cell.said.is_exact:
        parts.append(f"so near the bar that more than {FEASIBLE} starts a side would be needed")
    return _Outcome("undecided", "; ".join(parts), needed=needed)


def _needed(rule: _Rule, cell: _Cell) -> int | None:
    """Starts a side after which the cell is decided in four of five cases, as if it had to be the surest of
    all; None: no sensible number."""
    distance, equal = law.distance(cell.said, rule.bar)
    if distance <= 0 or cell.said.is_exact:
        return None
    held = [n for n in cell.n if n]
    spread = cell.said.found.error / math.sqrt(sum(1 / n for n in held)) * math.sqrt(len(held) / 2)
    alpha = rule.level.now(rule.level.one(equal) / rule.cells)
    if equal:
        distance = math.expm1(distance)  # as if the ratio lay between two bars so far away
    power, starts = (
        (planning.power_equal, planning.starts_equal) if equal else (planning.power, planning.starts)
    )
    if power(FEASIBLE, spread, distance, alpha) < planning.POWER:
        return None
    return max(starts(spread, distance, alpha), 1 + max(held))


def _finding(rule: _Rule, evidence: Evidence, cell: _Cell | None, outcome: _Outcome) -> Finding:
    sides = (evidence.subject, evidence.baseline)
    found = Finding(
        evidence=evidence,
        verdict=outcome.verdict,
        why=outcome.why,
        ratio=_within_run(*sides),
        p=outcome.p,
        needed=outcome.needed,
    )
    if cell is None:
        return found
    confidence = rule.level.confidence(rule.is_equal and outcome.verdict == "supported")
    seen = cell.said.found.inverse if rule.bar.inverted else cell.said.found
    n = min((each for each in cell.n if each), default=1)
    return msgspec.structs.replace(
        found,
        ratio=_estimate(Said(seen, evidence.systematic_frac), confidence, n),
        confidence=confidence,
        statistical=_estimate(Said(seen, 0.0), confidence, n),
        fieller=_fieller(*sides, confidence),
        remarks=tuple(_remarks(*sides)),
    )


def _estimate(said: Said, confidence: float, n: int) -> Estimate:
    """An end that is no number is None."""
    low, high = said.ends(confidence)
    over = None if said.is_exact else "starts"
    return Estimate(math.exp(said.found.mean), low or None, high if high < math.inf else None, n, over)


def _fieller(subject: Side, baseline: Side, confidence: float) -> Estimate | None:
    """The cross-check, where both sides scatter."""
    if subject.exact is not None or baseline.exact is not None:
        return None
    return ratios.fieller(subject.values, baseline.values, confidence)


def _remarks(subject: Side, baseline: Side) -> Iterator[str]:
    for name, side in (("subject", subject), ("baseline", baseline)):
        if side.exact is None:
            yield from (f"{name}: {remark}" for remark in robust.remarks(side.values))


def _within_run(subject: Side, baseline: Side) -> Estimate | None:
    """The ratio of figures that no test can decide, with the precision of their windows at most."""
    above, below = _middle(subject), _middle(baseline)
    if above is None or below is None or not law.is_positive([above.value, below.value]):
        return None
    return stats.ratio_of(above, below)


def _middle(side: Side) -> Estimate | None:
    if side.exact is not None:
        return Estimate(side.exact, side.exact, side.exact)
    if side.within is not None:
        return side.within
    return stats.over_repeats(side.values) if side.values else None


# -------------------------------------------------------------------------------------------- over all


def _overall(case: Case, findings: Sequence[Finding]) -> tuple[Verdict, str]:
    """The verdict on the claim as stated: that it holds in every one of its cells."""
    if case.impossible:
        return "not testable here", case.impossible
    if case.doubts:
        return "not comparable", "; ".join(case.doubts)
    if all(each.ratio is None for each in findings):
        return "undecided", _nothing(case, findings)
    verdict, because = _of_cells(findings)
    return verdict, _said(findings, because)


def _of_cells(findings: Sequence[Finding]) -> tuple[Verdict, Verdict]:
    """The verdict that cells come to, some of which have figures, and that of the cells it is for."""
    seen = {each.verdict for each in findings if each.ratio is not None}
    if len(seen) == 1 and seen <= {"not comparable", "not testable here"}:
        (only,) = seen
        return only, only
    found = {each.verdict for each in findings}
    if "refuted" in found:
        return "refuted", "refuted"
    for verdict in OPEN:
        if verdict in found:
            return "undecided", verdict
    return ("direction only",) * 2 if "direction only" in found else ("supported",) * 2


def _said(findings: Sequence[Finding], verdict: Verdict) -> str:
    """The reason of the cells with this verdict: how many they are, and what is said of the first."""
    own = [each for each in findings if each.verdict == verdict]
    if len(findings) == 1:
        return own[0].why
    return f"{verdict} in {len(own)} of {len(findings)} cells: {own[0].why}"


def _nothing(case: Case, findings: Sequence[Finding]) -> str:
    """Why there is no figure at all."""
    return (findings[0].why if findings else "; ".join(case.missing)) or NO_FIGURES
