"""Trials of claims: planned before anything is measured, held in random blocks of fresh engine starts,
looked at as planned, and ended by a verdict, by futility or by the budget.

``outline`` says what a trial will take, ``hold`` holds it, ``ruling`` judges what it saw.  What it did is in
``claims.ledger``; text is made by ``report.trials``.
"""

from __future__ import annotations

from profiler.claims.ledger import Block, Trial
from profiler.trials import lots
from profiler.trials.asking import Asked, Outline, outline
from profiler.trials.holding import Event, hold, ruling
from profiler.trials.pace import left_s

__all__ = ["Asked", "Event", "Outline", "blocks", "hold", "left_s", "outline", "ruling"]


def blocks(trial: Trial) -> list[Block]:
    """All blocks of a trial as they are, or will be, drawn."""
    pairs = lots.pairs(trial.claim)
    return [lots.block(pairs, trial.seed, number) for number in range(trial.most)]
