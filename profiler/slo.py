"""Service-level objectives: which requests kept them, and does a load keep them?

A limit is named ``METRIC_QUANTILE_s``: ``ttft_p99_s = 0.5`` asks that 99 % of the requests have their
first token within half a second.  It is *met* or *missed* when the 95 % interval of the share of late
requests lies wholly on one side of the 1 % it allows (which is the same as asking whether the
order-statistics interval of the quantile lies on one side of the limit), else *undecided*.  A failed
request is late: it never got what the limit promises.  ``itl`` limits are about all gaps pooled; as the
gaps of one request are not independent, they count for its interval like one gap a request.

*Goodput* counts requests that kept every limit themselves, as vLLM's and DistServe's does (Zhong et al.,
OSDI 2024): a request keeps a TTFT, TPOT or E2E limit when its own latency is within it, and an ITL limit
when its mean gap (its TPOT) is.  Of several limits on one metric the widest is the request's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from profiler import stats
from profiler.errors import InputError, nearest
from profiler.schema import Estimate
from profiler.windows import LATENCIES, WindowView, latency_samples, request_latency

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]

METRICS = tuple(name.removesuffix("_s") for name in LATENCIES)
Verdict = Literal["met", "missed", "undecided"]


class Limit(Struct, frozen=True):
    """``allowed_frac`` of the requests may have a latency ``metric`` ("ttft_s") beyond ``limit_s``."""

    name: str
    metric: str
    allowed_frac: float
    limit_s: float

    @property
    def words(self) -> str:
        """As people write it: ``TTFT p99``."""
        metric, quantile, _ = self.name.split("_")
        return f"{metric.upper()} {quantile}"


class Late(Struct, frozen=True):
    """How many of ``n`` independent observations were beyond a limit; what makes a verdict, and adds up."""

    late: float
    n: float

    def __add__(self, other: Late) -> Late:
        return Late(self.late + other.late, self.n + other.n)

    def verdict(self, allowed_frac: float) -> Verdict:
        """By the Clopper–Pearson interval of the late share."""
        if self.n < 1:
            return "undecided"
        share = stats.fraction(self.late, self.n)
        if share.high is not None and share.high <= allowed_frac:
            return "met"
        return "missed" if share.low is not None and share.low > allowed_frac else "undecided"

    def within(self, allowed_frac: float) -> bool:
        """The estimate alone, whatever its interval."""
        return self.n > 0 and self.late / self.n <= allowed_frac


class Judged(Struct, frozen=True):
    """One limit at one load: what was seen of those that came, and whether the limit is kept."""

    limit: Limit
    seen: Estimate | None
    late: Late
    verdict: Verdict


def limits(slo: Mapping[str, float]) -> tuple[Limit, ...]:
    """The limits of a scenario's ``slo`` table; raises InputError for a name that is none."""
    return tuple(_limit(name, limit_s) for name, limit_s in slo.items())


def _limit(name: str, limit_s: float) -> Limit:
    match = re.fullmatch(r"([a-z0-9]+)_p(\d\d)(\d?)_s", name)
    if not match or match[1] not in METRICS or match[2] == "00":
        known = [f"{metric}_{quantile}_s" for metric in METRICS for quantile in ("p50", "p90", "p95", "p99")]
        raise InputError(f"slo.{name}: no such limit{nearest(name, known)}; for example slo.ttft_p99_s=500ms")
    if limit_s <= 0:
        raise InputError(f"slo.{name}: a limit is a time above 0, got {limit_s:g} s")
    allowed = 1 - float(f"0.{match[2]}{match[3]}")
    return Limit(name, f"{match[1]}_s", round(allowed, 3), limit_s)


def _asked(view: WindowView) -> Flags:
    """The requests a limit speaks of: due in the window, and not closed by us."""
    flags: Flags = view.inside & ~view.has_outcome("cancelled")
    return flags


def kept(view: WindowView, wanted: Sequence[Limit]) -> tuple[int, int]:
    """Of the window's requests: how many kept every limit, and how many there were."""
    return int(good(view, wanted).sum()), int(_asked(view).sum())


def good(view: WindowView, wanted: Sequence[Limit]) -> Flags:
    """Which of the window's requests kept every limit."""
    import numpy as np

    found = _asked(view) & view.ok
    for metric in {limit.metric for limit in wanted}:
        bound_s = max(limit.limit_s for limit in wanted if limit.metric == metric)
        own = request_latency(view, "tpot_s" if metric == "itl_s" else metric)
        found &= np.isnan(own) | (own <= bound_s)  # an answer of one token has no TPOT to be late in
    return found


def late(view: WindowView, limit: Limit) -> Late:
    """The window's late requests, failed ones included; of gaps, their late share of as many requests."""
    import numpy as np

    n_failed = int((_asked(view) & ~view.ok).sum())
    if limit.metric == "itl_s":
        gaps = latency_samples(view, "itl_s")
        n = int(view.measured.sum()) if len(gaps) else 0
        slow = float((gaps > limit.limit_s).mean()) * n if n else 0.0
        return Late(slow + n_failed, n + n_failed)
    own = request_latency(view, limit.metric)
    counted = view.measured & ~np.isnan(own)
    return Late(int((own[counted] > limit.limit_s).sum()) + n_failed, int(counted.sum()) + n_failed)


def judge(steady: Sequence[WindowView], wanted: Sequence[Limit]) -> tuple[Judged, ...]:
    """Every limit over all windows of one load."""
    import numpy as np

    found = []
    for limit in wanted:
        sample = np.concatenate([latency_samples(view, limit.metric) for view in steady] or [np.array([])])
        seen = stats.quantile(sample, 1 - limit.allowed_frac) if len(sample) else None
        if seen is not None and limit.metric == "itl_s":
            seen = Estimate(seen.value, n=seen.n, over="tokens")
        counted = sum((late(view, limit) for view in steady), Late(0, 0))
        found.append(Judged(limit, seen, counted, counted.verdict(limit.allowed_frac)))
    return tuple(found)


def goodput(steady: Sequence[WindowView], wanted: Sequence[Limit]) -> dict[str, Estimate | None]:
    """``goodput_requests_per_s`` and ``slo_met_frac``; None without limits or windows."""
    counts = [kept(view, wanted) for view in steady]
    asked = sum(n for _, n in counts)
    if not wanted or not asked:
        return {"goodput_requests_per_s": None, "slo_met_frac": None}
    rates = [n / view.span_s for (n, _), view in zip(counts, steady, strict=True) if view.span_s]
    return {
        "goodput_requests_per_s": stats.over_repeats(rates) if rates else None,
        "slo_met_frac": stats.fraction(sum(n for n, _ in counts), asked),
    }
