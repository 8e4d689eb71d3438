"""The true energy of simulated loads lies in the interval that is printed; of other methods it does not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.energy import known_truth
from benchmarks.energy.known_truth import Case

CASES = [case for case in known_truth.CASES if case.window_s < 60]


def named(case: Case) -> str:
    return " ".join([*str(case).split(), *([f"{case.boards} boards"] if case.boards > 1 else [])])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_truth_is_inside_the_interval(case: Case) -> None:
    done = known_truth.runs(case, 40)
    errors = [run.error_frac for run in done]
    assert known_truth.coverage(done, errors) >= 0.95
    # …which is not so wide that it says nothing: what can be known is a period's energy at each edge.
    assert np.mean([run.half_width_frac for run in done]) < (
        0.035 if case.sensor_fed else 2 * case.period_s / case.window_s + 1e-3
    )
    if case.whole and not case.sensor_fed:
        last, second = [r.last_read_error_frac for r in done], [r.second_error_frac for r in done]
        assert known_truth.coverage(done, last) < 0.7
        assert known_truth.coverage(done, second) < 0.1
        assert np.mean(np.abs(errors)) < 0.7 * np.mean(np.abs(last))


@pytest.mark.parametrize("case", known_truth.SEVERAL, ids=named)
def test_the_truth_is_inside_the_interval_of_boards_that_draw_one_load(case: Case) -> None:
    done = known_truth.runs(case, 20)
    assert known_truth.coverage(done, [run.error_frac for run in done]) >= 0.95
    assert np.mean([run.half_width_frac for run in done]) < (
        0.02 if case.sensor_fed else 0.5 * case.period_s / case.window_s
    )


def test_a_load_in_step_with_a_sensor_that_is_mostly_off_is_beyond_it() -> None:
    """The limit that docs/energy.md states: no reading of such a sensor shows what it never samples."""
    done = known_truth.runs(known_truth.IN_STEP[-1], 20)
    assert known_truth.coverage(done, [run.error_frac for run in done]) < 0.5


@pytest.mark.parametrize("whole", [False, True])
def test_the_truth_is_inside_the_interval_of_a_cpu_counter(whole: bool) -> None:
    error, half_width = known_truth.runs_rapl(30.0, whole, 60).T
    assert (np.abs(error) <= half_width).mean() >= 0.95
    assert half_width.mean() < 0.06
