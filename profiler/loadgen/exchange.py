"""One request on the wire, raw: stamps and bytes as they came, understood later."""

from __future__ import annotations

from array import array

from profiler.schema import Outcome
from profiler.workload import PlannedRequest


class Exchange:
    """What happened on the wire to one request.  All times are ``perf_counter_ns``; None: it did not happen.

    ``stamps[i]`` is when ``pieces[i]`` of the response body was read.  ``failure`` is set by the transport
    only (timeouts, resets, …); what the bytes mean is for :mod:`profiler.loadgen.decode`.

    ``retry_after_s`` is what a refusal asks for: so long no other request.

    ``opening_ns`` is when a connection began to be opened for it, None where one was open.

    Once the bytes are elsewhere (:mod:`profiler.loadgen.spill`), ``stamps`` and ``pieces`` are empty and what
    remains of them is ``first_stamp_ns``, ``last_stamp_ns`` and ``piece_count``.
    """

    __slots__ = (
        "_kept",
        "due_ns",
        "end_ns",
        "error",
        "failure",
        "first_token_ns",
        "opening_ns",
        "pieces",
        "planned",
        "retry_after_s",
        "sent_ns",
        "stamps",
        "status",
    )

    def __init__(self, planned: PlannedRequest, due_ns: int) -> None:
        self.planned = planned
        self.due_ns = due_ns
        self.opening_ns: int | None = None
        self.sent_ns: int | None = None
        self.first_token_ns: int | None = None
        self.end_ns: int | None = None
        self.status: int | None = None
        self.failure: Outcome | None = None
        self.error: str | None = None
        self.retry_after_s: float | None = None
        self.stamps = array("q")
        self.pieces: list[bytes] = []
        self._kept: tuple[int, int, int] | None = None

    @property
    def begun_ns(self) -> int | None:
        """When the client had done its part: the request was written, or a connection asked for.  What a
        server takes to accept one is in ``sent_ns``, and no slowness of the client's."""
        return self.sent_ns if self.opening_ns is None else self.opening_ns

    @property
    def answered(self) -> bool:
        """Whether it brought tokens and ended in good order, as far as can be told without decoding."""
        return self.failure is None and self.status == 200 and self.first_token_ns is not None

    @property
    def first_stamp_ns(self) -> int | None:
        """When the first piece came."""
        if self._kept is not None:
            return self._kept[0]
        return self.stamps[0] if self.stamps else None

    @property
    def last_stamp_ns(self) -> int | None:
        """When the last piece came."""
        if self._kept is not None:
            return self._kept[1]
        return self.stamps[-1] if self.stamps else None

    @property
    def piece_count(self) -> int:
        """How many pieces came."""
        return self._kept[2] if self._kept is not None else len(self.stamps)

    def empty(self) -> None:
        """Let go of stamps and bytes, which somebody else has now."""
        if self.stamps:
            self._kept = (self.stamps[0], self.stamps[-1], len(self.stamps))
            self.stamps = array("q")
            self.pieces = []
