"""Is the true energy inside the interval that is printed?  Simulated boards, virtual time, exact truths.

    python -m benchmarks.energy.known_truth [--runs 200]

A window of 10, 30 or 60 s lies *inside* a load, as the window of steady serving does, or is the *whole* load
from its first moment to its last with idle around it, as a batch's is.  The load is a square wave or a sine
of 1 to 30 Hz and ±5 to ±40 % around 600 W, begun anywhere.  Counters update every 20, 100 or 500 ms and are
polled as the sampler does, late polls and missed ones included.  An *exact* counter shows the true energy of
its last update; *25/100* adds up a sensor that is on for 25 of every 100 ms.  *RAPL* is a CPU's counter, up
to date within a millisecond and read five times a second.  Where there are several boards they draw one load,
each has a counter and a sensor renewed at moments of their own, and all are polled together.

Beside ours, two methods without ticks, for the same runs: the counter as last read before each edge, polled
every 100 ms, and the mean of a power reading that is itself a 1 s average.  They print no interval, so they
are held against ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from profiler import energy
from profiler.nvml.curves import Constant, Curve, Sine, Square, Stretch

Floats = NDArray[np.float64]

LOAD_W, IDLE_W = 600.0, 110.0
MARGIN_S = 8.0
POWER_PERIOD_S = 0.1
RAPL_PERIOD_S, RAPL_RANGE_UJ = 0.2, 65_712_999_613.0
ADA, HOPPER = 8, 9


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    window_s: float
    period_s: float
    sensor_fed: bool = False
    whole: bool = False
    hz: tuple[float, float] = (1.0, 30.0)
    boards: int = 1

    @property
    def sensor_window_s(self) -> float:
        return 0.025 if self.sensor_fed else 0.1

    def __str__(self) -> str:
        kind = "25/100" if self.sensor_fed else "exact"
        hz = f"{self.hz[0]:g}–{self.hz[1]:g}" if self.hz[0] < self.hz[1] else f"{self.hz[0]:g}"
        where = "whole" if self.whole else "inside"
        return f"{kind:>7}  {self.period_s * 1e3:>9.0f}  {hz:>5}  {where:>6}  {self.window_s:>8.0f}"


CASES = [
    Case(window_s, period_s, sensor_fed, whole)
    for period_s, sensor_fed in ((0.02, False), (0.1, False), (0.5, False), (0.1, True))
    for whole in (False, True)
    for window_s in (10.0, 30.0, 60.0)
]
SEVERAL = [
    Case(10.0, period_s, sensor_fed, whole, boards=boards)
    for boards in (4, 8)
    for period_s, sensor_fed in ((0.1, False), (0.5, False), (0.1, True))
    for whole in (False, True)
]
# Loads that keep step with power samples taken every 100 ms: nothing that is sampled shows that they vary.
IN_STEP = [
    Case(10.0, period_s, sensor_fed, hz=(10.0, 10.0))
    for period_s, sensor_fed in ((0.02, False), (0.1, False), (0.5, False), (0.1, True))
]


@dataclass(frozen=True)
class Run:
    """The truth of one window, and what was made of it; errors are relative to the truth."""

    error_frac: float
    half_width_frac: float
    last_read_error_frac: float
    second_error_frac: float
    invalid: bool

    def inside(self, error_frac: float) -> bool:
        return abs(error_frac) <= self.half_width_frac


def scene(case: Case, rng: np.random.Generator) -> tuple[Curve, float, float]:
    """A power curve and the window in it, in seconds."""
    shape: Callable[[float, float, float], Curve] = Square if rng.random() < 0.5 else Sine
    load = shape(LOAD_W, float(rng.uniform(0.05, 0.4)), float(rng.uniform(*case.hz)))
    t0_s = MARGIN_S + float(rng.random())
    # No whole number of any board's periods: what an edge is off by must not cancel at the other.
    t1_s = t0_s + case.window_s + float(rng.random()) * 0.5
    lead_s, trail_s = (0.0, 0.0) if case.whole else rng.uniform(1.5, 3.0, 2)
    return Stretch(load, Constant(IDLE_W), t0_s - lead_s, t1_s + trail_s), t0_s, t1_s


def polls(period_s: float, end_s: float, rng: np.random.Generator) -> Floats:
    """When a sampler due at equal times reads: a little late, sometimes much, sometimes not at all."""
    due = np.arange(rng.random() * period_s, end_s, period_s)
    late = rng.exponential(0.0002, len(due)) + (rng.random(len(due)) < 0.01) * rng.uniform(0, 0.015, len(due))
    kept = rng.random(len(due)) >= 0.005
    return np.maximum.accumulate(due + late)[kept] + np.arange(kept.sum()) * 1e-9


class Board:
    """What a counter and its sensors show of ``curve``; their updates are up to 1 ms off their period."""

    def __init__(self, case: Case, curve: Curve, end_s: float, rng: np.random.Generator) -> None:
        self._true_j = np.vectorize(curve.energy_j, otypes=[np.float64])
        self._case = case
        self.ticks_s = self._updates(case.period_s, end_s, rng)
        self.counter_mj = np.floor(1e3 * (self._fed() if case.sensor_fed else self._true_j(self.ticks_s)))
        self.renewed_s = self._updates(POWER_PERIOD_S, end_s, rng)

    def read_mj(self, at_s: Floats) -> Floats:
        return self.counter_mj[np.searchsorted(self.ticks_s, at_s, side="right") - 1]

    def power_w(self, at_s: Floats, window_s: float) -> Floats:
        """The mean over ``window_s`` before the sensor's last update."""
        shown = self._mean_w(self.renewed_s, window_s)
        return shown[np.searchsorted(self.renewed_s, at_s, side="right") - 1]

    @staticmethod
    def _updates(period_s: float, end_s: float, rng: np.random.Generator) -> Floats:
        at = np.arange(-rng.random() * period_s, end_s, period_s)
        return at + rng.uniform(-0.0005, 0.0005, len(at))

    def _mean_w(self, end_s: Floats, window_s: float) -> Floats:
        return (self._true_j(end_s) - self._true_j(end_s - window_s)) / window_s

    def _fed(self) -> Floats:
        return np.cumsum(self._mean_w(self.ticks_s, self._case.sensor_window_s)) * self._case.period_s


def samples(case: Case, boards: list[Board], end_s: float, rng: np.random.Generator) -> pa.Table:
    """What the sampler writes: ticks with their spans, heartbeats, power, the architecture."""
    # No whole part of the counter's period either, so that polls and ticks do not keep step.
    at = polls(min(0.02, max(0.005, case.period_s / 5)) * float(rng.uniform(0.97, 1.03)), end_s, rng)
    power_at = polls(POWER_PERIOD_S, end_s, rng)
    return pa.concat_tables(
        [_of_board(case, board, f"gpu:GPU-{number}", at, power_at) for number, board in enumerate(boards)]
    )


def _of_board(case: Case, board: Board, source: str, at: Floats, power_at: Floats) -> pa.Table:
    shown = board.read_mj(at)
    ticked = np.flatnonzero(np.diff(shown) > 0) + 1
    beats = np.flatnonzero(np.diff(np.floor(at)) > 0)
    beats = beats[~np.isin(beats, ticked)]
    return rows(
        source,
        ("energy_mj", at[ticked], shown[ticked]),
        ("energy_mj", at[beats], shown[beats]),
        ("energy_seen_within_s", at[ticked], at[ticked] - at[ticked - 1]),
        ("power_w", power_at, board.power_w(power_at, case.sensor_window_s)),
        ("architecture", np.zeros(1), np.array([HOPPER if case.sensor_fed else ADA])),
        ("power_period_s", np.zeros(1), np.array([POWER_PERIOD_S])),
    )


def rows(source: str, *columns: tuple[str, Floats, Floats]) -> pa.Table:
    """The table of ``profiler.samples.read_samples`` from (name, times in s, values) of one source."""
    names = np.concatenate([np.full(len(at), name, dtype=object) for name, at, _ in columns])
    return pa.table(
        {
            "t_ns": pa.array(np.round(np.concatenate([at for _, at, _ in columns]) * 1e9).astype(np.int64)),
            "source": pa.array(np.full(len(names), source, dtype=object), pa.string()),
            "name": pa.array(names, pa.string()),
            "value": pa.array(np.concatenate([values for *_, values in columns])),
        }
    )


def one(case: Case, rng: np.random.Generator) -> Run:
    """Measure one window, in no time."""
    curve, t0_s, t1_s = scene(case, rng)
    end_s = t1_s + MARGIN_S
    boards = [Board(case, curve, end_s, rng) for _ in range(case.boards)]
    truth_j = case.boards * (curve.energy_j(t1_s) - curve.energy_j(t0_s))
    window_ns = round(t0_s * 1e9), round(t1_s * 1e9)
    reading = energy.gpu_energy(samples(case, boards, end_s, rng), *window_ns)
    if reading.energy_j is None or reading.statistical_j is None:
        raise RuntimeError(f"{case}: {reading.reason}")

    slow = polls(POWER_PERIOD_S, end_s, rng)
    edges_s = slow[np.searchsorted(slow, [t0_s, t1_s]) - 1]
    last_read = sum(float(np.diff(board.read_mj(edges_s))[0]) for board in boards) / 1e3
    within = slow[(slow >= t0_s) & (slow <= t1_s)]
    second_j = sum(float(board.power_w(within, 1.0).mean()) for board in boards) * (t1_s - t0_s)
    return Run(
        error_frac=reading.energy_j / truth_j - 1,
        half_width_frac=reading.statistical_j / reading.energy_j,
        last_read_error_frac=last_read / truth_j - 1,
        second_error_frac=second_j / truth_j - 1,
        invalid=reading.invalid is not None,
    )


def one_rapl(window_s: float, whole: bool, rng: np.random.Generator) -> tuple[float, float]:
    """Relative error and half-width of a CPU package's energy, its counter read every second."""
    curve, t0_s, t1_s = scene(Case(window_s, RAPL_PERIOD_S, whole=whole), rng)
    at = polls(RAPL_PERIOD_S, t1_s + MARGIN_S, rng)
    joules = np.vectorize(curve.energy_j)(np.floor(at * 1e3) / 1e3)
    counted = rows(
        "rapl:package-0",
        ("energy_uj", at, np.floor(joules * 2**14) / 2**14 * 1e6 % RAPL_RANGE_UJ),
        ("max_energy_range_uj", at, np.full(len(at), RAPL_RANGE_UJ)),
    )
    reading = energy.cpu_energy(counted, round(t0_s * 1e9), round(t1_s * 1e9))
    if reading.energy_j is None or reading.statistical_j is None:
        raise RuntimeError(f"RAPL: {reading.reason}")
    truth_j = curve.energy_j(t1_s) - curve.energy_j(t0_s)
    return reading.energy_j / truth_j - 1, reading.statistical_j / reading.energy_j


def runs_rapl(window_s: float, whole: bool, count: int, seed: int = 1) -> NDArray[np.float64]:
    """Rows of error and half-width."""
    return np.array(
        [one_rapl(window_s, whole, np.random.default_rng([seed, number])) for number in range(count)]
    )


def line_rapl(window_s: float, whole: bool, count: int) -> str:
    errors, widths = np.abs(runs_rapl(window_s, whole, count).T) * 100
    where = "whole" if whole else "inside"
    return (
        f"   RAPL  {RAPL_PERIOD_S * 1e3:>9.0f}   1–30  {where:>6}  {window_s:>8.0f} │ "
        f"{(errors <= widths).mean() * 100:>6.1f}  {widths.mean():>5.3f}  {errors.mean():>7.3f}"
        f"  {np.quantile(errors, 0.95):>6.3f}"
    )


def runs(case: Case, count: int, seed: int = 1) -> list[Run]:
    """``count`` runs of one case; the same again for the same seed."""
    return [one(case, np.random.default_rng([seed, number])) for number in range(count)]


def coverage(done: list[Run], errors: list[float]) -> float:
    """Share of runs whose error lies inside the interval printed for that run."""
    return sum(run.inside(error) for run, error in zip(done, errors, strict=True)) / len(done)


HEAD = (
    "                                        │ ours                                      "
    "│ last read         │ 1 s average\n"
    " sensor  period ms     Hz  window       s │ in ± %   ± %    error %  p95 %  invalid % "
    "│ in ± %   error %  │ in ± %   error %"
)


def line(case: Case, done: list[Run]) -> str:
    ours = [run.error_frac for run in done]
    last, second = [run.last_read_error_frac for run in done], [run.second_error_frac for run in done]

    def mean_pct(values: list[float]) -> float:
        return float(np.mean(np.abs(values))) * 100

    width = float(np.mean([run.half_width_frac for run in done])) * 100
    p95 = float(np.quantile(np.abs(ours), 0.95)) * 100
    invalid = np.mean([run.invalid for run in done]) * 100
    return (
        f"{case} │ {coverage(done, ours) * 100:>6.1f}  {width:>5.3f}  {mean_pct(ours):>7.3f}  {p95:>6.3f}"
        f"  {invalid:>9.1f} │ {coverage(done, last) * 100:>6.1f}  {mean_pct(last):>8.3f}"
        f" │ {coverage(done, second) * 100:>6.1f}  {mean_pct(second):>8.3f}"
    )


def lines(count: int) -> Iterator[str]:
    yield HEAD
    for case in CASES:
        yield line(case, runs(case, count))
    for whole in (False, True):
        for window_s in (10.0, 30.0, 60.0):
            yield line_rapl(window_s, whole, count)
    for boards, cases in groupby(SEVERAL, key=lambda case: case.boards):
        yield f"{boards} boards, one load"
        for case in cases:
            yield line(case, runs(case, count))
    yield "in step with the power samples (10 Hz exactly)"
    for case in IN_STEP:
        yield line(case, runs(case, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="simulated runs a case")
    arguments: Any = parser.parse_args()
    began_s = time.process_time()
    for each in lines(arguments.runs):
        print(each, flush=True)
    print(f"{arguments.runs} runs a case; {time.process_time() - began_s:.0f} s of CPU")


if __name__ == "__main__":
    main()
