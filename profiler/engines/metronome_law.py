"""When the metronome emits what: all due instants of an answer, fixed when its request arrives.

Request number k, complete in our hands at ``arrived``, is answered in chunks of ``tokens_per_chunk`` tokens::

    due_0     = arrived + ttft_s · u
    due_(i+1) = due_i + itl_s · u_i · (heavy_factor with probability heavy_frac, else 1)

with u, u_i uniform on [1 − jitter_frac, 1 + jitter_frac], drawn from (seed, k).
"""

from __future__ import annotations

from array import array
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from profiler.errors import InputError

Span = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]

POOL = 1 << 18  # the most chunks one answer can have
STRIDE = 104_729  # a prime: offsets of successive requests into the pool, all different before they repeat


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The law's constants; see the module's formulas."""

    ttft_s: Span = 0.1
    itl_s: Span = 0.02
    jitter_frac: Fraction = 0.0
    heavy_frac: Fraction = 0.0
    heavy_factor: Span = 10.0
    tokens_per_chunk: Annotated[int, Meta(ge=1)] = 1
    seed: Annotated[int, Meta(ge=0)] = 0


class Plans:
    """The due instants of all requests, cut from one pool of cumulated gaps made beforehand."""

    def __init__(self, settings: Settings) -> None:
        import numpy as np

        rng = np.random.default_rng(settings.seed)
        low, high = 1 - settings.jitter_frac, 1 + settings.jitter_frac
        gaps_s = settings.itl_s * rng.uniform(low, high, POOL)
        gaps_s[rng.random(POOL) < settings.heavy_frac] *= settings.heavy_factor
        self._sums_ns = np.rint(np.cumsum(np.tile(gaps_s, 2)) * 1e9).astype(np.int64)
        self._firsts_ns = array(
            "q", np.rint(settings.ttft_s * rng.uniform(low, high, POOL) * 1e9).astype(int)
        )

    def due_ns(self, number: int, chunks: int, arrived_ns: int) -> array[int]:
        """When each of at most ``POOL`` chunks of the request of this number is due."""
        place = number * STRIDE % POOL
        first_ns = arrived_ns + self._firsts_ns[place]
        if chunks == 1:
            return array("q", (first_ns,))
        sums_ns = self._sums_ns[place : place + chunks]
        due_ns = array("q")
        due_ns.frombytes((sums_ns + (first_ns - int(sums_ns[0]))).tobytes())
        return due_ns


def parse(text: str) -> Settings:
    """Settings from JSON; InputError says what is wrong with it."""
    try:
        return msgspec.json.decode(text, type=Settings)
    except msgspec.MsgspecError as error:
        raise InputError(f"settings of the metronome: {error}") from None
