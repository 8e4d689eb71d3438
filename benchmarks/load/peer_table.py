"""What counts as passed, and the runs of a comparison as one Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Found = dict[str, Any]
MIB = 1 << 20


@dataclass(frozen=True)
class Rate:
    """A ladder of nominal rates per second: what passes a rung, and which figure is the rate reached."""

    rungs: tuple[int, ...]
    passed: Callable[[Found], bool]
    reached: str


@dataclass(frozen=True)
class Fault:
    """What every 8th of 32 requests meets; ``with_timeout``: tools that can are told to wait 5 s.  A tool
    that has not ended after ``patience_s`` is killed."""

    asked: dict[str, Any]
    failed: int = 4
    with_timeout: bool = False
    patience_s: float = 60.0


def _exact_gaps(found: Found) -> bool:
    error = found.get("itl_p99_error_frac")
    return error is not None and abs(error) <= 0.05


def _rate_kept(found: Found) -> bool:
    return bool((found.get("requests_per_s") or 0) >= 0.95 * int(found["label"]))


RATES = {
    "capacity": Rate(
        (1_500, 3_000, 6_000, 9_000, 12_000, 16_000, 20_000, 27_000, 40_000, 50_000, 65_000, 80_000),
        _exact_gaps,
        "chunks_per_s",
    ),
    "requests": Rate((80, 160, 320, 640, 1_280, 2_560, 5_120, 10_240), _rate_kept, "requests_per_s"),
}
FAULTS = {
    "TCP reset midway": Fault({"kind": "reset", "every": 8}),
    "429": Fault({"kind": "http_429", "every": 8}),
    "500": Fault({"kind": "http_500", "every": 8}),
    "503": Fault({"kind": "http_503", "every": 8}),
    "error event midway": Fault({"kind": "error_event", "every": 8}),
    "200 without tokens": Fault({"kind": "empty", "every": 8}),
    "half of the tokens": Fault({"kind": "too_few", "every": 8}),
    "malformed event": Fault({"kind": "malformed", "every": 8}),
    "malformed HTTP chunk": Fault({"kind": "bad_framing", "every": 8}),
    "200 with a web page": Fault({"kind": "wrong_type", "every": 8}),
    "no end mark": Fault({"kind": "no_done", "every": 8}),
    "closes after the answer (no fault)": Fault({"kind": "close", "every": 8}, failed=0),
    "every request 500": Fault({"kind": "http_500"}, failed=32),
    "hangs midway": Fault({"kind": "hang", "every": 8}, with_timeout=True),
    "hangs before the first byte": Fault({"kind": "hang", "every": 8, "after_frac": 0}, with_timeout=True),
    "comments without end, no tokens": Fault({"kind": "pings", "every": 8}, with_timeout=True),
    "hangs midway, default time-outs": Fault({"kind": "hang", "every": 8}, patience_s=300.0),
}


def markdown(runs: Sequence[Found], tools: Sequence[str], absent: Iterable[str]) -> str:
    """One line a figure, one column a tool; of repeated runs the median."""
    lines = [f"| | {' | '.join(tools)} |", "|---|" + "---|" * len(tools)]
    missing = set(absent)
    for title, cell in _lines(runs):
        cells = ["not installed" if tool in missing else cell(tool) for tool in tools]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _lines(runs: Sequence[Found]) -> Iterable[tuple[str, Callable[[str], str]]]:
    def of(row: str, label: str | None = None) -> Callable[[str], list[Found]]:
        def picked(tool: str) -> list[Found]:
            return [
                run
                for run in runs
                if (run["row"], run["tool"]) == (row, tool) and label in (None, run["label"])
            ]

        return picked

    labels = {row: list(dict.fromkeys(run["label"] for run in runs if run["row"] == row)) for row in _ROWS}
    for streams in labels["accuracy"]:
        for figure in ("ttft_mean", "ttft_p99", "itl_mean", "itl_p99"):
            yield f"{_NAMES[figure]} error, {_streams(streams)}", _error(of("accuracy", streams), figure)
        yield "… server late, p99, ms", _number(of("accuracy", streams), "server_late_p99_s", "{:.2f}", 1e3)
    for row, title in (
        ("capacity", "chunks/s, ITL p99 within 5 %"),
        ("requests", "1-token requests/s, within 5 %"),
    ):
        if labels[row]:
            yield title, _highest(of(row), RATES[row])
    if labels["cpu"]:
        yield "CPU per chunk, µs", _cpu_per_chunk(of("cpu", "short"), of("cpu", "long"))
    if labels["start"]:
        yield "start to first request, s", _number(of("start"), "start_s", "{:.2f}")
    if labels["memory"]:
        yield (
            "peak memory while 256 streams run, MB",
            _number(of("memory"), "load_memory_bytes", "{:,.0f}", 1 / MIB),
        )
        yield "… of the whole run, MB", _number(of("memory"), "peak_memory_bytes", "{:,.0f}", 1 / MIB)
    for rate in labels["open"]:
        yield f"open loop at {int(rate):,}/s: rate reached", _number(of("open"), "requests_per_s", "{:,.0f}")
        yield "… gaps against the law asked, KS distance", _number(of("open"), "ks", "{:.3f}")
        yield "… TTFT mean error", _error(of("open"), "ttft_mean")
    for label in labels["faults"]:
        yield f"{label}: ok / failed", _outcome(of("faults", label), FAULTS[label])


_ROWS = ("accuracy", "capacity", "requests", "cpu", "start", "memory", "open", "faults")
_NAMES = {"ttft_mean": "TTFT mean", "ttft_p99": "TTFT p99", "itl_mean": "ITL mean", "itl_p99": "ITL p99"}
Pick = Callable[[str], list[Found]]
Cell = Callable[[str], str]


def _streams(label: str) -> str:
    return f"{int(label):,} stream{'s' if label != '1' else ''}"


def _median(found: Iterable[Found], key: str) -> float | None:
    values = [run[key] for run in found if run.get(key) is not None]
    return statistics.median(values) if values else None


def _number(pick: Pick, key: str, form: str, scale: float = 1.0) -> Cell:
    def cell(tool: str) -> str:
        value = _median(pick(tool), key)
        return "n/a" if value is None else form.format(value * scale)

    return cell


def _error(pick: Pick, figure: str) -> Cell:
    def cell(tool: str) -> str:
        found = pick(tool)
        frac, seconds = (_median(found, f"{figure}_error_{unit}") for unit in ("frac", "s"))
        if frac is None or seconds is None:
            return "n/a"
        return f"{frac:+.1%} ({seconds * 1e3:+.2f} ms)"

    return cell


def _highest(pick: Pick, rate: Rate) -> Cell:
    """The rate reached on the last rung of those passed from the lowest on."""

    def cell(tool: str) -> str:
        found = pick(tool)
        best: Found | None = None
        for rung in rate.rungs:
            passed = [run for run in found if run["label"] == str(rung) and rate.passed(run)]
            if not passed:
                break
            best = passed[-1]
        if not found:
            return "n/a"
        if best is None:
            return f"< {rate.rungs[0]:,}"
        topped = best["label"] == str(rate.rungs[-1])
        return f"{'≥ ' if topped else ''}{best[rate.reached]:,.0f}"

    return cell


def _cpu_per_chunk(short: Pick, long: Pick) -> Cell:
    def cell(tool: str) -> str:
        cpu_s = [_median(pick(tool), "cpu_s") for pick in (short, long)]
        chunks = [_median(pick(tool), "chunks") for pick in (short, long)]
        if None in (*cpu_s, *chunks):
            return "n/a"
        return f"{(cpu_s[1] - cpu_s[0]) / (chunks[1] - chunks[0]) * 1e6:.1f}"  # type: ignore[operator]

    return cell


def _outcome(pick: Pick, fault: Fault) -> Cell:
    """What was counted, in bold where it is wrong, and the exit code."""

    def cell(tool: str) -> str:
        found = pick(tool)
        if not found:
            return "n/a"
        last = found[-1]
        if last["exit_code"] is None:
            return "**hangs**"
        ok, failed = last["requests_ok"], last["requests_failed"]
        counted = "no result" if ok is None else f"{ok} / {failed}"
        right = (ok, failed) == (32 - fault.failed, fault.failed)
        if fault.failed == 32:  # then it may give up early, but has to say so
            right = last["exit_code"] != 0
        return f"{counted if right else f'**{counted}**'}, exit {last['exit_code']}"

    return cell
