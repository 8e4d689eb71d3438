"""What can be measured on this machine, what not, and what would mend it."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from profiler import catalog, ceilings, host
from profiler.calibrate import calibrate_worker, load_process
from profiler.ceilings import sheet
from profiler.client import Calibration
from profiler.engines import available_engines
from profiler.errors import ProfilerError
from profiler.samples import decode
from profiler.schema import MADE_UP, Host, ProbeStatus
from profiler.telemetry import Sampler
from profiler.telemetry.rapl import GRANT, GRANT_FOR_GOOD

# Rates and streams at which the load generator is tried; a stream then has a chunk every 11 to 16 ms.
TRIALS = ((1_000, 16), (5_000, 64), (20_000, 256))
TRIAL_S = 1.0
TRIAL_TOKENS = 32
EXACT_TTFT_FRAC = 0.01
EXACT_TTFT_S = 0.0002
EXACT_ITL_P99_FRAC = 0.05
NOT_MEASURED = "n/a"
DOUBT = "⚠"
# The sampler watches counters for some 3 s before it says how often they move.
OBSERVE_S = 5.0


class Findings(NamedTuple):
    """The machine, every engine and probe with its state, and what was read: source → name → last value."""

    machine: Host
    engines: tuple[ProbeStatus, ...]
    probes: tuple[ProbeStatus, ...]
    readings: dict[str, dict[str, float]]


def findings() -> Findings:
    """Starts no engine; reads for ``OBSERVE_S`` where there are boards, whose update periods take a while."""
    machine = host.collect()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples"
        with Sampler(path, None) as sampler:
            probes = sampler.probes
            if any(each.probe == "nvml" and each.usable for each in probes):
                sys.stderr.write(f"reading the boards (about {OBSERVE_S:.0f} s)\n")
                time.sleep(OBSERVE_S)
        readings: dict[str, dict[str, float]] = {}
        for sample in decode(path.read_bytes() if path.exists() else b""):
            readings.setdefault(sample.source, {})[sample.name] = sample.value
    return Findings(machine, available_engines(), probes, readings)


def text() -> str:
    """All of it, for people; says on stderr what takes a while."""
    found = findings()
    machine = found.machine
    gpus = ", ".join(gpu.name for gpu in machine.gpus) or "none"
    memory = f"{machine.memory_bytes / 2**30:.1f} GiB" if machine.memory_bytes else "memory n/a"
    lines = [
        f"machine  {machine.cpu}, {machine.cores} cores, {memory}, GPUs: {gpus}",
        f"software {machine.os}, Python {machine.python}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(machine.packages.items())),
        "",
    ]
    lines += [
        f"{_mark(each.usable)} {each.probe:<14} {each.detail}" for each in (*found.engines, *found.probes)
    ]
    lines += ["", *energy_lines(found)]
    sys.stderr.write("measuring the load generator itself (about 7 s)\n")
    lines += ["", *client_lines(tuple(trials()))]
    return "\n".join(lines) + "\n"


def measured(out: Path | None = None) -> str:
    """The ceilings of every device here, measured, for people; ``out`` is where the sheet goes.

    Raises InputError where the sheet cannot be written there, and as ``ceilings.measure``.
    """
    if out is not None:
        sheet.check_target(out)
    machine = host.collect()
    sys.stderr.write("measuring bandwidth and matrix rate (about 10 s a device)\n")
    found = ceilings.measure(machine.cores or 1)
    lines = ceiling_lines(found, machine)
    if out is not None:
        rows = sheet.rows(found, machine, time.strftime("%Y-%m-%d", time.gmtime()))
        out.write_text(sheet.toml(rows))
        lines += ["", f"written to {out}: with PROFILER_GPUS={out} every command uses these ceilings"]
    return "\n".join(lines) + "\n"


def ceiling_lines(found: ceilings.Measured, machine: Host) -> list[str]:
    """A section a device: every rate that was measured, and what share of the data sheet's it is."""
    lines = ["ceilings measured here: the best round; spread: how far the middle one is below it"]
    for name, rates in found.of_gpus().items():
        memory = next((gpu.memory_bytes for gpu in machine.gpus if gpu.name == name), None)
        lines += ["", name, *_rate_lines(rates, catalog.match_gpu(name, memory, only_shipped=True))]
    lines += ["", f"{machine.cpu}, {machine.cores} cores", *_rate_lines(found.of_cpu(), None)]
    lines += [
        f"{rate.name} {rate.what}: not measured: {rate.missing}" for rate in found.rates if rate.missing
    ]
    return [
        *lines,
        *(f"{DOUBT} {other}: a ceiling measured meanwhile may be too low" for other in found.others),
    ]


def _rate_lines(rates: Sequence[ceilings.Rate], spec: catalog.GpuSpec | None) -> Iterator[str]:
    for rate in rates:
        is_bandwidth = rate.what in ceilings.BANDWIDTHS
        amount = (
            f"{rate.best_per_s / 1e9:,.1f} GB/s" if is_bandwidth else f"{rate.best_per_s / 1e12:,.3g} TFLOP/s"
        )
        yield (
            f"  {rate.what:<6} {rate.size:>8} {amount:>16}  spread {rate.spread_frac:5.1%} "
            f"of {len(rate.per_s)} rounds{_share(rate, spec)}"
        )


def _share(rate: ceilings.Rate, spec: catalog.GpuSpec | None) -> str:
    """Beside what the data sheet says, where it says so."""
    if spec is None:
        return ""
    columns = {"bf16": spec.dense_bf16_tflops, "fp8": spec.fp8_tflops}
    stated, unit_per_s = columns.get(rate.what), 1e12
    if rate.what in ceilings.BANDWIDTHS:
        stated, unit_per_s = spec.mem_bw_gbs, 1e9
    return (
        f"  {rate.best_per_s / unit_per_s / stated:.0%} of the data sheet's {stated:,.6g}" if stated else ""
    )


def energy_lines(found: Findings) -> list[str]:
    """The energy section: each board, then the boundaries within which energy can be told here."""
    names = {f"gpu:{gpu.uuid}": gpu.name for gpu in found.machine.gpus}
    boards = {source: read for source, read in found.readings.items() if source.startswith("gpu:")}
    zones = sorted(source.removeprefix("rapl:") for source in found.readings if source.startswith("rapl:"))
    lines = ["energy   what can be read of it here"]
    lines += [
        f"         {names.get(source, '')} {source.removeprefix('gpu:')}: {', '.join(_board(read))}"
        for source, read in boards.items()
    ]
    if any(GRANT in each.detail for each in found.probes):
        lines.append(f"         {GRANT_FOR_GOOD}")
    trial = any(each.made_up for each in found.probes if each.probe == "rapl")
    return [*lines, *_boundaries(list(boards.values()), zones, f" ({MADE_UP})" if trial else "")]


def _board(read: dict[str, float]) -> Iterator[str]:
    """What one board offers, and what stands against its figures."""
    yield _period("energy counter", "energy_mj", "energy_period_s", read, "it stood still")
    yield _period("power", "power_w", "power_period_s", read, "how often shows only under a changing load")
    if "power_limit_w" in read:
        yield f"limit {read['power_limit_w']:.0f} W"
    if read.get("mig_enabled"):
        yield "in MIG mode (energy is the whole board's: no J/token)"
    foreign = read.get("foreign_processes")
    if foreign is None:
        yield "whose processes are on it cannot be told"
    elif foreign:
        yield f"{foreign:.0f} process(es) of others on it (runs are marked shared_gpu)"
    else:
        yield "nobody else on it"


def _period(what: str, name: str, period: str, read: dict[str, float], unseen: str) -> str:
    if name not in read:
        return f"no {what}"
    return f"{what} every {read[period] * 1e3:.0f} ms" if period in read else f"{what} ({unseen})"


def _boundaries(boards: Sequence[dict[str, float]], zones: Sequence[str], doubt: str) -> list[str]:
    """Boards, host and building: which of them a run here would have, and what is missing for the others.
    ``doubt`` stands behind the CPU's zones."""
    counted = sum("energy_mj" in read for read in boards)
    why_not = "no GPU is read" if not boards else f"{len(boards) - counted} without an energy counter"
    is_counted = 0 < counted == len(boards)
    is_whole = bool(zones) and (is_counted or not boards)
    parts = " + ".join([*(["boards"] if boards else []), *zones]) + doubt
    if not boards:
        parts += " (whole only where there is no GPU)"
    if not any(zone.endswith("/dram") for zone in zones):
        parts += " (no counter of the memory: it is left out)"
    lacks = "n/a without the CPU (rapl)" if not zones else "n/a without the boards"
    return [
        f"{_mark(is_counted)} boards         {'energy counters of all GPUs' if is_counted else why_not}",
        f"{_mark(is_whole)} host           {parts if is_whole else lacks}",
        f"{_mark(is_whole)} facility       {'host × --pue' if is_whole else 'n/a without the host'}",
    ]


def _mark(usable: bool) -> str:
    return "✓" if usable else "✗"


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
