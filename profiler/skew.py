"""What the way tokens find their experts costs: one model routed in several ways in one interleaved run.

The weights are the same, so whatever differs is the routing: how many distinct experts a step reads, and how
evenly they are loaded.  Windows of the same load and repeat are pairs, since what drifts meets both alike;
the interval is the paired one on the logarithms of their ratios (``stats.over_repeats``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from msgspec.structs import replace

from profiler import metrics, stats
from profiler.consumption import GROSS
from profiler.schema import Estimate, LoadPoint
from profiler.store import RunResult

REFERENCE = "uniform"
RATE = "output_tokens_per_s"


@dataclass(frozen=True)
class SkewCost:
    """``routing`` over ``reference`` at one load: the ratio of a figure, None where either was not measured.

    ``is_random``: the weights are, and so is what their router does.
    """

    model: str
    point: LoadPoint
    routing: str
    reference: str
    output_tokens_per_s: Estimate | None
    energy_j_per_output_token: Estimate | None
    is_random: bool


def costs(runs: Sequence[RunResult]) -> list[SkewCost]:
    """Each routing against ``uniform`` (the first where that is not among them), load by load."""
    routed = [run for run in runs if run.manifest.engine.routing is not None]

    def arms(run: RunResult) -> tuple[str, str]:
        return run.manifest.group, run.manifest.model.name

    found: list[SkewCost] = []
    for _, alike in groupby(sorted(routed, key=arms), key=arms):
        by_routing = {str(run.manifest.engine.routing): run for run in alike}
        reference = REFERENCE if REFERENCE in by_routing else next(iter(by_routing))
        against = by_routing.pop(reference)
        for run in by_routing.values():
            found += _against(run, against)
    return found


def _against(run: RunResult, reference: RunResult) -> Iterator[SkewCost]:
    ours, theirs = dict(_windows(run)), dict(_windows(reference))
    pairs = sorted(ours.keys() & theirs.keys(), key=lambda each: (metrics.by_load(each[0]), each[1]))
    for point, same in groupby(pairs, key=lambda each: each[0]):
        both = [(ours[each], theirs[each]) for each in same]
        yield SkewCost(
            model=run.manifest.model.name,
            point=point,
            routing=str(run.manifest.engine.routing),
            reference=str(reference.manifest.engine.routing),
            output_tokens_per_s=_ratio([(a.get(RATE), b.get(RATE)) for a, b in both]),
            energy_j_per_output_token=_ratio([(a.get(GROSS), b.get(GROSS)) for a, b in both]),
            is_random=run.manifest.model.weights == "random",
        )


def _windows(run: RunResult) -> Iterator[tuple[tuple[LoadPoint, int], dict[str, Estimate | None]]]:
    """The figures of each window by itself."""
    for window in run.manifest.windows:
        alone = RunResult(run.folder, replace(run.manifest, windows=(window,)))
        (found,) = metrics.points(alone)
        yield (window.point, window.repeat), found.estimates


def _ratio(pairs: Sequence[tuple[Estimate | None, Estimate | None]]) -> Estimate | None:
    known = [a.value / b.value for a, b in pairs if a is not None and b is not None and b.value > 0]
    return stats.over_repeats(known) if known else None
