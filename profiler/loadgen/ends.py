"""When requests ended: how many did by an instant, for a window that asks as it goes on."""

from __future__ import annotations

from array import array

KEPT = 1 << 14  # the latest, of twice as many at most: more than a second of them at any rate


class Ends:
    """Counts ends; a window asks for the number by an instant that has just passed, so that older ones need
    no times and a window of any length takes no more memory."""

    def __init__(self) -> None:
        self._before = 0
        self._latest_ns: array[int] = array("q")

    def add(self, end_ns: int) -> None:
        self._latest_ns.append(end_ns)
        if len(self._latest_ns) >= 2 * KEPT:
            self._before += KEPT
            del self._latest_ns[:KEPT]

    def by(self, at_ns: int) -> int:
        """How many were not after this time, which never goes back."""
        later = array("q", [end_ns for end_ns in self._latest_ns if end_ns > at_ns])
        self._before += len(self._latest_ns) - len(later)
        self._latest_ns = later
        return self._before

    def begin(self, at_ns: int) -> None:
        """Count from this time on."""
        self.by(at_ns)
        self._before = 0
