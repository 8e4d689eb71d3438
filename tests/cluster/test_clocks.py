"""Another machine's clock: what is found of it is never further from the truth than the bound says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from profiler.cluster.clocks import LOOKS, Ahead, bound_ns, look

DELAYS_NS = st.lists(st.integers(0, 10**8), min_size=2 * LOOKS, max_size=2 * LOOKS)


class World:
    """Two clocks and the way between them; ``ahead_ns`` may drift from look to look."""

    def __init__(self, ahead_ns, delays_ns, drift_ppm=0):
        self.now_ns, self._ahead_ns, self._drift_ppm = 0, ahead_ns, drift_ppm
        self._delays = iter(delays_ns)

    def ahead_ns(self):
        return self._ahead_ns + self.now_ns * self._drift_ppm // 10**6

    def there_ns(self):
        self.now_ns += next(self._delays)
        read = self.now_ns + self.ahead_ns()
        self.now_ns += next(self._delays)
        return read

    def look(self):
        return look(self.there_ns, lambda: self.now_ns)


@given(st.integers(-(10**15), 10**15), DELAYS_NS)
def test_a_look_is_right_within_its_bound(ahead_ns, delays_ns):
    found = World(ahead_ns, delays_ns).look()
    assert abs(found.by_ns - ahead_ns) <= found.bound_ns
    shortest = min(a + b for a, b in zip(delays_ns[::2], delays_ns[1::2], strict=True))
    assert found.bound_ns == -(-shortest // 2)


@given(st.integers(-(10**12), 10**12), DELAYS_NS, DELAYS_NS, st.integers(-500, 500), st.integers(0, 10**12))
def test_the_bound_covers_a_window_between_two_looks(ahead_ns, first, second, drift_ppm, lasts_ns):
    world = World(ahead_ns, [*first, *second], drift_ppm)
    before = world.look()
    begin = world.ahead_ns()
    world.now_ns += lasts_ns
    end = world.ahead_ns()
    after = world.look()
    # The clocks drift while they are looked at, too: by no more than this.
    slack = (sum(first) + sum(second)) * abs(drift_ppm) // 10**6 + 2
    for true_ns in (begin, (begin + end) // 2, end):
        assert abs(before.by_ns - true_ns) <= bound_ns(before, after) + slack


def test_a_drift_is_in_the_bound():
    assert bound_ns(Ahead(100, 5), Ahead(100, 7)) == 7
    assert bound_ns(Ahead(100, 5), Ahead(80, 7)) == 27
