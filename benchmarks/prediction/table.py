"""The accuracy of prediction, printed and written into docs/prediction.md between its markers.

python -m benchmarks.prediction.table [--no-write]     # two minutes on one core
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.prediction import outside, rows, rules
from benchmarks.prediction.fit import CHECKED, Miss, fitted_to, left_out, misses, points, scores
from profiler.predict import fitted
from profiler.predict.calibrate import calibrate
from profiler.predict.nouns import Point
from profiler.predict.posterior import NAMES as NAMED
from profiler.predict.posterior import priors

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "prediction.md"
NAMES = {
    "itl_s_p50": "ITL",
    "output_tokens_per_s": "tokens/s",
    "power_w_mean": "power",
    "energy_j_per_output_token": "J/token",
}
BANDS = ((8, 8), (16, 16), (32, 32), (64, 64), (96, 128), (192, 256), (384, 512), (768, 1024))
Known = Sequence[tuple[rows.Row, Point]]


def mape(missed: Iterable[Miss], metric: str) -> float | None:
    """Mean of |predicted / measured − 1|, in per cent."""
    errors = [abs(np.expm1(each.log_ratio)) for each in missed if each.metric == metric]
    return 100 * float(np.mean(errors)) if errors else None


def line(name: str, missed: Sequence[Miss], *more: str) -> str:
    cells = [_percent(mape(missed, metric)) for metric in CHECKED]
    return "| " + " | ".join([name, str(len(missed) // len(CHECKED)), *cells, *more]) + " |"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


HEAD = "| | rows | " + " | ".join(NAMES.values()) + " |"
RULE = "|---|--:|" + "--:|" * len(NAMES)


def by_model(missed: Sequence[Miss]) -> Iterator[str]:
    yield HEAD
    yield RULE
    names = dict.fromkeys((each.row.name, each.row.tensor, each.row.expert) for each in missed)
    for name, tensor, expert in names:
        own = [m for m in missed if (m.row.name, m.row.tensor, m.row.expert) == (name, tensor, expert)]
        split = f", TP {tensor}" * (tensor > 1) + f", EP {expert}" * (expert > 1)
        yield line(name + split, own)
    dense = [each for each in missed if "A3B" not in each.row.name]
    moe = [each for each in missed if "A3B" in each.row.name]
    yield line("**dense, all**", dense)
    yield line("**MoE, zero-shot** (no MoE row in the fit)", moe)


def by_batch(missed: Sequence[Miss]) -> Iterator[str]:
    yield HEAD.replace("| |", "| batch |", 1)
    yield RULE
    for low, high in BANDS:
        own = [each for each in missed if low <= (each.row.concurrency or 0) <= high]
        yield line(str(low) if low == high else f"{low}–{high}", own)


def coverage(known: Known, missed: dict) -> Iterator[str]:
    """Each model's rows against intervals scored on the others, which were fitted without it."""
    yield "| | " + " | ".join(NAMES.values()) + " |"
    yield "|---|" + "--:|" * len(NAMES)
    hits: dict[tuple[bool, str], list[bool]] = {}
    for shape, own in missed.items():
        scale = scores(left_out(known, but=[shape]))
        for each in own:
            key = ("A3B" in each.row.name, each.metric)
            hits.setdefault(key, []).append(abs(each.log_ratio) <= scale[each.metric] * each.sd)
    for moe, name in ((False, "dense"), (True, "MoE, zero-shot")):
        yield (
            f"| {name} | "
            + " | ".join(f"{100 * np.mean(hits[moe, metric]):.0f} %" for metric in CHECKED)
            + " |"
        )
    every = {metric: hits[False, metric] + hits[True, metric] for metric in CHECKED}
    yield "| **all** | " + " | ".join(f"{100 * np.mean(every[metric]):.0f} %" for metric in CHECKED) + " |"


def two_points(known: Known, moe: bool) -> list[Miss]:
    """A model's other rows after two of its rows on the fewest GPUs: the smallest batch and each other one.
    The fit before is without the model."""
    found = []
    for shape in dict.fromkeys(point.what.shape for _, point in known):
        own = [pair for pair in known if pair[1].what.shape == shape]
        if own[0][1].what.routes != moe:
            continue
        base = fitted_to([point for _, point in known if point.what.shape != shape])
        fewest = min(row.tensor for row, _ in own)
        first, *others = sorted(
            (each for each in own if each[0].tensor == fewest), key=lambda e: e[0].batch_seen
        )
        for second in others:
            given = calibrate([first[1], second[1]], base)
            found += misses([each for each in own if each not in (first, second)], given)
    return found


def by_rule(known: Known) -> Iterator[str]:
    names = ("experts a step touches", "zero-shot ITL", "tokens/s", "J/token", "two points: ITL", "tokens/s")
    yield "| " + " | ".join((*names, "all points: ITL")) + " |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    dense = [pair for pair in known if not pair[1].what.routes]
    base = fitted_to([point for _, point in dense])
    for name in rules.RULES:
        moe = [(row, rules.seen_by(name, point)) for row, point in known if point.what.routes]
        with rules.in_force(name):
            zero = misses(moe, base)
            two = []
            for pair in itertools.combinations([each for each in moe if each[0].tensor == 1], 2):
                two += misses(
                    [each for each in moe if each not in pair], calibrate([p for _, p in pair], base)
                )
            whole = misses(moe, calibrate([point for _, point in moe], base))
        cells = [
            mape(zero, metric) for metric in ("itl_s_p50", "output_tokens_per_s", "energy_j_per_output_token")
        ]
        cells += [mape(two, "itl_s_p50"), mape(two, "output_tokens_per_s"), mape(whole, "itl_s_p50")]
        yield f"| {name} | " + " | ".join(map(_percent, cells)) + " |"


def sensitivity() -> Iterator[str]:
    yield HEAD.replace("| |", "| assumed |", 1)
    yield RULE
    for prompt, spread in ((125, 0.7), (250, 0.7), (500, 0.7), (250, 0.0), (250, 1.0)):
        missed = left_out(points(input_tokens=float(prompt), output_cv=spread))
        dense = [each for group in missed.values() for each in group if "A3B" not in each.row.name]
        yield line(f"prompts of {prompt}, output CV {spread}", dense)


def coefficients() -> Iterator[str]:
    yield "| coefficient | fitted | ± (log) | prior | unit | what it is |"
    yield "|---|--:|--:|--:|---|---|"
    made = fitted()
    for place, name in enumerate(NAMED):
        prior = priors()[name]
        value, sd = np.exp(made.log_mean[place]), made.covariance[place][place] ** 0.5
        cells = [f"`{name}`", f"{value:.3g}", f"{sd:.2f}", f"{prior.value:.3g} ± {prior.spread}"]
        yield "| " + " | ".join([*cells, prior.unit, prior.meaning]) + " |"


def sections(wanted: Sequence[str]) -> Iterator[tuple[str, Iterator[str]]]:
    """Those named, or all; each is worked out when its lines are asked for."""
    known = points()
    missed = left_out(known)
    flat = [each for group in missed.values() for each in group]

    def two() -> Iterator[str]:
        yield HEAD
        yield RULE
        for name, moe in (("dense", False), ("MoE", True)):
            found = two_points(known, moe)
            fewest = {name: min(m.row.tensor for m in flat if m.row.name == name) for name in _names(flat)}
            for split, same in (("same GPUs", True), ("more GPUs", False)):
                chosen = [each for each in found if (each.row.tensor == fewest[each.row.name]) == same]
                yield line(f"{name}, after two points, {split}", chosen)

    every: dict[str, Callable[[], Iterator[str]]] = {
        "coefficients": coefficients,
        "lomo": lambda: by_model(flat),
        "batch": lambda: by_batch(flat),
        "two": two,
        "coverage": lambda: coverage(known, missed),
        "rules": lambda: by_rule(known),
        "assumed": sensitivity,
        "outside": lambda: outside.lines(fitted()),
    }
    for name, lines in every.items():
        if not wanted or name in wanted:
            yield name, lines()


def _names(missed: Sequence[Miss]) -> list[str]:
    return list(dict.fromkeys(each.row.name for each in missed))


def write(name: str, text: str) -> None:
    """Between ``<!-- name -->`` and ``<!-- /name -->``."""
    document = DOCUMENT.read_text(encoding="utf-8")
    found, count = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
        lambda m: m[1] + text + "\n" + m[2],
        document,
        flags=re.S,
    )
    assert count == 1, f"docs/prediction.md has no place for {name}"
    DOCUMENT.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("sections", nargs="*")
    wanted = parser.parse_args()
    for name, lines in sections(wanted.sections):
        text = "\n".join(lines)
        print(f"\n{name}\n{text}", flush=True)
        if not wanted.no_write:
            write(name, text)
