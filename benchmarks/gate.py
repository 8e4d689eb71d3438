"""How often ``profile gate`` fails, passes or cannot tell, by starts a side and true change.

Simulated: 12 cells (4 metrics × 3 loads), starts scatter by 2 % around each side's mean, one cell is truly
worse by the change named, the limit is 5 %.  Run: ``python -m benchmarks.gate``.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from profiler.gate import judge
from profiler.gate.nouns import Limits, Pair, Report, Side, Subject

METRICS = ("output_tokens_per_s", "ttft_s_p50", "itl_s_p50", "memory_peak_bytes")
LOADS = ("closed 1", "closed 8", "closed 32")
SPREAD, LIMIT, TRIALS = 0.02, 0.05, 500


def side(rng: np.random.Generator, starts: int) -> Side:
    values = {name: [float(x) for x in np.exp(rng.normal(0, SPREAD, starts))] for name in METRICS}
    return Side(values=values, requests=100)


def verdict(rng: np.random.Generator, starts: int, change: float) -> str:
    """Of one gate in which the first load's TTFT is worse by ``change``."""
    pairs = []
    for load in LOADS:
        new, base = side(rng, starts), side(rng, starts)
        if load == LOADS[0]:
            new.values["ttft_s_p50"] = [value * (1 + change) for value in new.values["ttft_s_p50"]]
        subject = Subject(model="m", scenario="s", load=load)
        pairs.append(Pair(subject=subject, new=new, base=base, replica="starts"))
    cells = judge.cells(pairs, Limits(of=dict.fromkeys(METRICS, LIMIT)))
    return Report(cells=tuple(cells)).verdict


def main() -> None:
    rng = np.random.default_rng(0)
    print("| starts a side | true change | fail | undecided | pass |\n|--:|--:|--:|--:|--:|")
    for starts in (3, 5, 10, 20):
        for change in (0.0, 0.05, 0.1, 0.15, 0.2):
            found = Counter(verdict(rng, starts, change) for _ in range(TRIALS))
            shares = (f"{found[name] / TRIALS:.1%}" for name in ("fail", "undecided", "pass"))
            print(f"| {starts} | {change:.0%} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
