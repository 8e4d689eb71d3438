"""Host facts: of this machine, and of simulated trees and libraries with known contents."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from profiler import host
from profiler.schema import Gpu

GIB = 1 << 30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 cores and 64 GiB, whatever this machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(host, "_installed_bytes", lambda: 64 * GIB)


def test_installed_memory_and_versions_are_what_the_libraries_say() -> None:
    assert host._installed_bytes() == psutil.virtual_memory().total
    installed = {each.metadata["Name"] for each in metadata.distributions()} & set(host.PACKAGES)
    assert {"numpy", "nvidia-ml-py", "moe-profiler"} <= installed
    assert host.collect().packages == {
        name: metadata.version(name) for name in host.PACKAGES if name in installed
    }


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("Flashinfer_Python-1.2+cu12.dist-info", "METADATA"),
        ("flashinfer.python-9-py3.11.egg-info", "PKG-INFO"),
    ],
)
def test_a_version_is_read_from_the_package_and_the_first_on_the_path_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, file: str
) -> None:
    about = "Metadata-Version: 2.1\nName: flashinfer-python\nVersion: 1.2+cu12\n"
    write(tmp_path, {f"a/{folder}/{file}": about, f"b/{folder}/{file}": about.replace("1.2", "3")})
    monkeypatch.setattr(sys, "path", [str(tmp_path / name) for name in ("none", "a", "b")])
    assert host.collect().packages == {"flashinfer-python": "1.2+cu12"}


def test_how_far_we_stand_behind_others_is_told() -> None:
    code = "from profiler import host; print(host.collect().niceness)"
    words = ["nice", "-n", "7", sys.executable, "-c", code]
    expected = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)
    assert int(subprocess.run(words, capture_output=True, check=True).stdout) == expected


def test_this_machine() -> None:
    found = host.collect()
    assert found.cores <= (os.cpu_count() or 1)
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total
    assert found.python == platform.python_version()
    assert found.cpu
    assert platform.release() in found.os
    assert found.packages["numpy"].count(".") == 2
    assert platform.node() not in found.hostname_hash
    assert found.hostname_hash == host.collect().hostname_hash


def test_collecting_imports_nothing_heavy() -> None:
    code = (
        "import sys, profiler.host as h; h.collect();"
        "print(*{'torch', 'transformers', 'vllm', 'numpy', 'pandas', 'pyarrow'} & sys.modules.keys())"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.split() == []


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("files", "cores", "gib"),
    [
        ({"proc/self/cgroup": "0::/\n"}, 16, 64),
        (
            {  # v2, in a container: its own limits at the root of what it sees
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/cpu.max": "350000 100000\n",
                "sys/fs/cgroup/memory.max": f"{8 * GIB}\n",
            },
            3,
            8,
        ),
        (
            {  # v2: a parent is tighter than our own group
                "proc/self/cgroup": "0::/jobs.slice/job-7.scope\n",
                "sys/fs/cgroup/jobs.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/jobs.slice/memory.max": "max\n",
                "sys/fs/cgroup/jobs.slice/job-7.scope/cpu.max": "max 100000\n",
                "sys/fs/cgroup/jobs.slice/job-7.scope/memory.max": f"{4 * GIB}\n",
            },
            2,
            4,
        ),
        (
            {  # v1: a hierarchy each, controllers joined by a comma, "no limit" as a huge number
                "proc/self/cgroup": "4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{2 * GIB}\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            4,
            2,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1, 64),
    ],
)
def test_cores_and_memory_are_those_we_may_use(
    tmp_path: Path, files: dict[str, str], cores: int, gib: int
) -> None:
    found = host.collect(root=write(tmp_path, files))
    assert (found.cores, found.memory_bytes) == (cores, gib * GIB)


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC 9654 96-Core\n", "AMD EPYC 9654 96-Core"),
        (
            "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n",
            f"{platform.machine()} implementer 0x41 part 0xd4f",
        ),
        ("", platform.processor() or platform.machine()),
    ],
)
def test_cpu_name(tmp_path: Path, cpuinfo: str, name: str) -> None:
    assert host.collect(root=write(tmp_path, {"proc/cpuinfo": cpuinfo})).cpu == name


class TwoGpus:
    """An NVML with an H100 and a board of unified memory that tells neither memory nor limit."""

    NVMLError = pynvml.NVMLError
    broken = False
    open = 0

    def nvmlInit(self) -> None:
        if self.broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, index: int) -> str:
        return f"GPU-{index}"

    def nvmlDeviceGetName(self, index: int) -> str:
        return ["NVIDIA H100 80GB HBM3", "NVIDIA GB10"][index]

    def nvmlDeviceGetMemoryInfo(self, index: int) -> Any:
        return SimpleNamespace(total=self._only_the_first(index, 80 * GIB))

    def nvmlDeviceGetEnforcedPowerLimit(self, index: int) -> int:
        return self._only_the_first(index, 700_000)

    def _only_the_first(self, index: int, value: int) -> int:
        if index:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return value


def test_gpus_and_what_they_do_not_tell() -> None:
    library = TwoGpus()
    found = host.collect(library=library)
    assert found.driver == "580.65.06"
    assert found.gpus == (
        Gpu(uuid="GPU-0", name="NVIDIA H100 80GB HBM3", memory_bytes=80 * GIB, power_limit_w=700.0),
        Gpu(uuid="GPU-1", name="NVIDIA GB10", memory_bytes=None, power_limit_w=None),
    )
    assert library.open == 0


def test_a_driver_that_is_not_loaded_means_no_gpus() -> None:
    library = TwoGpus()
    library.broken = True
    found = host.collect(library=library)
    assert (found.driver, found.gpus) == (None, ())
