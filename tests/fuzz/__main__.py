"""``python -m tests.fuzz [TARGET …] [--seconds S | --runs N]``: S seconds or N executions of each target.

Needs atheris (``make fuzz`` installs it).  Exit code 1 where a target has a fault in this run.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys

import msgspec

from tests.fuzz import campaign
from tests.fuzz.campaign import Standing
from tests.fuzz.page import table
from tests.fuzz.targets import TARGETS
from tests.harden import page


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the parsers.")
    parser.add_argument("target", nargs="*", help=f"of {', '.join(TARGETS)}; all if none is named")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    limit.add_argument("--runs", type=int, help="executions of each target")
    parser.add_argument("--fresh", action="store_true", help="forget the figures of earlier runs")
    given = parser.parse_args()
    if unknown := [name for name in given.target if name not in TARGETS]:
        parser.error(f"no such target: {', '.join(unknown)} (there are: {', '.join(TARGETS)})")
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed here; `make fuzz` does that")
    limits = [f"-max_total_time={given.seconds}"] if given.runs is None else [f"-runs={given.runs}"]
    standings = {} if given.fresh else campaign.before()
    for name in given.target or TARGETS:
        standing = standings.setdefault(name, Standing(runs=[]))
        print(f"{name} …", end=" ", flush=True)
        campaign.fuzz(TARGETS[name], standing, limits)
        run = standing.runs[-1]
        print(f"{run.executions:,} executions in {run.seconds:.0f} s, {run.faults} faults", flush=True)
        campaign.keep(standings, TARGETS, "make fuzz")
    page.write()
    record = msgspec.to_builtins(msgspec.json.decode(campaign.RECORD.read_bytes()))
    print(table(record))
    return int(any(standings[name].runs[-1].faults for name in given.target or TARGETS))


if __name__ == "__main__":
    sys.exit(main())
