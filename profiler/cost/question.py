"""What ``profile cost`` was asked: the runs, on what terms, and what else the user said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from msgspec import Struct, field

from profiler import figures, split
from profiler.cost import basis, kinds, listed, promise
from profiler.cost.basis import Hourly
from profiler.cost.kinds import Kinds
from profiler.cost.listed import TokenPrice
from profiler.cost.promise import Choice
from profiler.cost.terms import Terms
from profiler.figures import Figures
from profiler.prices import Missing
from profiler.schema import Estimate, LoadPoint
from profiler.scores import Score
from profiler.split import Paid
from profiler.store import RunResult


class Question(Struct, frozen=True, kw_only=True, dict=True):
    """``figures``: of every load point of ``runs``, in their order.  ``prefill_s``: by run, as
    ``figures.prefill_s`` gives it.

    ``slo``: limits in seconds by name (``ttft_p99_s``), none: each scenario's own.  ``api``: the model whose
    list price a run is set against.  ``scores``: what the user measured of the models' answers.
    """

    runs: Sequence[RunResult]
    figures: Sequence[Figures]
    terms: Terms
    prefill_s: Mapping[str, Estimate | None]
    slo: Mapping[str, float] = field(default_factory=dict)
    api: str | None = None
    scores: Sequence[Score] = ()

    @cached_property
    def kinds(self) -> list[Kinds]:
        """Of each of ``figures``, in their order."""
        return kinds.of_points(self.figures, self._regression)

    def kinds_of(self, chosen: Sequence[Figures]) -> list[Kinds]:
        """Of loads of ``choices``, each over all runs that held it."""
        loads = [each.found for choice in self.choices for each in choice.standings]
        return kinds.of_points(loads, self._regression, chosen)

    @cached_property
    def _regressions(self) -> Mapping[tuple[str, LoadPoint], tuple[Estimate | None, str | None]]:
        return split.regressions(self.runs)

    def _regression(self, found: Figures) -> tuple[Estimate | None, str | None]:
        return self._regressions.get((found.run, found.point), (None, None))

    @cached_property
    def choices(self) -> list[Choice]:
        """Of each configuration the load at which the promise is kept."""
        return promise.choices(self.runs, self.figures, self.slo)

    @property
    def priced(self) -> Iterator[tuple[Figures, Kinds, Hourly | TokenPrice | Missing]]:
        """Each load point, its kinds and its ``price``."""
        for found, parts in zip(self.figures, self.kinds, strict=True):
            yield found, parts, self.price(found)

    def price(self, found: Figures) -> Hourly | TokenPrice | Missing:
        """What an hour of the engine, or of basis ``api`` a token, costs."""
        return self.offer(found) if self.terms.basis == "api" else basis.hourly(found, self.terms)

    @cached_property
    def _hours(self) -> Mapping[tuple[str, LoadPoint], Hourly | Missing]:
        return {(each.run, each.point): basis.hourly(each, self.terms) for each in self.figures}

    def payment(self, run: RunResult, point: LoadPoint) -> Paid | None:
        """What ``split.rows`` asks."""
        hour = self._hours.get((str(run.folder), point))
        if not isinstance(hour, Hourly):
            return None
        return Paid(hour.effective_usd_per_s, hour.basis, hour.paid_share, "; ".join(hour.lines))

    def offer(self, found: Figures) -> TokenPrice | Missing:
        """The middle provider's list price of the model of a load, for tokens in the mix of that load."""
        known = listed.prices(self.api or found.model, self.terms)
        rates = [found.estimates.get(f"{kind}_tokens_per_s") for kind in ("input", "output")]
        if isinstance(known, Missing):
            return known
        return known.ranked(*(rate.value if rate else 1.0 for rate in rates))[0]


def asked(
    runs: Sequence[RunResult],
    terms: Terms,
    *,
    slo: Mapping[str, float],
    api: str | None = None,
    scores: Sequence[Score] = (),
    measured: Sequence[Figures] | None = None,
) -> Question:
    """The question with what was ``measured`` of the runs, made from their tables where it is not at hand.
    Raises InputError for an ``api`` that nobody lists."""
    if api is not None:
        listed.named(api, terms)
    measured = figures.of_runs(runs) if measured is None else measured
    return Question(
        runs=runs,
        figures=measured,
        terms=terms,
        prefill_s=figures.prefill_s(measured),
        slo=slo,
        api=api,
        scores=scores,
    )
