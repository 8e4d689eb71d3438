"""The tables of docs/statistics.md, in Markdown.  Run: ``python -m benchmarks.statistics [TRIALS [TABLE…]]``.

Every figure comes of the judge that ``profile claims`` asks.  The seed is fixed; a table is the same each
time, and its Monte-Carlo error stands above it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks.statistics import court, experiments, stopping
from benchmarks.statistics.worlds import World

TRIALS = 4000
STARTS = (3, 4, 5, 8, 10)
SPREADS = (0.0, 0.005, 0.01, 0.02, 0.03)
LOOKS = {1: (8,), 2: (4, 8), 3: (3, 6, 8)}
# Every way in which starts may be unlike what the t interval takes them to be.
ADVERSE: dict[str, World] = {
    "as assumed, 2 %": World(),
    "baseline scatters 0.5 %, subject 3 %": World(start_sd=0.03, baseline_sd=0.005),
    "clocks sink by 5 %, sides in turns": World(drift=-0.05),
    "clocks sink by 5 %, subject first": World(drift=-0.05, blocks=False),
    "the machine wanders by 1 % a start, sides in turns": World(walk=0.01),
    "the machine wanders by 1 % a start, subject first": World(walk=0.01, blocks=False),
    "one start of all is 15 % slower": World(outlier=-0.15),
    "every start in one of two modes, 8 % apart": World(modes=(0.0, -0.08), start_sd=0.005, window_sd=0.01),
    "heavy tails (Student, 3 degrees of freedom)": World(heavy=3),
    "no scatter at all": World(start_sd=0.0, window_sd=0.0),
    "scatter of 0.1 %, figures rounded to three digits": World(start_sd=0.001, window_sd=0.0, digits=3),
    "windows correlated by 0.95": World(phi=0.95, start_sd=0.01),
}


def shares(*values: float) -> str:
    return " | ".join(f"{value:.1%}" for value in values)


def head(title: str, columns: Sequence[str], trials: int, share: float) -> Iterator[str]:
    """``share``: the one whose Monte-Carlo error is told."""
    yield f"\n### {title}\n"
    wide = 2 * experiments.error(share, trials)
    yield f"{trials:,} trials a row; a share of {share:.0%} is known to ± {wide:.1%} (two standard errors).\n"
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "--:|" * len(columns)


def coverage(rng: np.random.Generator, trials: int) -> Iterator[str]:
    columns = (
        "starts a side", "start-to-start sd", "95 % interval", "half width", "Fieller",
        "98 % interval of no trial", "windows pooled",
    )  # fmt: skip
    yield from head("Coverage of the 95 % interval", columns, trials, 0.95)
    for starts in STARTS:
        for spread in SPREADS:
            world = World(start_sd=spread)
            found = experiments.coverage(rng, trials, world, starts)
            pooled = experiments.pooled_coverage(rng, trials, world, starts)
            yield (
                f"| {starts} | {spread:.1%} | {shares(found.judge)} | ± {found.half_width:.1%} | "
                f"{shares(found.fieller, found.of_no_trial)} | {pooled:.0%} |"
            )


def on_the_margin(rng: np.random.Generator, trials: int) -> Iterator[str]:
    columns = ("claim", "starts a side", "said supported", "said refuted or direction only")
    yield from head("On the margin: the truth is exactly at the claim's bar", columns, trials, 0.05)
    asked = {
        "more": court.claim(),
        "more than 1.74 ×": court.claim(factor=1.74),
        "less": court.claim("less"),
        "equal": court.claim("equal", margin=0.05),
        "about 1.74 ×": court.claim("about", 1.74, margin=0.05),
    }
    for name, claim in asked.items():
        for starts in (3, 5, 10):
            found = experiments.wrong(rng, trials, claim, World(), starts)
            yield f"| {name} | {starts} | {shares(found.supported, found.refuted)} |"


def looked_at_often(rng: np.random.Generator, trials: int) -> Iterator[str]:
    columns = ("looks", "start-to-start sd", "said supported", "said refuted or direction only")
    yield from head("On the margin, looked at more than once", columns, trials, 0.05)
    margin = court.on_the_margin(court.claim())[0]
    for spread in (0.0, 0.02, 0.03):
        for looks in LOOKS.values():
            found = experiments.trial(rng, trials, court.claim(), World(start_sd=spread), margin, looks)
            words = "trial, looks at " + ", ".join(map(str, looks)) + " starts"
            yield f"| {words} | {spread:.0%} | {shares(found.supported, found.refuted)} |"
    for last in (8, 20):
        for looks, words in ((None, "no trial"), (court.ONCE, "the same with a 95 % interval each time")):
            share = experiments.peeking(rng, trials // 2, World(), last, looks)
            yield f"| {words}, after each of 3 to {last} starts | 2% | {shares(share)} | |"


def families(rng: np.random.Generator, trials: int) -> Iterator[str]:
    columns = (
        "cells on the margin", "cells beyond it by 15 %", "any of the first said supported",
        "the claim said supported", "of the others found",
    )  # fmt: skip
    yield from head("Several cells: Holm's family, 5 starts a side", columns, trials // 2, 0.05)
    for null, true in ((1, 0), (4, 0), (14, 0), (1, 3), (1, 13), (7, 7), (0, 14)):
        found = experiments.family(rng, trials // 2, World(start_sd=0.01), 5, null, true)
        yield f"| {null} | {true} | {shares(*found)} |"


def unlike(rng: np.random.Generator, trials: int) -> Iterator[str]:
    columns = (
        "starts of the subject", "of the baseline", "sd of the subject", "of the baseline", "95 % interval",
        "on the margin: said supported", f"any of {experiments.CELLS} cells on the margin",
    )  # fmt: skip
    trials //= 4
    yield from head("Sides that are unlike", columns, trials, 0.05)
    for starts in ((3, 10), (10, 3), (5, 10), (3, 3), (5, 5), (10, 10)):
        for spreads in ((0.02, 0.02), (0.05, 0.01), (0.01, 0.05)):
            world = World(start_sd=spreads[0], baseline_sd=spreads[1], window_sd=0.0)
            found = experiments.unlike(rng, trials, world, starts)
            yield f"| {starts[0]} | {starts[1]} | {spreads[0]:.0%} | {spreads[1]:.0%} | {shares(*found)} |"


def powers(rng: np.random.Generator, trials: int) -> Iterator[str]:
    columns = ("start-to-start sd", "true ratio beyond the bar by", "starts planned a side", "found")
    yield from head("Power: starts planned for 80 %", columns, trials, 0.8)
    for spread in (0.01, 0.02, 0.03):
        for distance in (0.03, 0.05, 0.1):
            planned, found = experiments.power(rng, trials, World(start_sd=spread), distance)
            yield f"| {spread:.0%} | {np.expm1(distance):.1%} | {planned} | {shares(found)} |"


def looks_pay(rng: np.random.Generator, trials: int) -> Iterator[str]:
    columns = (
        "true ratio beyond the bar by", "looks at", "supported", "refuted or direction only", "undecided",
        "starts a side",
    )  # fmt: skip
    yield from head(
        "What looks save: a trial of 8 starts a side, starts scatter by 2 %", columns, trials, 0.8
    )
    for beyond in (-0.1, -0.03, 0.0, 0.03, 0.06, 0.15):
        for looks in (LOOKS[1], LOOKS[3]):
            ratio = court.on_the_margin(court.claim())[0] * float(np.exp(beyond))
            found = experiments.trial(rng, trials, court.claim(), World(), ratio, looks)
            words = ", ".join(map(str, looks))
            yield f"| {np.expm1(beyond):.1%} | {words} | {shares(*found[:3])} | {found.starts:.1f} |"


def adverse(rng: np.random.Generator, trials: int) -> Iterator[str]:
    columns = ("world", "starts a side", "95 % interval", "half width", "on the margin: said supported")
    yield from head("Adverse worlds", columns, trials, 0.95)
    for name, world in ADVERSE.items():
        for starts in (2, 3, 5, 10):
            found = experiments.coverage(rng, trials, world, starts)
            wide = f"± {found.half_width:.1%}"
            false = experiments.wrong(rng, trials, court.claim(), world, starts).supported
            yield f"| {name} | {starts} | {shares(found.judge)} | {wide} | {shares(false)} |"


def crossings(rng: np.random.Generator, trials: int) -> Iterator[str]:
    columns = (
        "starts a side", "start-to-start sd", "said supported", "said refuted", "crossover named",
        "its interval holds 11", "high / low",
    )  # fmt: skip
    title = "A crossover at batch 11 inside the grid 1, 2, 4, …, 128"
    yield from head(title, columns, trials // 4, 0.95)
    for starts in (3, 5, 8):
        for spread in (0.01, 0.03):
            found = experiments.crossing(rng, trials // 4, World(start_sd=spread), starts)
            yield f"| {starts} | {spread:.0%} | {shares(*found[:4])} | {found.width:.2f} |"


Table = Callable[[np.random.Generator, int], Iterator[str]]
TABLES: tuple[Table, ...] = (
    coverage, on_the_margin, looked_at_often, families, unlike, powers, looks_pay, adverse, crossings,
    stopping.adaptive_runs,
)  # fmt: skip


def main(trials: int, names: Sequence[str] = ()) -> None:
    for number, table in enumerate(TABLES):
        if names and table.__name__ not in names:
            continue
        began = time.perf_counter_ns()
        with court.without_advice():
            for line in table(np.random.default_rng(number), trials):
                print(line, flush=True)
        print(f"{table.__name__}: {(time.perf_counter_ns() - began) / 1e9:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS, sys.argv[2:])
