"""What can be measured on this machine, what not, and what would mend it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from profiler import host
from profiler.calibrate import calibrate_worker, load_process
from profiler.engines import available_engines
from profiler.errors import ProfilerError
from profiler.schema import Calibration, Host, ProbeStatus
from profiler.telemetry import Sampler

# Rates and streams at which the load generator is tried; a stream then has a chunk every 11 to 16 ms.
TRIALS = ((1_000, 16), (5_000, 64), (20_000, 256))
TRIAL_S = 1.0
TRIAL_TOKENS = 32
EXACT_TTFT_FRAC = 0.01
EXACT_TTFT_S = 0.0002
EXACT_ITL_P99_FRAC = 0.05
NOT_MEASURED = "n/a"


def findings() -> tuple[Host, tuple[ProbeStatus, ...]]:
    """The machine, and every engine and probe with its state; starts no engine."""
    with tempfile.TemporaryDirectory() as folder, Sampler(Path(folder) / "samples", None) as sampler:
        probes = sampler.probes
    return host.collect(), (*available_engines(), *probes)


def text() -> str:
    """All of it, for people; says on stderr what takes a while."""
    machine, found = findings()
    gpus = ", ".join(gpu.name for gpu in machine.gpus) or "none"
    memory_gib = machine.memory_bytes / 2**30
    lines = [
        f"machine  {machine.cpu}, {machine.cores} cores, {memory_gib:.1f} GiB, GPUs: {gpus}",
        f"software {machine.os}, Python {machine.python}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(machine.packages.items())),
        "",
    ]
    lines += [f"{'✓' if each.usable else '✗'} {each.probe:<14} {each.detail}" for each in found]
    sys.stderr.write("measuring the load generator itself (about 7 s)\n")
    lines += ["", *client_lines(tuple(trials()))]
    return "\n".join(lines) + "\n"


def trials() -> Iterator[Calibration | ProfilerError]:
    """The load generator against a server of known emission times at each rate, or why it was not tried."""
    try:
        with load_process() as worker:
            for chunks_per_s, streams in TRIALS:
                yield calibrate_worker(worker, chunks_per_s, streams, TRIAL_S, TRIAL_TOKENS)
    except ProfilerError as error:
        yield error


def exact(found: Calibration) -> bool | None:
    """Whether mean TTFT was within 1 % or 0.2 ms of the truth and the 99th percentile of ITL within 5 %;
    None where that was not seen."""
    if found.ttft_mean_error_frac is None or found.ttft_mean_error_s is None:
        return None
    if found.itl_p99_error_frac is None:
        return None
    ttft = abs(found.ttft_mean_error_frac) <= EXACT_TTFT_FRAC or abs(found.ttft_mean_error_s) <= EXACT_TTFT_S
    return ttft and abs(found.itl_p99_error_frac) <= EXACT_ITL_P99_FRAC


def client_lines(found: Sequence[Calibration | ProfilerError]) -> list[str]:
    """The load generator's section: a row a rate, then the rate up to which it is exact."""
    rows = [each for each in found if isinstance(each, Calibration)]
    lines = [
        "client   the load generator against a server of known emission times; errors are seen / true − 1",
        f"{'chunks/s':>17} {'streams':>8} {'TTFT mean':>10} {'TTFT p99':>9} {'ITL p99':>8} {'CPU/chunk':>10}",
        *map(_row, rows),
    ]
    lines += [f"         not measured: {each}" for each in found if not isinstance(each, Calibration)]
    return [*lines, f"         {_verdict(rows)}"]


def _row(found: Calibration) -> str:
    cpu_s = found.client_cpu_s_per_chunk
    cpu = NOT_MEASURED if cpu_s is None else f"{cpu_s * 1e6:.0f} µs"
    return (
        f"{found.chunks_per_s:17,.0f} {found.concurrency:8} {_percent(found.ttft_mean_error_frac):>10} "
        f"{_percent(found.ttft_p99_error_frac):>9} {_percent(found.itl_p99_error_frac):>8} {cpu:>10}"
    )


def _percent(frac: float | None) -> str:
    return NOT_MEASURED if frac is None else f"{frac * 100:+.2f} %"


def _verdict(rows: Sequence[Calibration]) -> str:
    """The highest rate below which none was found wanting."""
    limits = "TTFT within 1 % or 0.2 ms, ITL p99 within 5 %"
    good: Calibration | None = None
    for each in sorted(rows, key=lambda row: row.chunks_per_s):
        if not exact(each):
            break
        good = each
    if good is not None:
        tried = ", the most tried" if good.chunks_per_s == max(row.chunks_per_s for row in rows) else ""
        return f"exact ({limits}) up to {good.chunks_per_s:,.0f} chunks/s{tried}"
    if rows and exact(rows[0]) is False:
        return f"not exact ({limits}) at any rate tried: is the machine busy?"
    return f"exact ({limits}) up to: {NOT_MEASURED}"
