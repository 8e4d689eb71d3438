"""Fresh prompts at the price of a copy.

Per window a *pool* of random tokens is drawn and spelled as JSON once.  A prompt is a few *header* tokens
that no other prompt has, then a stretch of the pool: one copy of memory, however long.

What this guarantees: any two prompts of a run differ within their first ⌈64 / log2 V⌉ tokens (4 or 5 for
the vocabularies of published models, V ordinary ids each), whichever windows they belong to; so a prefix
cache, whose blocks hold more tokens than that, finds nothing in them.  Later stretches of two prompts may
overlap, at different places: a cache that only knows beginnings cannot use that.  Prompts shorter than a
header cannot all differ and are only spread as evenly as they can be.  Two seeds or salts have pools and
headers of their own.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from profiler.workload.draws import HEADERS, POOL, PREFIXES, generator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POOL_TOKENS = 1 << 16
HEADER_BITS = 64
NUMBER_BITS = 40  # requests in a window
OWN, BLOCK = 0, 1  # what is numbered: requests, or the blocks of a trace

Buffer = bytes | memoryview

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


def ordinary_ids(vocab_size: int) -> tuple[int, int]:
    """Half-open range of ids that are ordinary text in a vocabulary of this size.

    Special, placeholder and padding ids sit at the two ends: the first 256 at most, and the last 3 %
    (Llama 3: 0.2 %, DeepSeek-V3: 1 %, Gemma 3: 2.4 %).  Vocabularies under 1,000 are used whole.
    """
    if vocab_size < 1000:
        return 0, vocab_size
    return min(256, vocab_size // 10), vocab_size - vocab_size * 3 // 100


class Spelling(Protocol):
    """Writes tokens, a separator before each."""

    def one(self, token: int) -> bytes: ...
    def all(self, tokens: NDArray[np.int64]) -> tuple[bytes, Iterable[int]]:
        """The text of them all, and the length of each."""


class Prompts:
    """Tokens as JSON text in which a separator comes before each: ``,17,4`` or `` the of``.

    ``size`` is the number of different tokens.
    """

    def __init__(self, size: int, spelling: Spelling, seed: int, salt: int, window: int) -> None:
        self._size, self._spelling = size, spelling
        self._seed, self._salt, self._window = seed, salt, window
        drawn = generator(POOL, seed, salt, window).integers(0, size, POOL_TOKENS)
        self._pool = _Spelled(spelling, drawn)
        self._prefixes: dict[tuple[int, int], _Spelled] = {}
        # A header is a number below size^digits, written in base ``size``: the request's own number times
        # a factor that shares no divisor with ``size`` (so no two are equal), near the golden section of
        # the whole (so all tokens are used alike).
        self._digits = max(1, math.ceil(HEADER_BITS / math.log2(max(2, size))))
        self._space = size**self._digits
        golden = (math.isqrt(5 * self._space * self._space) - self._space) // 2
        self._factor = next(f for f in range(golden, golden + size + 2) if math.gcd(f, size) == 1)
        start = generator(HEADERS, seed, salt).integers(0, 1 << 62)
        self._start = int(start) * (self._space >> 62) + (window << NUMBER_BITS + 1)

    def fresh(self, kind: int, number: int, count: int) -> list[Buffer]:
        """``count`` tokens that belong to the ``number``-th of this kind in this window, and to no other."""
        word = (self._start + (kind << NUMBER_BITS) + number) * self._factor % self._space
        digits = min(self._digits, count)
        header = []
        for _ in range(digits):
            word, digit = divmod(word, self._size)
            header.append(self._spelling.one(digit))
        # Golden steps: as many prompts as the pool has room for do not overlap at all.
        first = (number * 40503 + kind * 20173) % POOL_TOKENS
        return [b"".join(header), *self._pool.take(first, count - digits)]

    def prefix(self, group: int, wanted: int, count: int) -> list[Buffer]:
        """The first ``count`` of the ``wanted`` tokens that all windows of a seed share in this group."""
        known = self._prefixes.get((group, wanted))
        if known is None:
            stream = generator(PREFIXES, self._seed, self._salt, group)
            known = _Spelled(self._spelling, stream.integers(0, self._size, wanted))
            self._prefixes[group, wanted] = known
        return known.take(0, count)


class _Spelled:
    """Tokens written one after another, any stretch of them at no cost."""

    def __init__(self, spelling: Spelling, tokens: NDArray[np.int64]) -> None:
        text, lengths = spelling.all(tokens)
        self._starts = array("I", accumulate(lengths, initial=0))
        self._text = memoryview(text)
        self._count = len(tokens)

    def take(self, first: int, count: int) -> list[Buffer]:
        """``count`` tokens from the ``first`` on, beginning anew at the end."""
        parts: list[Buffer] = []
        while count > 0:
            stop = min(first + count, self._count)
            parts.append(self._text[self._starts[first] : self._starts[stop]])
            count -= stop - first
            first = 0
        return parts


class _Ids:
    """``,513,90``; the first token is the id ``low``."""

    def __init__(self, low: int) -> None:
        self._low = low

    def one(self, token: int) -> bytes:
        return b",%d" % (self._low + token)

    def all(self, tokens: NDArray[np.int64]) -> tuple[bytes, list[int]]:
        """A row of characters for each id: the comma, and as many of its digits as it has.  Written at once,
        since the first request of a run waits for it."""
        import numpy as np

        ids = tokens + self._low
        powers = 10 ** np.arange(len(str(ids.max(initial=0))) - 1, -1, -1)
        digits = (ids[:, None] // powers % 10 + ord("0")).astype(np.uint8)
        has_digit = ids[:, None] >= powers
        has_digit[:, -1] = True  # of 0 as well
        shown = np.insert(has_digit, 0, True, axis=1)
        rows = np.insert(digits, 0, ord(","), axis=1)
        return rows[shown].tobytes(), shown.sum(axis=1).tolist()


class _Words:
    """`` the of``."""

    def __init__(self) -> None:
        self._spelled = [f" {word}".encode() for word in WORDS]

    def one(self, token: int) -> bytes:
        return self._spelled[token]

    def all(self, tokens: NDArray[np.int64]) -> tuple[bytes, list[int]]:
        pieces = [self._spelled[token] for token in tokens.tolist()]
        return b"".join(pieces), list(map(len, pieces))


def of_ids(vocab_size: int, seed: int, salt: int, window: int) -> Prompts:
    """Prompts of token ids: ``,513,90``."""
    low, end = ordinary_ids(vocab_size)
    return Prompts(end - low, _Ids(low), seed, salt, window)


def of_words(seed: int, salt: int, window: int) -> Prompts:
    """Prompts of common words, about a token each: `` the of``."""
    return Prompts(len(WORDS), _Words(), seed, salt, window)


def joined(parts: Iterable[Buffer]) -> bytes:
    """The parts in one piece, without the separator before the first token."""
    return b"".join(parts)[1:]
