"""What can be measured on this machine, what not, and what would mend it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from profiler import host
from profiler.engines import available_engines
from profiler.schema import Host, ProbeStatus
from profiler.telemetry import Sampler


def findings() -> tuple[Host, tuple[ProbeStatus, ...]]:
    """The machine, and every engine and probe with its state; starts no engine."""
    with tempfile.TemporaryDirectory() as folder, Sampler(Path(folder) / "samples", None) as sampler:
        probes = sampler.probes
    return host.collect(), (*available_engines(), *probes)


def text() -> str:
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
    return "\n".join(lines) + "\n"
