"""What a load says: its windows as counts, and whether it keeps the limits.

A load is missed when a limit is, when more than ``max_failed_frac`` of the requests fail, or when an open
loop's requests complete at less than KEEPS_UP_FRAC of the rate at which they come: its queue grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt

from profiler import slo
from profiler.schema import LoadPoint
from profiler.settings import Scenario
from profiler.slo import Late, Verdict
from profiler.store import RunResult
from profiler.windows import OPEN_MODES, WindowView, request_latency

MAX_WINDOWS = 3
KEEPS_UP_FRAC = 0.95


@dataclass(frozen=True)
class Probe:
    """One window of a search as counts, which add up over windows of one load.

    ``requests`` were due in it (those we closed aside); ``completed`` ended well within it.  ``late`` has an
    entry a limit.  ``span_s`` is 0 when the load never became steady.
    """

    point: LoadPoint
    requests: int = 0
    failed: int = 0
    completed: int = 0
    e2e_sum_s: float = 0.0
    answered: int = 0
    span_s: float = 0.0
    late: dict[str, Late] = field(default_factory=dict)
    bound_by: tuple[str, ...] = ()


def probe(view: WindowView, wanted: Sequence[slo.Limit]) -> Probe:
    """What one window says."""
    e2e = request_latency(view, "e2e_s")[view.measured]
    failed = sum(1 for _ in view.failures())
    return Probe(
        point=view.window.point,
        requests=int(view.measured.sum()) + failed,
        failed=failed,
        completed=int(view.within(view["done_ns"])[view.ok].sum()),
        e2e_sum_s=float(e2e.sum()),
        answered=len(e2e),
        span_s=view.span_s or 0.0,
        late={limit.name: slo.late(view, limit) for limit in wanted} if view.span_s else {},
        bound_by=view.window.audit.bound_by if view.window.audit else (),
    )


def probes(run: RunResult) -> list[Probe]:
    """What each window of a run says, in the order they were held."""
    wanted = slo.limits(run.manifest.scenario.slo)
    return [probe(WindowView(window, run.requests), wanted) for window in run.manifest.windows]


@dataclass(frozen=True)
class Level:
    """One load: of its ``windows`` those that count.  Where the client was the limit in some and not in
    others, it is the others."""

    load: float
    probes: tuple[Probe, ...]
    scenario: Scenario
    windows: int

    @cached_property
    def requests(self) -> int:
        return sum(each.requests for each in self.probes)

    @cached_property
    def failed(self) -> Late:
        return Late(sum(each.failed for each in self.probes), self.requests)

    @cached_property
    def completed_per_s(self) -> float:
        span_s = sum(each.span_s for each in self.probes)
        return sum(each.completed for each in self.probes) / span_s if span_s else 0.0

    @cached_property
    def e2e_s(self) -> float | None:
        """Mean time in the system."""
        answered = sum(each.answered for each in self.probes)
        return sum(each.e2e_sum_s for each in self.probes) / answered if answered else None

    @property
    def steady(self) -> bool:
        return all(each.span_s > 0 for each in self.probes) and self.e2e_s is not None

    @cached_property
    def keeps_up(self) -> bool:
        """Whether an open loop's requests complete as fast as they come.  The number in flight may grow
        where requests take longer than the warm-up, and is no constant: two standard deviations of its
        change (Poisson, Little's law) are no growth."""
        if self.probes[0].point.mode not in OPEN_MODES or self.e2e_s is None:
            return self.steady
        windows, warmup_s = len(self.probes), self.scenario.measure.warmup_s
        sway = 2 * sqrt(2 * windows * self.completed_per_s * self.e2e_s)
        filling = windows * self.completed_per_s * max(0.0, self.e2e_s - warmup_s)
        completed = sum(each.completed for each in self.probes)
        return completed >= KEEPS_UP_FRAC * self.requests - sway - filling

    @cached_property
    def late(self) -> dict[str, Late]:
        """Late requests by limit, over all windows."""
        found: dict[str, Late] = {}
        for each in self.probes:
            for name, late in each.late.items():
                found[name] = found.get(name, Late(0, 0)) + late
        return found

    @cached_property
    def verdicts(self) -> dict[str, tuple[Verdict, bool]]:
        """What was asked → (verdict by its interval, whether the estimate alone keeps it).  Where none is
        late there is nothing to doubt, however small the sample, or none at all (answers of one token have
        no TPOT)."""
        asked = {
            limit.words: (self.late.get(limit.name, Late(0, 0)), limit.allowed_frac) for limit in self._slo
        }
        asked["failures"] = (self.failed, self.scenario.max_failed_frac)
        return {
            name: (late.verdict(frac), late.within(frac)) if late.late else ("met", True)
            for name, (late, frac) in asked.items()
        }

    @property
    def _slo(self) -> tuple[slo.Limit, ...]:
        return slo.limits(self.scenario.slo)

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Why the load is missed, were it decided now."""
        if not self.steady:
            return ("failures" if self.failed.late else "never steady",)
        slow = () if self.keeps_up else (f"only {self.completed_per_s:.3g} requests/s completed",)
        broken = [name for name, (verdict, kept) in self.verdicts.items() if verdict == "missed" or not kept]
        return (*slow, *broken)

    @cached_property
    def verdict(self) -> Verdict:
        """Undecided: another window would help."""
        verdicts = [verdict for verdict, _ in self.verdicts.values()]
        if self.bound_by and self.windows < MAX_WINDOWS:
            return "undecided"
        if not self.steady or not self.keeps_up or "missed" in verdicts:
            return "missed"
        if "undecided" in verdicts and self.windows < MAX_WINDOWS:
            return "undecided"
        return "missed" if self.reasons else "met"

    @property
    def doubtful(self) -> bool:
        """Whether the verdict rests on the estimate alone."""
        return (
            self.verdict != "undecided"
            and not any(verdict == "missed" for verdict, _ in self.verdicts.values())
            and any(verdict == "undecided" for verdict, _ in self.verdicts.values())
        )

    @property
    def bound_by(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(reason for each in self.probes for reason in each.bound_by))

    @property
    def throughput_per_s(self) -> float:
        """Requests served a second: of an open loop that keeps up its rate, which no short count improves."""
        is_open = self.probes[0].point.mode in OPEN_MODES
        return self.load if is_open and self.keeps_up else self.completed_per_s

    @property
    def power(self) -> float:
        """Kleinrock's: throughput over time in system."""
        return self.throughput_per_s / self.e2e_s if self.e2e_s else 0.0


def load_of(point: LoadPoint) -> float:
    """Requests a second of an open loop, else the concurrency."""
    load = point.requests_per_s if point.concurrency is None else point.concurrency
    return float(load or 0)


def levels(scenario: Scenario, history: Sequence[Probe]) -> list[Level]:
    """The history by load, ascending."""
    held: dict[float, list[Probe]] = {}
    for each in history:
        held.setdefault(load_of(each.point), []).append(each)
    found = []
    for load in sorted(held):
        fair = tuple(each for each in held[load] if not each.bound_by)
        found.append(Level(load, fair or tuple(held[load]), scenario, len(held[load])))
    return found
