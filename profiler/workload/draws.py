"""Numbers drawn from a seed: evenly spread ones for what each request is, random ones for all else.

What a request is (its lengths, its share of a mix, its prefix group, …) is *stratified*, not independent:
request ``i`` takes the fractional part of offset + i·√p, one prime p for each property (the golden section
for the input), the offsets drawn from seed and window.  Multiples of such irrationals spread over [0, 1)
more evenly than independent draws (their continued fractions are bounded: L. Kuipers and H. Niederreiter,
Uniform Distribution of Sequences, 1974, ch. 2.3), and independently of each other (Kronecker's theorem: 1
and the square roots of primes are linearly independent over the rationals).  Each property so has its own
exact distribution, and any run of some dozen requests already holds the whole mix (its mean scatters a
quarter as much as that of independent draws), so that two windows differ by the engine and not by the luck
of the draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiler.settings import Length, Pause

if TYPE_CHECKING:
    import numpy as np

# Properties: places in STEPS.
INPUT, OUTPUT, SHARE, GROUP, TURNS, PAUSE = range(6)
# Chosen so that no two come near a common multiple: correlated by less than 0.015 over 4,000 requests.
STEPS = ((5**0.5 - 1) / 2, 2**0.5 - 1, 59**0.5 - 7, 31**0.5 - 5, 17**0.5 - 4, 97**0.5 - 9)

# Streams of random numbers.  The name comes first and is not 0: numpy takes missing words for zeros.
OFFSETS, PREFIXES, POOL, HEADERS, GAPS, PICTURES = range(1, 7)


def generator(*words: int) -> np.random.Generator:
    """Independent for every tuple of whole numbers ≥ 0; the first names the stream."""
    import numpy as np

    return np.random.default_rng(words)


class Points:
    """``at(property, index)``: evenly spread over [0, 1) in index, the same for the same seed and window."""

    def __init__(self, seed: int, window: int) -> None:
        self._offsets: list[float] = generator(OFFSETS, seed, window).random(len(STEPS)).tolist()

    def at(self, which: int, index: int) -> float:
        return (self._offsets[which] + index * STEPS[which]) % 1


def length_at(wanted: int | Length, point: float) -> int:
    """The length at this point of its distribution."""
    if isinstance(wanted, int):
        return wanted
    low, high = bounds(wanted)
    return low + int(point * (high - low + 1))


def pause_at(wanted: float | Pause, point: float) -> float:
    """The time in seconds at this point of its distribution."""
    if isinstance(wanted, Pause):
        return wanted.mean_s * (1 + wanted.spread * (2 * point - 1))
    return wanted


def bounds(length: int | Length) -> tuple[int, int]:
    """The least and the most a length can be, both at least 1."""
    if isinstance(length, int):
        return length, length
    return max(1, round(length.mean * (1 - length.spread))), round(length.mean * (1 + length.spread))


def mean(length: int | Length) -> int:
    return length if isinstance(length, int) else length.mean
