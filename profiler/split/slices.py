"""A steady window in slices of a second or more: what was worked off in each, and the energy it took.

*Input tokens* of a slice are those of prompts it computed (a prefix cache's are not).  Engines take prompts
in the order they came, so a prompt is worked off between the first token that came before its own, or its
being sent if that was later, and its own first token; over that time its tokens are spread evenly.  That
leaves out the time a request queued.
*Decode tokens* are those after an answer's first: the first one comes out of prefill.  A piece of several
tokens is spread over the time since the piece before it.
*Context* is the sum, over decode tokens, of the tokens before each: what attention reads.

Slices end on ticks of the energy counter where it has any, and are then free of its period.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from profiler import counters
from profiler.samples import between, sources
from profiler.windows import WindowView, busy_spans, flights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SLICE_S = 2.0
PERIODS_PER_SLICE, MAX_SLICE_S = 10, 5.0
MARGIN_NS = round(2 * counters.MAX_GAP_S * 1e9)
# Two tokens stamped alike still took some time; shorter spans lose digits.
SHORTEST_NS = 1000.0


class Slices(NamedTuple):
    """One element a slice; ``energy_j`` is None, with ``reason``, where it cannot be told.

    ``busy_s``: time with a request in flight.  ``known``: whether all that was worked off is known (not
    where a request was prefilled that never gave a token).
    """

    span_s: Floats
    busy_s: Floats
    input_tokens: Floats
    decode_tokens: Floats
    context_tokens: Floats
    known: Flags
    energy_j: Floats | None
    reason: str | None

    def total(self, name: str) -> float:
        return float(getattr(self, name).sum())


def of_window(view: WindowView, samples: Any, gpus: Sequence[str], *, whole: bool = False) -> Slices:
    """The slices of a steady window, or the ``whole`` of it as one; energy of ``gpus`` (none: of the CPU)."""
    import numpy as np

    edges = np.array([view.start, view.end])
    if not whole:
        edges = _edges(edges, _ticks(samples, gpus, view))
    energy_j, reason = joules_between(samples, gpus, edges)
    firsts = np.sort(view["first_ns"][view["first_ns"] >= 0])
    decoded, context = _answers(view)
    return Slices(
        span_s=np.diff(edges) / 1e9,
        busy_s=np.diff(_spread(*_in_flight(view), edges)) / 1e9,
        input_tokens=np.diff(_spread(*_prompts(view, firsts), edges)),
        decode_tokens=np.diff(_spread(*decoded, edges)),
        context_tokens=np.diff(_spread(*context, edges)),
        known=_known(view, firsts, edges),
        energy_j=energy_j,
        reason=reason,
    )


# ------------------------------------------------------------------------------------- energy


def joules_between(samples: Any, gpus: Sequence[str], edges: Ints) -> tuple[Floats | None, str | None]:
    """Joules of boards, or without any of the CPU, from each edge to the next; or None and why."""
    import numpy as np

    devices = _devices(between(samples, int(edges[0]) - MARGIN_NS, int(edges[-1]) + MARGIN_NS), gpus)
    if not devices:
        return None, "no energy was sampled; the run's probes say why"
    reached = np.zeros(len(edges))
    try:
        for device in devices:
            curve = counters.curve(device, int(edges[0]), int(edges[-1]))
            reached += np.interp(edges, curve.times_ns, curve.joules)
    except counters.UnreadableError as error:
        return None, str(error)
    return np.diff(reached), None


def _devices(near: Any, gpus: Sequence[str]) -> list[counters.Counter]:
    if gpus:
        return [counters.nvml(near, f"gpu:{uuid}") for uuid in gpus]
    return [counters.rapl(near, source) for source in sources(near, "rapl")]


def _ticks(samples: Any, gpus: Sequence[str], view: WindowView) -> Ints | None:
    """When the first device's counter stepped inside the window."""
    devices = _devices(between(samples, view.start - MARGIN_NS, view.end + MARGIN_NS), gpus)
    if not devices:
        return None
    ticks = devices[0].times_ns
    return ticks[(ticks >= view.start) & (ticks <= view.end)]


def _edges(window: Ints, ticks: Ints | None) -> Ints:
    """Slices of about ``SLICE_S``, longer where the counter is slow, from tick to tick."""
    import numpy as np

    start, end = window
    if ticks is None or len(ticks) < 3:
        count = max(1, round((end - start) / 1e9 / SLICE_S))
        return np.linspace(start, end, count + 1).astype(np.int64)
    period_s = float(np.median(np.diff(ticks))) / 1e9
    length_s = min(MAX_SLICE_S, max(SLICE_S, PERIODS_PER_SLICE * period_s))
    count = max(1, round((ticks[-1] - ticks[0]) / 1e9 / length_s))
    wanted = np.linspace(ticks[0], ticks[-1], count + 1)
    after = np.clip(np.searchsorted(ticks, wanted), 1, len(ticks) - 1)
    nearer = np.where(wanted - ticks[after - 1] < ticks[after] - wanted, after - 1, after)
    return np.unique(ticks[nearer])


# ------------------------------------------------------------------------------------- work

Spans = tuple["Ints", "Ints", "Floats"]


def _spread(start: Ints, end: Ints, amount: Floats, edges: Ints) -> Floats:
    """How much of every amount, spread evenly over its span, came before each edge."""
    import numpy as np

    if not len(start):
        return np.zeros(len(edges))
    origin = int(edges[0])
    end = (end - origin).astype(np.float64)
    start = np.minimum((start - origin).astype(np.float64), end - SHORTEST_NS)
    rate = amount / (end - start)
    at = np.concatenate([start, end])
    order = np.argsort(at)
    at = at[order]
    slope = np.cumsum(np.concatenate([rate, -rate])[order])
    reached = np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(at))])
    return np.asarray(np.interp(edges - origin, at, reached))


def _prompts(view: WindowView, firsts: Ints) -> Spans:
    import numpy as np

    came = view["first_ns"] >= 0
    first = view["first_ns"][came]
    tokens = (view["input_tokens"] - view["cached_tokens"].clip(min=0))[came]
    earlier = np.searchsorted(firsts, first, side="left") - 1
    before = np.where(earlier >= 0, firsts[earlier], 0)
    return np.maximum(view["sent_ns"][came], before), first, tokens.astype(np.float64)


def _answers(view: WindowView) -> tuple[Spans, Spans]:
    """Decode tokens and their context, piece by piece."""
    import numpy as np

    row = view.arrivals.row
    times, tokens = view.arrived_output
    opens = np.concatenate([[True], row[1:] != row[:-1]])[: len(row)]
    since = np.where(opens, times, np.concatenate([times[:1], times[:-1]]))
    decoded = np.where(opens, np.maximum(tokens - 1, 0), tokens)
    reached = np.cumsum(tokens)
    answered = reached - np.maximum.accumulate(np.where(opens, reached - tokens, 0))
    context = decoded * (view["input_tokens"][row] + answered - (decoded + 1) / 2)
    return (since, times, decoded), (since, times, context)


def _in_flight(view: WindowView) -> Spans:
    """The stretches of time with at least one request in flight, in nanoseconds."""
    start, end = busy_spans(view)
    return start, end, (end - start).astype("float64")


def _known(view: WindowView, firsts: Ints, edges: Ints) -> Flags:
    """Slices in which no request was worked on that ended without a first token."""
    import numpy as np

    sent, ended = flights(view)
    vain = (view["first_ns"] < 0)[view["sent_ns"] >= 0]
    earlier = np.searchsorted(firsts, ended[vain], side="left") - 1
    begun = np.maximum(sent[vain], np.where(earlier >= 0, firsts[earlier], 0) if len(firsts) else 0)
    vainly_ns = np.diff(_spread(begun, ended[vain], (ended[vain] - begun).astype(float), edges))
    return np.asarray(vainly_ns <= SHORTEST_NS)
