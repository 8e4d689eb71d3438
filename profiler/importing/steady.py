"""Which stretch of another tool's run is its steady window, by the definitions of our own loads.

``closed``: from the first token of all streams to the last request sent.  ``open``: from the end of the first
answer to the last request due.  ``batch``: from the first request sent to the last arrival.  A run too short
for one is taken whole, its start and its end included, as the tools themselves do; the notes say which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from profiler.schema import LoadPoint, RequestRecord

S = 1_000_000_000
# Fewer requests than this in it and a window says nothing (as ``measure.min_requests``).
MIN_REQUESTS = 10


class Steady(NamedTuple):
    """Bounds in ns; None where not one request was answered."""

    start_ns: int | None
    end_ns: int | None
    note: str


def window(point: LoadPoint, records: Sequence[RequestRecord], whole: bool = False) -> Steady:
    """The steady window of ``records``, or all of the run where ``whole`` or where it has none."""
    ended = [each.last_ns for each in records if each.outcome == "ok" and each.last_ns is not None]
    if not ended:
        return Steady(None, None, "no request was answered")
    first, last = min(each.due_ns for each in records), max(ended)
    if whole or point.mode == "batch":
        return _told(first, last, (first, last), "all of the run, its start and end included")
    found = _closed(point, records) if point.mode == "closed" else _open(records, ended)
    inside = [each for each in records if found and found[0] <= each.due_ns < found[1]]
    n = sum(each.outcome == "ok" for each in inside)
    if found is None or n < max(MIN_REQUESTS, point.concurrency or 0):
        short = (
            f"too short for a steady window ({n} requests in it): all of the run, its start and end included"
        )
        return _told(first, last, (first, last), short)
    how = {"closed": "the first token of all streams to the last request sent"}
    open_loop = "the end of the first answer to the last request due"
    return _told(first, max(last, found[1]), found, f"from {how.get(point.mode, open_loop)}")


def _closed(point: LoadPoint, records: Sequence[RequestRecord]) -> tuple[int, int] | None:
    wave = sorted(records, key=lambda each: each.sent_ns or each.due_ns)[: point.concurrency or 1]
    firsts = [each.first_ns for each in wave if each.outcome == "ok" and each.first_ns is not None]
    sent = [each.sent_ns for each in records if each.sent_ns is not None]
    if not firsts or not sent or max(sent) <= max(firsts):
        return None
    return max(firsts), max(sent)


def _open(records: Sequence[RequestRecord], ended: Sequence[int]) -> tuple[int, int] | None:
    start, end = min(ended), max(each.due_ns for each in records)
    return (start, end) if end > start else None


def _told(first: int, last: int, found: tuple[int, int], how: str) -> Steady:
    start, end = found
    # All arrivals of a window lie after its start: nothing arrives at the instant of the first sending.
    a, b, total = ((each - first) / S for each in (start, end, last))
    return Steady(start, end, f"steady window {a:.2f}–{b:.2f} s of {total:.2f} s: {how}")
