"""What another machine's monotonic clock is ahead of ours by, and how well that is known."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import NamedTuple

LOOKS = 20


class Ahead(NamedTuple):
    """A clock was ahead of ours by ``by_ns``, give or take ``bound_ns``, when it was looked at."""

    by_ns: int
    bound_ns: int


def look(read_ns: Callable[[], int], ours_ns: Callable[[], int] = perf_counter_ns) -> Ahead:
    """Read the clock over there some times and trust the answer that took least.

    It was read at some instant between question and answer, so that half of their distance bounds how wrong
    the middle can be (Cristian, "Probabilistic clock synchronization", Distributed Computing 3, 1989, eq. 6
    with a least delay of 0).
    """
    return min((_once(read_ns, ours_ns) for _ in range(LOOKS)), key=lambda each: each.bound_ns)


def _once(read_ns: Callable[[], int], ours_ns: Callable[[], int]) -> Ahead:
    asked_ns = ours_ns()
    there_ns = read_ns()
    answered_ns = ours_ns()
    return Ahead(there_ns - (asked_ns + answered_ns) // 2, -(-(answered_ns - asked_ns) // 2))


def bound_ns(before: Ahead, after: Ahead) -> int:
    """How far off ``before.by_ns`` may have been at any time between the two looks, of clocks that drift
    apart in one direction: at its beginning by what was not known, at its end by the drift as well."""
    return max(before.bound_ns, abs(after.by_ns - before.by_ns) + after.bound_ns)
