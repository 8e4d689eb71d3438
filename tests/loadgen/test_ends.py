"""How many requests ended by an instant, in a memory that does not grow."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from profiler.loadgen import ends
from profiler.loadgen.ends import Ends


@given(st.lists(st.integers(0, 50), min_size=1), st.data())
def test_what_is_counted_is_what_ended(steps_ns, data):
    """Ends one after another, the window's opening among them, and questions by instants that have passed."""
    found, all_ns, before = Ends(), [], 0
    opening = data.draw(st.integers(0, len(steps_ns) - 1))
    for number, step_ns in enumerate(steps_ns):
        all_ns.append(sum(steps_ns[: number + 1]))
        found.add(all_ns[-1])
        at_ns = data.draw(st.integers(all_ns[-1] - step_ns, all_ns[-1]))
        ended = sum(each <= at_ns for each in all_ns)
        if number == opening:
            found.begin(at_ns)
            before = ended
        elif data.draw(st.booleans()):
            assert found.by(at_ns) == ended - before


def test_ends_of_hours_take_no_more_room_than_those_of_minutes():
    found = Ends()
    for end_ns in range(200_000):
        found.add(end_ns)
    assert sys.getsizeof(found._latest_ns) < 2 * 8 * 2 * ends.KEPT
    assert found.by(199_989) == 199_990
    assert found.by(1 << 60) == 200_000
