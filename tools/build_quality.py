"""Rebuild ``profiler/catalog/quality.csv`` from the collected scores.

    python tools/build_quality.py quality.csv

The facts are kept; the 95 % interval is taken out of the text of the source into columns of its own, and
each benchmark gets its unit.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

CATALOG = Path(__file__).resolve().parent.parent / "profiler" / "catalog"
COLUMNS = ("model", "benchmark", "value", "low", "high", "unit", "date", "source")
INTERVAL = re.compile(r"\s*95%CI \[([\d.]+),([\d.]+)\]")


def row(fact: dict[str, str]) -> dict[str, str]:
    """One row of the catalog; raises ValueError for a score that cannot be."""
    bounds = INTERVAL.search(fact["source"])
    low, high = bounds.groups() if bounds else ("", "")
    value, unit = float(fact["score"]), unit_of(fact["benchmark"])
    if unit == "percent" and not 0 <= value <= 100:
        raise ValueError(f"{fact['model']} {fact['benchmark']}: {value} is no percentage")
    if bounds and not float(low) <= value <= float(high):
        raise ValueError(f"{fact['model']} {fact['benchmark']}: {value} lies outside [{low}, {high}]")
    source = INTERVAL.sub("", fact["source"])
    if not source or not fact["date"]:
        raise ValueError(f"{fact['model']} {fact['benchmark']}: no source or no date")
    kept = (fact["model"], fact["benchmark"], fact["score"], low, high, unit, fact["date"], source)
    return dict(zip(COLUMNS, kept, strict=True))


def unit_of(benchmark: str) -> str:
    if benchmark.startswith("lmarena_"):
        return "elo"
    return "points" if benchmark.startswith("MT-Bench") else "percent"


def main(facts: Path) -> None:
    with facts.open(newline="", encoding="utf-8") as file:
        rows = [row(fact) for fact in csv.DictReader(file)]
    with (CATALOG / "quality.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} scores")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
