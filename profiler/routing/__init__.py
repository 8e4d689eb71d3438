"""Where the experts of a MoE were used: a run's recorded routing → RoutingReport.

One pass over the layers, each of them on its own, so that memory is bounded by one layer of the recording.
Definitions, formulas and traps: docs/routing.md.
"""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING

from profiler import trust
from profiler.routing import loads, recording
from profiler.routing.coverage import Decode, Prefill
from profiler.routing.nouns import RoutingReport
from profiler.routing.ranks import RankSteps
from profiler.routing.recording import Recording

if TYPE_CHECKING:
    from profiler.store import RunResult


def report(run: RunResult) -> RoutingReport | None:
    """What a run's recorded routing says, None where none was recorded; computed once for a run.

    Raises InputError when the recording is damaged.
    """
    kept = vars(run)
    if "routing_report" not in kept:
        recorded = recording.read(run)
        kept["routing_report"] = None if recorded is None else _report(run, recorded)
    found: RoutingReport | None = kept["routing_report"]
    return found


def _report(run: RunResult, recorded: Recording) -> RoutingReport:
    decode, prefill, ranks = Decode(recorded), Prefill(recorded), RankSteps(recorded)
    first = recorded.of_layer(0)
    found, alike = [], []
    for place, layer in enumerate(recorded.layers):
        chosen = recorded.of_layer(place)
        counts = loads.by_request(recorded.request, chosen, recorded.experts)
        found.append(loads.load(layer, counts, recorded.per_token, loads.same_set_frac(chosen)))
        if place:
            alike.append(loads.alike_frac(chosen, first))
        for part in (decode, prefill, ranks):
            part.add(chosen)
    cv = decode.fitted_cv()
    record = run.manifest.routing
    assert record is not None
    return RoutingReport(
        source=record.source,
        routing=record.routing,
        requests=recorded.requests,
        tokens=len(recorded.request),
        output_tokens=int(recorded.is_output.sum()),
        experts=recorded.experts,
        experts_per_token=recorded.per_token,
        loads=tuple(found),
        decode=decode.coverages(cv),
        prefill=prefill.coverages(cv),
        ranks=tuple(ranks.figures()),
        fitted_cv=cv,
        output_cv_excess=median(decode.excesses) if decode.excesses else None,
        alike_frac=fmean(alike) if alike else None,
        made_up=trust.routing_made_up(run.manifest),
    )
