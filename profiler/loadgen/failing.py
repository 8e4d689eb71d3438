"""What failed in a row: is the server still one to be measured, and if not, why, in its own words?"""

from __future__ import annotations

from profiler.loadgen.decode import judge, read
from profiler.loadgen.exchange import Exchange
from profiler.schema import Endpoint, Outcome

CONNECTION_FAILURES: tuple[Outcome, ...] = ("connect_error", "connect_timeout", "reset")
TIMEOUTS: tuple[Outcome, ...] = ("first_token_timeout", "gap_timeout", "total_timeout")
OVERLOADED = (429, 502, 503, 504)  # of the server, or of what stands before it
MOST_PIECES_TOLD = 4096  # to put more together inside a window would delay stamps
BACKOFF_NS = 250_000_000
LONGEST_BACKOFF_NS = 10_000_000_000


def backoff_ns(exchange: Exchange) -> int:
    """How long a closed loop's slot pauses after a failure: as long as the server asks, within reason, and
    never less than is fair to one that fails."""
    asked_ns = round((exchange.retry_after_s or 0.0) * 1e9)
    return max(BACKOFF_NS, min(asked_ns, LONGEST_BACKOFF_NS))


class Failing:
    """Of one load: how many requests failed since the last good answer (``in_row``), the sum of the pauses
    after them (``paused_ns``), and why the ``last`` that failed did."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.in_row = self.paused_ns = 0
        self.last: str | None = None
        self._endpoint = endpoint
        self._disconnected = 0
        self._turned_away = 0
        self._timed_out = 0
        self._was_answered = False

    def add(self, exchange: Exchange) -> bool:
        """One more that ended; whether it was answered well, as far as can be told at once.

        That is as the wire has it, and in full until one was: a server whose every answer is bad is found out
        at once, and no window is spent on decoding.
        """
        good = exchange.answered and (self._was_answered or self._judged(exchange)[0] == "ok")
        if good:
            self._was_answered = True
            self.in_row = self.paused_ns = 0
            self._disconnected = self._turned_away = self._timed_out = 0
            return True
        self.in_row += 1
        self.paused_ns += backoff_ns(exchange)
        refused = exchange.status not in (None, 200)
        self._disconnected += not refused and exchange.failure in CONNECTION_FAILURES
        self._turned_away += exchange.status in OVERLOADED
        self._timed_out += not refused and exchange.failure in TIMEOUTS
        self.last = self._told_by(exchange)
        return False

    def why_lost(self, had_token: bool) -> str | None:
        """Why the server is not one to be measured now, to follow its address; ``had_token``: of any answer
        of this load, one under way included.

        All failures in a row were connections'; or none was a sign of too much load; or there were others
        than refusals for that, and no token ever came.  None where it may be just too much load, which is
        data: of a search, a load that is missed.
        """
        if 0 < self._disconnected == self.in_row:
            return f"stopped answering: {self.last}"
        if 0 < self._turned_away == self.in_row:
            return None
        if had_token and self._turned_away + self._timed_out:
            return None
        return f"answers with nothing but failures: {self.last}"

    def _judged(self, exchange: Exchange) -> tuple[Outcome, str | None]:
        return judge(exchange, read(exchange), self._endpoint)

    def _told_by(self, exchange: Exchange) -> str:
        """What the transport saw says enough: to understand half an answer takes as long as a whole one, and
        of those cut off there may be hundreds at once, inside the window."""
        if exchange.failure is not None and exchange.status in (None, 200):
            return exchange.error or exchange.failure
        if exchange.piece_count > MOST_PIECES_TOLD:
            return exchange.error or f"HTTP {exchange.status}"
        outcome, error = self._judged(exchange)
        return error or outcome
