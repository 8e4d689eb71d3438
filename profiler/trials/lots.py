"""What a trial holds, and in which order: decided by lot before anything is measured."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from profiler.claims.law import FEWEST_STARTS
from profiler.claims.ledger import Block, Leg
from profiler.claims.nouns import Cell, Claim

Pair = tuple[Leg, Leg]


def looks_at(starts: int, looks: int) -> tuple[int, ...]:
    """At how many starts a side a trial is looked at: evenly, the last time at the end, and never before
    there are enough for a verdict.

    >>> looks_at(8, 3)
    (3, 6, 8)
    """
    most = max(FEWEST_STARTS, starts)
    return tuple(sorted({max(FEWEST_STARTS, math.ceil(most * part / looks)) for part in range(1, looks + 1)}))


def pairs(claim: Claim) -> tuple[Pair, ...]:
    """Both sides at each pair of lengths that the claim has cells of; a side that says how long its own
    answers are has those."""
    lengths = dict.fromkeys((cell.input_tokens, cell.output_tokens) for cell in claim.grid())
    return tuple(
        (
            Leg(side="subject", input_tokens=before, output_tokens=claim.subject.output_tokens or after),
            Leg(side="baseline", input_tokens=before, output_tokens=claim.baseline.output_tokens or after),
        )
        for before, after in lengths
    )


def batches(claim: Claim, leg: Leg) -> tuple[int, ...]:
    """Requests in flight of all cells that this leg is for; 1 where the claim names none."""
    models = claim.subject if leg.side == "subject" else claim.baseline

    def is_its(cell: Cell) -> bool:
        after = models.output_tokens or cell.output_tokens
        return (cell.input_tokens, after) == (leg.input_tokens, leg.output_tokens)

    return tuple(sorted({cell.batch or 1 for cell in claim.grid() if is_its(cell)}))


def block(of: Sequence[Pair], seed: int, number: int) -> Block:
    """The ``number``-th block (from 0): pairs in random order, the sides of each next to each other, which of
    them first by lot.  Every second block is the reverse of the one before, so that over each two of them
    no side was first more often and a steady drift meets both alike."""
    draw = random.Random(f"{seed}/{number // 2}")  # noqa: S311 (reproducible on purpose)
    drawn: list[Leg] = []
    for pair in draw.sample(list(of), len(of)):
        drawn += draw.sample(pair, 2)
    return Block(order=tuple(reversed(drawn) if number % 2 else drawn))
