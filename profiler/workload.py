"""(Workload, seed, window) → planned requests: exact token lengths and fresh prompts, the same every time.

Lengths are *stratified*, not independent: request ``i`` takes the fractional parts of offset + i·φ for its
input and of offset + i·√2 for its output, the offsets drawn from seed and window.  Multiples of these two
numbers spread over [0, 1) more evenly than those of any other (Hurwitz's theorem; L. Kuipers and H.
Niederreiter, Uniform Distribution of Sequences, 1974), and independently of each other.  Each length is so
uniform on mean·[1 − spread, 1 + spread], and any run of some dozen requests already holds the whole mix
(its mean scatters a quarter as much as that of independent draws), so that two windows differ by the
engine and not by the luck of the draw.

Prompts are random ids, fresh for every (seed, window, index): a prefix cache finds nothing in them,
unless ``shared_prefix_tokens`` asks for a common beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from profiler.settings import Length, Workload

if TYPE_CHECKING:
    import numpy as np

STEPS = ((5**0.5 - 1) / 2, 2**0.5 - 1)
PREFIX_STREAM = (0, 0, 1)  # one word more than (window, index): a stream of its own

# Short, frequent English words: one token each, with the space before it, in the usual vocabularies.
WORDS = tuple(
    """
    the of and to in is was for on that by with as are from at his it an were be this which or had not
    but have one their has first also its after new who they two her she been other when time during
    there into all may more school years over only year most would world city some where between later
    up such many under three then these out used can no will about part known him state before while
    system through number made well season north work same several since south high until being team
    both name area small each film won second life group people war series early music still any against
    line long town called very local end book home house four day
    """.split()  # noqa: SIM905 (140 quoted words read worse)
)


class PlannedRequest(Struct, frozen=True):
    """One request before it is sent: lengths in tokens."""

    index: int
    input_tokens: int
    output_tokens: int


class Plan:
    """The requests of one window, computed on demand; ``request(i)`` is a pure function of its arguments.

    ``salt`` changes the prompts and nothing else: for servers that outlive a run and may still hold the
    prompts of the last one in their prefix cache.
    """

    def __init__(self, workload: Workload, vocab_size: int, window: int, salt: int = 0) -> None:
        self._workload = workload
        self._stream = (workload.seed, salt, window)
        self._first_id, self._end_id = ordinary_ids(vocab_size)
        self._offsets: list[float] = _generator(workload.seed, window).random(2).tolist()

    def request(self, index: int) -> PlannedRequest:
        """The ``index``-th request of the window, index ≥ 0."""
        points = [(offset + index * step) % 1 for offset, step in zip(self._offsets, STEPS, strict=True)]
        return PlannedRequest(
            index=index,
            input_tokens=_length(self._workload.input_tokens, points[0]),
            output_tokens=_length(self._workload.output_tokens, points[1]),
        )

    def prompt(self, planned: PlannedRequest) -> list[int]:
        """Token ids of the prompt: exactly ``planned.input_tokens`` of them."""
        return self._draw(planned, self._first_id, self._end_id)

    def text(self, planned: PlannedRequest) -> str:
        """The prompt for endpoints that take text only: as many common words as tokens are wanted.

        The true number of tokens is the endpoint's to say (``usage.prompt_tokens``).
        """
        return " ".join([WORDS[i] for i in self._draw(planned, 0, len(WORDS))])

    def _draw(self, planned: PlannedRequest, low: int, high: int) -> list[int]:
        shared = min(self._workload.shared_prefix_tokens, planned.input_tokens)
        own = _generator(*self._stream, planned.index)
        drawn: list[int] = own.integers(low, high, planned.input_tokens - shared).tolist()
        if not shared:
            return drawn
        seed, salt, _ = self._stream
        prefix: list[int] = _generator(seed, salt, *PREFIX_STREAM).integers(low, high, shared).tolist()
        return prefix + drawn


def _generator(*words: int) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(words)


def ordinary_ids(vocab_size: int) -> tuple[int, int]:
    """Half-open range of ids that are ordinary text in a vocabulary of this size.

    Special, placeholder and padding ids sit at the two ends: the first 256 at most, and the last 3 %
    (Llama 3: 0.2 %, DeepSeek-V3: 1 %, Gemma 3: 2.4 %).  Vocabularies under 1,000 are used whole.
    """
    if vocab_size < 1000:
        return 0, vocab_size
    return min(256, vocab_size // 10), vocab_size - vocab_size * 3 // 100


def _length(wanted: int | Length, point: float) -> int:
    if isinstance(wanted, int):
        return wanted
    low = max(1, round(wanted.mean * (1 - wanted.spread)))
    high = round(wanted.mean * (1 + wanted.spread))
    return low + int(point * (high - low + 1))
