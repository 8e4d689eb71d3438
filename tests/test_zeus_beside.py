"""Our own probe's samples of a simulated board, read back; and Zeus on the same board at the same time."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.energy import zeus_beside
from benchmarks.energy.known_truth import Case
from benchmarks.energy.zeus_beside import Beside

RUNS = 5


def runs(case: Case, monitor: zeus_beside.Monitor | None) -> list[Beside]:
    return [zeus_beside.one(case, np.random.default_rng([7, number]), monitor) for number in range(RUNS)]


@pytest.mark.parametrize("period_s", [0.02, 0.1, 0.5])
def test_what_the_probe_writes_holds_the_true_energy(period_s: float) -> None:
    for each in runs(Case(10.0, period_s), None):
        assert abs(each.ours_frac) <= each.half_width_frac < 0.01


def test_zeus_on_the_same_board_is_further_off() -> None:
    pytest.importorskip("zeus", reason="zeus is not installed: pip install -e '.[energy-peers]'")
    done = runs(Case(3.0, 0.5), zeus_beside.zeus_monitor)
    ours, zeus = (
        np.abs(np.array(errors, float))
        for errors in zip(*((d.ours_frac, d.zeus_frac) for d in done), strict=True)
    )
    assert ours.mean() < 0.01
    # Its window is the difference of two readings, each up to a period old: 0.5 s of 3 s at most.
    assert 2 * ours.mean() < zeus.mean() < 0.5 / 3
