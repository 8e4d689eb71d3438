"""The RAPL probe on a simulated powercap tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from profiler import energy
from profiler.samples import Sample, encode, read_samples
from profiler.schema import MADE_UP
from profiler.telemetry.rapl import GRANT, POWERCAP, RaplProbe
from tests.powercap import RANGE_UJ, zone


def zones(probe: RaplProbe) -> list[str]:
    """As the status lists them; in front stands that they are made up."""
    return probe.status().detail.rpartition(": ")[2].split(", ")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Two packages with dram, core zones inside them, and a psys zone that overlaps everything."""
    for package in (0, 1):
        zone(tmp_path, f"intel-rapl:{package}", f"package-{package}")
        zone(tmp_path, f"intel-rapl:{package}:0", "core")
        zone(tmp_path, f"intel-rapl:{package}:1", "dram")
        zone(tmp_path, f"intel-rapl:{package}:2", "uncore")
    zone(tmp_path, "intel-rapl:2", "psys")
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def test_packages_and_dram_are_read_psys_and_core_never(server: Path) -> None:
    probe = RaplProbe(server)
    assert probe.status().usable
    assert zones(probe) == ["package-0", "package-1", "package-0/dram", "package-1/dram"]
    found = {(s.source, s.name): s.value for s in probe.sample()}
    sources = ("rapl:package-0", "rapl:package-1", "rapl:package-0/dram", "rapl:package-1/dram")
    assert set(found) == {(s, n) for s in sources for n in ("energy_uj", "max_energy_range_uj")}
    assert set(found.values()) == {1_000_000, RANGE_UJ}


def test_energy_across_a_wrap_is_exact(server: Path, tmp_path: Path) -> None:
    probe = RaplProbe(server)
    samples: list[Sample] = []
    for second in range(21):
        watts = {"intel-rapl:0": 240, "intel-rapl:1": 100, "intel-rapl:0:1": 30, "intel-rapl:1:1": 20}
        joules = {folder: each * second for folder, each in (watts | {"intel-rapl:2": 900}).items()}
        for folder, spent in joules.items():
            counter = (RANGE_UJ - 1_000_000_000 + spent * 1_000_000) % RANGE_UJ
            (server / folder / "energy_uj").write_text(str(counter))
        samples += [s._replace(t_ns=second * 10**9) for s in probe.sample()]
    file = tmp_path / "samples"
    file.write_bytes(encode(samples))
    reading = energy.cpu_energy(read_samples(file), int(2.5e9), int(17.5e9))
    assert reading.boundary == "cpu package + dram"
    assert reading.energy_j == pytest.approx(15 * (240 + 100 + 30 + 20), rel=1e-9)
    assert reading.power_w == pytest.approx(390, rel=1e-9)


def test_amd_has_packages_only_and_the_boundary_says_so(tmp_path: Path) -> None:
    """AMD names its zones like Intel's; a core zone lies inside each package, memory is not counted."""
    for socket in (0, 1):
        zone(tmp_path, f"intel-rapl:{socket}", f"package-{socket}")
        zone(tmp_path, f"intel-rapl:{socket}:0", "core")
    probe = RaplProbe(tmp_path)
    assert zones(probe) == ["package-0", "package-1"]
    samples = []
    for second in range(20):
        for socket, watts in enumerate((120, 80)):
            (tmp_path / f"intel-rapl:{socket}" / "energy_uj").write_text(str(watts * second * 1_000_000))
        samples += [s._replace(t_ns=second * 10**9) for s in probe.sample()]
    file = tmp_path / "samples"
    file.write_bytes(encode(samples))
    reading = energy.cpu_energy(read_samples(file), 5 * 10**9, 15 * 10**9)
    assert reading.boundary == "cpu package"
    assert reading.power_w == pytest.approx(200, rel=1e-9)


def test_dies_of_one_package_are_told_apart(tmp_path: Path) -> None:
    for number, name in enumerate(("package-0-die-0", "package-0-die-1", "psys")):
        zone(tmp_path, f"intel-rapl:{number}", name)
    assert zones(RaplProbe(tmp_path)) == ["package-0-die-0", "package-0-die-1"]


def test_the_environment_moves_the_tree(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    code = "from profiler.telemetry.rapl import RaplProbe; print(RaplProbe().status().detail)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PROFILER_POWERCAP": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"made up, under {tmp_path}: package-0"


def test_a_tree_that_is_not_the_kernels_is_no_cpus_energy(
    server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = RaplProbe(server).status()
    assert status.made_up
    assert status.detail.startswith(f"{MADE_UP}, under {server}: ")
    kernels = server.parent / "class"
    kernels.symlink_to(server)
    monkeypatch.setattr("profiler.telemetry.rapl.KERNELS", kernels)
    assert not RaplProbe(server).status().made_up
    assert RaplProbe(kernels).status().detail == "package-0, package-1, package-0/dram, package-1/dram"


def test_root_only_counters_say_how_to_grant_reading(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # root may read mode 000: the refusal has to be simulated
        real = Path.read_text

        def refuse(path: Path, *args: object, **rest: object) -> str:
            if path.name == "energy_uj":
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **rest)  # type: ignore[arg-type]

        monkeypatch.setattr(Path, "read_text", refuse)
    else:
        (server / "intel-rapl:1" / "energy_uj").chmod(0)
    probe = RaplProbe(server)
    assert not probe.status().usable
    assert "root" in probe.status().detail
    assert GRANT in probe.status().detail
    assert list(probe.sample()) == []


def test_a_package_with_no_counter_makes_the_sum_untrue_so_nothing_is_read(server: Path) -> None:
    (server / "intel-rapl:1" / "energy_uj").unlink()
    assert not RaplProbe(server).status().usable


def test_no_powercap_at_all(tmp_path: Path) -> None:
    status = RaplProbe(tmp_path / "none").status()
    assert not status.usable
    assert "virtual machine" in status.detail


def test_this_machine_does_not_crash_the_probe() -> None:
    probe = RaplProbe()
    assert probe.status().usable is bool(list(probe.sample()))
    assert probe.status().usable <= POWERCAP.exists()
