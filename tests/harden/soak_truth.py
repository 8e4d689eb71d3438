"""What the load generator said of every chunk, held against when the metronome emitted it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from profiler.engines.truth import Truth

# A request may arrive out of turn by so many places; a wrong partner shows by gaps that are another plan's.
OVERTAKES = 6
SAME_PLAN_FRAC = 0.1  # of the mean gap: what gaps of one answer, seen twice, differ by at most (middle one)


class Late(NamedTuple):
    """When each chunk was emitted (ns) and how much later the client stamped it (s); of how many requests no
    answer was found."""

    at_ns: NDArray[np.int64]
    late_s: NDArray[np.float64]
    left_out: int


def errors(table: Any, truth: Truth, start_ns: int, end_ns: int, in_turn: bool) -> Late:
    """Of the requests of usual length sent in [start, end).  ``table``: columns of ``requests.parquet``.
    ``in_turn``: each is taken for the next to arrive, for a client so far behind that gaps tell nothing."""
    import pyarrow.compute as pc

    chosen = table.filter(
        pc.and_(
            pc.equal(table["outcome"], "ok"),
            pc.and_(pc.greater_equal(table["sent_ns"], start_ns), pc.less(table["sent_ns"], end_ns)),
        )
    )
    counts = pc.list_value_length(chosen["arrivals_ns"]).to_numpy()
    if not counts.size:
        return Late(np.zeros(0, np.int64), np.zeros(0), 0)
    length = int(np.median(counts))
    whole = chosen.filter(pc.equal(pc.list_value_length(chosen["arrivals_ns"]), length))
    seen = whole["arrivals_ns"].combine_chunks().flatten().to_numpy().reshape(-1, length)
    is_whole = truth.chunks == length
    firsts = (truth.chunks.cumsum() - truth.chunks)[is_whole]
    emitted = truth.emitted_ns[firsts[:, None] + np.arange(length)]
    arrived = truth.arrived_ns[is_whole]
    sent = whole["sent_ns"].to_numpy()
    if in_turn:
        next_one = np.searchsorted(arrived, sent).clip(0, len(arrived) - 1)
        return Late(emitted[next_one].ravel(), (seen - emitted[next_one]).ravel() / 1e9, 0)
    return _paired(sent, seen, arrived, emitted)


def _paired(
    sent_ns: NDArray[np.int64], seen: NDArray[np.int64], arrived_ns: NDArray[np.int64], emitted: Any
) -> Late:
    """Of the answers that arrived next to a request the one whose gaps are most like those seen."""
    at = np.searchsorted(arrived_ns, sent_ns)
    best = np.full(len(sent_ns), np.inf)
    partner = np.zeros(len(sent_ns), np.int64)
    for step in range(-OVERTAKES, OVERTAKES + 1):
        place = at + step
        inside = (place >= 0) & (place < len(arrived_ns))
        place = np.clip(place, 0, len(arrived_ns) - 1)
        unlike = np.median(np.abs(np.diff(seen, axis=1) - np.diff(emitted[place], axis=1)), axis=1)
        unlike = np.where(inside, unlike, np.inf)
        better = unlike < best
        best, partner = np.where(better, unlike, best), np.where(better, place, partner)
    gap_ns = float(np.diff(emitted, axis=1).mean())
    known = best < SAME_PLAN_FRAC * gap_ns
    true = emitted[partner[known]]
    return Late(true.ravel(), (seen[known] - true).ravel() / 1e9, int((~known).sum()))
