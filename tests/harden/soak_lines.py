"""The record of a soak in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

NOT_TOLD = "n/a"
INTRODUCTION = """\
Real runs, one after another: a metronome whose emissions are known at half of what the client can take, in
many windows and in one long one; the same at all of it with a client that is given half the CPU it needs; a
simulated engine asked for twice what it can answer. Once a second another process looks at the memory, files
and threads of every process of the run.

Slopes are least squares over equal blocks of time, without the first fifth of a run and the first three
windows; the 95 % intervals allow for blocks that are like their neighbours. Of many windows each is a block
of memory, by the least that was held while it was steady: a queue and a window's record come and go, a leak
stays. Of timing a block is 15 s, and one further from the line than three usual distances counts as that far:
a moment in which the machine stood still is not a drift. *Flat*: all of the interval lies within the bound,
and above it by no more than is explained: by the metronome's own record (16 bytes a chunk until a window is
over) and the client's notes of its own lateness (2.5 MiB an hour of a window). The peak is that of the whole
run: the driver has it when it reads all requests for the table. Files and threads are those of a window's
steady part, in the first half of the windows and in the second.
"""
PROCESSES = (
    "run",
    "process",
    "MiB, first → last",
    "peak",
    "MiB per hour [95 %]",
    "explained",
    "bound",
    "n",
    "memory",
)
COUNTS = ("open files", "threads")
TIMING = ("run", "against", "chunks", "p50, first → last", "p50 per hour [95 %]", "p99, first → last")
TIMING_VERDICTS = ("p99 per hour [95 %]", "p50 and p99")
RUNS = ("run", "windows", "minutes", "chunks/s asked → came", "requests", "client-bound", "exit code", "held")


def lines(record: dict[str, Any]) -> list[str]:
    """Markdown of its section."""
    machine, (least, middle, most) = record["machine"], record["machine"]["load"]
    verdict = "Not all held" if record["failures"] else "All held"
    if not record["failures"] and record["undecided"]:
        verdict = "Nothing failed, but not all could be told"
    said = [
        "## An hour under load",
        "",
        *INTRODUCTION.splitlines(),
        "",
        f"`{record['command']}`, {record['utc']}, {machine['cores']} cores, Python {machine['python']}: "
        f"{record['minutes']:g} minutes. The client was exact, by the limits of `profile doctor`, up to "
        f"{record['capacity']['chunks_per_s']:,} chunks/s on that machine and at that time (load average "
        f"{least:g} to {most:g}, middle {middle:g}). **{verdict}.**",
        "",
        *_table(RUNS, map(_run, record["runs"])),
        *_table(
            PROCESSES + COUNTS, (_process(run["name"], p) for run in record["runs"] for p in run["processes"])
        ),
        "Timing: when the client says a chunk came, less when it was sent.",
        "",
        *_table(TIMING + TIMING_VERDICTS, map(_timing, record["runs"])),
    ]
    for title, key in (("Did not hold", "failures"), ("Could not be told", "undecided"), ("Notes", "notes")):
        if record[key]:
            said += [f"{title}:", "", *(f"* {line}" for line in record[key]), ""]
    return said[:-1]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(head)
    for row in (names, ["---"] * len(names), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""


def _run(run: dict[str, Any]) -> list[str]:
    bad = [what for what, is_held, _ in run["checks"] if not is_held]
    return [
        run["name"],
        f"{run['windows']} × {run['window_s']:g} s",
        f"{run['seconds'] / 60:.1f}",
        f"{run['asked']:,} → {run['chunks_per_s']:,}",
        ", ".join(f"{number:,} {outcome}" for outcome, number in run["requests"].items()),
        f"{run['client_bound']} of {run['windows']}",
        str(run["code"]),
        f"✗ {', '.join(bad)}" if bad else "✓",
    ]


def _process(run: str, each: dict[str, Any]) -> list[str]:
    found = each["memory"]
    return [
        run,
        each["role"],
        NOT_TOLD if found["first"] is None else f"{found['first']:,.1f} → {found['last']:,.1f}",
        f"{each['peak_mib']:,.0f}",
        _interval(found),
        f"{found['explained']:+,.1f}" if found["explained"] else "–",
        f"±{found['bound']:g}",
        str(found["n"]),
        found["verdict"],
        _count(each["files"]),
        _count(each["threads"]),
    ]


def _interval(found: dict[str, Any]) -> str:
    if found["per_hour"] is None:
        return NOT_TOLD
    return f"{found['per_hour']:+,.2f} [{found['low']:+,.2f}, {found['high']:+,.2f}]"


def _count(found: dict[str, Any]) -> str:
    """While steady, in the first half of the windows and the second; of one, at its beginning and its end."""
    levels = [f"{each:g}" for each in found["steady"]]
    same, both = found["alike"]
    if len(levels) == 1:
        return levels[0] + (", as many at the end" if same == both else ", not as many at the end")
    return " → ".join(levels) + (" ✗" if found["grew"] else "")


def _timing(run: dict[str, Any]) -> list[str]:
    found = run["timing"]
    if found is None:
        return [run["name"], *[NOT_TOLD] * 7]
    p50, p99 = found["p50_us"], found["p99_us"]
    return [
        run["name"],
        found["against"],
        f"{found['chunks']:,}",
        _levels(p50),
        _interval(p50),
        _levels(p99),
        _interval(p99),
        found["unbounded"] or f"{p50['verdict']}, {p99['verdict']}",
    ]


def _levels(found: dict[str, Any]) -> str:
    return NOT_TOLD if found["first"] is None else f"{found['first']:,.0f} → {found['last']:,.0f} µs"


def failures(run: dict[str, Any]) -> Iterator[str]:
    """What of a run did not hold."""
    yield from (f"{what}: {words}" for what, is_held, words in run["checks"] if not is_held)
    for each in run["processes"]:
        if each["memory"]["verdict"] == "drifts":
            yield f"memory of the {each['role']} drifts: {_interval(each['memory'])}"
        for what in ("files", "threads"):
            if each[what]["grew"]:
                yield f"{what} of the {each['role']} grew: {each[what]}"
    for name in ("p50_us", "p99_us") if run["timing"] else ():
        if run["timing"][name]["verdict"] == "drifts":
            yield f"timing error ({name}) drifts: {_interval(run['timing'][name])}"


def undecided(run: dict[str, Any]) -> Iterator[str]:
    """What of a run could not be told."""
    for each in run["processes"]:
        if each["memory"]["verdict"] in ("undecided", "not told"):
            yield f"memory of the {each['role']}: {_interval(each['memory'])}"
    if run["timing"] is None:
        yield "no timing error could be had"
        return
    for name in ("p50_us", "p99_us") if not run["timing"]["unbounded"] else ():
        if run["timing"][name]["verdict"] in ("undecided", "not told"):
            yield f"timing error ({name}): {_interval(run['timing'][name])}"


def worst_load(loads: list[list[float]]) -> list[float]:
    """Least, middle and most of the load averages of all runs."""
    middles = sorted(each[1] for each in loads)
    return [min(each[0] for each in loads), middles[len(middles) // 2], max(each[2] for each in loads)]
