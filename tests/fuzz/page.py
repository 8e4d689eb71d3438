"""The record of the fuzzing as a table, on a terminal and in Markdown."""

from __future__ import annotations

from typing import Any

HEADER = (
    *("target", "executions", "per second", "edges", "features", "corpus", "faults found", "slowest call"),
    "peak memory",
)


def rows(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row a target, and their sum."""
    found = [_row(name, told) for name, told in record["targets"].items()]
    runs = [run for told in record["targets"].values() for run in told["runs"]]
    executions, seconds = (sum(run[key] for run in runs) for key in ("executions", "seconds"))
    faults = sum(len(told["faults"]) for told in record["targets"].values())
    every = ("all", f"{executions:,}", _per_s(executions, seconds), "", "", "", str(faults), "", "")
    return [*found, every]


def _row(name: str, told: dict[str, Any]) -> tuple[str, ...]:
    executions, seconds = (sum(run[key] for run in told["runs"]) for key in ("executions", "seconds"))
    return (
        name,
        f"{executions:,}",
        _per_s(executions, seconds),
        *(f"{told[key]:,}" for key in ("edges", "features", "corpus")),
        str(len(told["faults"])),
        f"{1e3 * max(run['slowest_s'] for run in told['runs']):,.0f} ms",
        f"{max(run['peak_rss_mb'] for run in told['runs']):,} MB",
    )


def _per_s(executions: int, seconds: float) -> str:
    return f"{executions / seconds:,.0f}" if seconds else "n/a"


def lines(record: dict[str, Any]) -> list[str]:
    """The section of ``docs/reliability.md``."""
    runs = [run for told in record["targets"].values() for run in told["runs"]]
    last = {name: told["runs"][-1]["faults"] for name, told in record["targets"].items()}
    open_ = [name for name, faults in last.items() if faults]
    limits, states = record["limits"], len({run["commit"] for run in runs})
    return [
        "## Fuzzing",
        "",
        f"`{record['command']}`, last on {record['utc'][:10]}, Python {record['machine']['python']}, atheris "
        f"{record['machine']['atheris']}: {sum(run['executions'] for run in runs):,} executions in "
        f"{sum(run['seconds'] for run in runs) / 3600:.1f} hours of one process, over "
        f"{states} state{'s' if states > 1 else ''} of the code. A call may take {limits['call_s']} s, "
        f"the process {limits['memory_mb']:,} MB. Whatever leaves a parser but a result or an expected error "
        "is a fault, and so is a result that breaks what is always true of one. The inputs that brought "
        "faults are in `tests/fuzz/found`; the normal suite tries them again.",
        "",
        f"In the last run of each target: {_open(open_)}.",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{'|'.join(['---', *['---:'] * (len(HEADER) - 1)])}|",
        *(f"| {' | '.join(row)} |" for row in rows(record)),
    ]


def _open(names: list[str]) -> str:
    return f"faults in {', '.join(names)}" if names else "no fault, no hang, no limit reached"


def table(record: dict[str, Any]) -> str:
    """The same for a terminal."""
    every = [HEADER, *rows(record)]
    widths = [max(len(row[place]) for row in every) for place in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in every
    )
