"""Several tests at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that rejecting those ≤ α errs in no more than a share α of families
    (Holm, Scandinavian Journal of Statistics 6, 1979); in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = worst
    return adjusted


def rejected(p_values: Sequence[float], level: Callable[[int], float]) -> list[bool]:
    """Which of a family to reject, step by step (Holm), where the level is no plain α/m: at one look of
    a trial it is the nominal level of α/m there (Maurer & Bretz, Statistics in Biopharmaceutical Research 5,
    2013).  ``level(m)``: of one test out of ``m`` that are left; in the order given.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    found = [False] * len(p_values)
    for rank, place in enumerate(order):
        if p_values[place] > level(len(p_values) - rank):
            break
        found[place] = True
    return found
