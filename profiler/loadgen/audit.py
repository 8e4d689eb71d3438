"""What of a window's figures is the client's own doing."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec import structs

from profiler.client import ClientAudit
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.job import Pace
from profiler.schema import RequestRecord, Window

if TYPE_CHECKING:
    from profiler.loadgen.driver import Held

SEND_LATE_S, SEND_LATE_FRAC = 0.001, 0.01
LOOP_LATE_S, LOOP_LATE_FRAC = 0.002, 0.10
BUSY_FRAC = 0.85
STALL_S = 1.0


class Tally:
    """Sums over records while they pass by on their way to the file; none of them is kept.

    The window is that of ``held``; of a batch, from the first sent to the last arrival.
    """

    def __init__(self, held: Held, is_batch: bool) -> None:
        self._held = held
        self._all = is_batch
        self._start_ns = held.steady_start_ns or 0
        self._end_ns = held.steady_end_ns or 0
        self._send_lags_s = array("f")
        self._chunks = 0
        self._ttft_ns = self._gaps_ns = self._requests = self._gaps = 0
        self._first_sent_ns: int | None = None
        self._last_arrival_ns: int | None = None

    def through(self, decoded: Iterable[tuple[Exchange, RequestRecord]]) -> Iterator[RequestRecord]:
        for exchange, record in decoded:
            self._add(exchange.begun_ns, record)
            yield record

    @property
    def bounds_ns(self) -> tuple[int | None, int | None]:
        """Start and end of the steady window, None without one."""
        held = self._held
        if self._all:
            whole = (self._first_sent_ns, self._last_arrival_ns)
            return whole if held.trouble is None else (None, None)
        if held.steady_start_ns is None or held.steady_end_ns is None:
            return None, None
        return held.steady_start_ns, held.steady_end_ns

    @property
    def pace(self) -> Pace:
        return Pace(
            ttft_s=self._ttft_ns / 1e9, requests=self._requests, gaps_s=self._gaps_ns / 1e9, gaps=self._gaps
        )

    def audit(self) -> ClientAudit | None:
        """None without a steady window."""
        import numpy as np

        start_ns, end_ns = self.bounds_ns
        if start_ns is None or end_ns is None:
            return None
        pulse, lags_s = self._held.pulse, np.asarray(self._send_lags_s)
        return ClientAudit(
            cpu_frac=pulse.cpu_frac(start_ns, end_ns),
            loop_lag_p99_s=pulse.lag_p99_s(start_ns, end_ns),
            loop_lag_max_s=pulse.lag_max_s(start_ns, self._held.closed_ns),  # measured ones end after it
            send_lag_p99_s=float(np.percentile(lags_s, 99)) if lags_s.size else None,
            chunks=self._chunks,
        )

    def _add(self, begun_ns: int | None, record: RequestRecord) -> None:
        start_ns, end_ns, arrivals_ns = self._start_ns, self._end_ns, record.arrivals_ns
        if record.sent_ns is not None:
            self._first_sent_ns = min(record.sent_ns, self._first_sent_ns or record.sent_ns)
        if record.last_ns is not None:
            self._last_arrival_ns = max(record.last_ns, self._last_arrival_ns or 0)
        if self._all:
            self._chunks += len(arrivals_ns)
        else:
            self._chunks += bisect_right(arrivals_ns, end_ns) - bisect_left(arrivals_ns, start_ns)
        if not (self._all or start_ns <= record.due_ns < end_ns):
            return
        if begun_ns is not None:
            self._send_lags_s.append((begun_ns - record.due_ns) / 1e9)
        if record.outcome == "ok" and record.first_ns is not None:
            self._requests += 1
            self._ttft_ns += record.first_ns - record.due_ns
            self._gaps += len(arrivals_ns) - 1
            self._gaps_ns += arrivals_ns[-1] - arrivals_ns[0]


def bound_by(audit: ClientAudit, pace: Pace) -> tuple[str, ...]:
    """What the client's own slowness adds to the window's figures, in words; empty: nothing to speak of.

    Sending late by more than 1 ms and 1 % of the mean time to the first token is in that time (the wait for a
    connection is too, but no slowness of the client's); a loop that is late by more than 2 ms and 10 % of the
    mean gap between chunks is in those gaps.  One that stood still (stopped, suspended) for longer than
    ``STALL_S`` is told of however long the window was: no percentile of it may show that.
    """
    reasons = []
    ttft_s = pace.ttft_s / pace.requests if pace.requests else 0.0
    gap_s = pace.gaps_s / pace.gaps if pace.gaps else 0.0
    late_s, lag_s = audit.send_lag_p99_s, audit.loop_lag_p99_s
    if late_s is not None and late_s > max(SEND_LATE_S, SEND_LATE_FRAC * ttft_s):
        reasons.append(f"requests were sent late: p99 {late_s * 1e3:.1f} ms")
    if lag_s is not None and lag_s > max(LOOP_LATE_S, LOOP_LATE_FRAC * gap_s):
        reasons.append(f"the load process was slow to see answers: p99 {lag_s * 1e3:.1f} ms")
    if audit.loop_lag_max_s is not None and audit.loop_lag_max_s > STALL_S:
        reasons.append(f"a load process stood still for {audit.loop_lag_max_s:.1f} s")
    if audit.cpu_frac is not None and audit.cpu_frac > BUSY_FRAC:
        reasons.append(f"a load process was busy {audit.cpu_frac:.0%} of the time")
    return tuple(reasons)


def merged_audit(audits: list[ClientAudit]) -> ClientAudit:
    """Of several processes' audits the worst, and all chunks."""

    def worst(name: str) -> float | None:
        return max(
            (getattr(audit, name) for audit in audits if getattr(audit, name) is not None), default=None
        )

    return ClientAudit(
        cpu_frac=worst("cpu_frac"),
        loop_lag_p99_s=worst("loop_lag_p99_s"),
        loop_lag_max_s=worst("loop_lag_max_s"),
        send_lag_p99_s=worst("send_lag_p99_s"),
        chunks=sum(audit.chunks for audit in audits),
        processes=len(audits),
    )


def merged_window(windows: list[Window], paces: list[Pace]) -> Window:
    """One window of the parts that several processes (or one) held of it; steady if all of them were."""
    starts = [window.steady_start_ns for window in windows if window.steady_start_ns is not None]
    ends = [window.steady_end_ns for window in windows if window.steady_end_ns is not None]
    steady = len(starts) == len(ends) == len(windows)
    audits = [window.audit for window in windows if window.audit is not None]
    audit = merged_audit(audits) if steady and len(audits) == len(windows) else None
    if audit is not None:
        audit = structs.replace(audit, bound_by=bound_by(audit, merged_pace(paces)))
    troubles = sorted((w.trouble for w in windows if w.trouble is not None), key="cancelled".__eq__)
    return structs.replace(
        windows[0],
        opened_ns=min(window.opened_ns for window in windows),
        steady_start_ns=min(starts) if steady else None,
        steady_end_ns=max(ends) if steady else None,
        closed_ns=max(window.closed_ns for window in windows),
        audit=audit,
        trouble=troubles[0] if troubles else None,
    )


def merged_pace(paces: list[Pace]) -> Pace:
    sums = [sum(getattr(pace, name) for pace in paces) for name in Pace.__struct_fields__]
    return Pace(**dict(zip(Pace.__struct_fields__, sums, strict=True)))
