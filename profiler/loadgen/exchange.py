"""One request on the wire, raw: stamps and bytes as they came, understood later."""

from __future__ import annotations

from array import array

from profiler.schema import Outcome
from profiler.workload import PlannedRequest


class Exchange:
    """What happened on the wire to one request.  All times are ``perf_counter_ns``; None: it did not happen.

    ``stamps[i]`` is when ``pieces[i]`` of the response body was read.  ``failure`` is set by the transport
    only (timeouts, resets, …); what the bytes mean is for :mod:`profiler.loadgen.decode`.
    """

    __slots__ = (
        "due_ns",
        "end_ns",
        "error",
        "failure",
        "first_token_ns",
        "pieces",
        "planned",
        "sent_ns",
        "stamps",
        "status",
    )

    def __init__(self, planned: PlannedRequest, due_ns: int) -> None:
        self.planned = planned
        self.due_ns = due_ns
        self.sent_ns: int | None = None
        self.first_token_ns: int | None = None
        self.end_ns: int | None = None
        self.status: int | None = None
        self.failure: Outcome | None = None
        self.error: str | None = None
        self.stamps = array("q")
        self.pieces: list[bytes] = []

    @property
    def answered(self) -> bool:
        """Whether it brought tokens and ended in good order, as far as can be told without decoding."""
        return self.failure is None and self.status == 200 and self.first_token_ns is not None
