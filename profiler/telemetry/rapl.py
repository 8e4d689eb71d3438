"""CPU and DRAM energy counters of Linux powercap (``/sys/class/powercap/intel-rapl:*``; AMD too).

Per package, and per ``dram`` zone where there is one (on servers it is not inside the package; AMD has
none): ``energy_uj``, which wraps at ``max_energy_range_uj`` (66 kJ: minutes on a busy server), so that both
are written and the reader undoes the wrap.  ``psys`` overlaps the packages and ``core``/``uncore`` lie
inside them: neither is read.  Kernel documentation: Documentation/power/powercap/powercap.rst.

The environment variable ``PROFILER_POWERCAP`` moves the tree, so that all of this can be tried on a made one;
the probe's status then says that its counters are made up.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from profiler.samples import Sample
from profiler.schema import MADE_UP, ProbeStatus

KERNELS = Path("/sys/class/powercap")
POWERCAP = Path(os.environ.get("PROFILER_POWERCAP") or KERNELS)
# Linux lets root alone read them since CVE-2020-8694: fine power readings can tell secrets of other users.
GRANT = (
    "run as root, or grant reading: sudo chmod o+r /sys/class/powercap/intel-rapl:*/energy_uj (until reboot)"
)
GRANT_FOR_GOOD = (
    "to a group for good: sudo groupadd power, sudo usermod -aG power $USER, and in "
    '/etc/udev/rules.d/60-rapl.rules: SUBSYSTEM=="powercap", ACTION=="add", '
    'RUN+="/bin/chgrp power /sys%p/energy_uj", RUN+="/bin/chmod g+r /sys%p/energy_uj"'
)


class RaplProbe:
    """Reads every package and dram zone under ``root``."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self._zones: dict[str, tuple[Path, float]] = {}
        self._status = self._open(root)

    def status(self) -> ProbeStatus:
        """Whether all zones can be read; one that cannot would make the sum untrue, so none is."""
        return self._status

    def sample(self) -> Iterator[Sample]:
        """Each zone's counter in µJ, and the value at which it wraps."""
        for source, (counter, wraps_at) in self._zones.items():
            value = int(counter.read_text())
            t_ns = time.perf_counter_ns()
            yield Sample(t_ns, source, "energy_uj", value)
            yield Sample(t_ns, source, "max_energy_range_uj", wraps_at)

    def _open(self, root: Path) -> ProbeStatus:
        zones = _zones(root)
        if not zones:
            return _status(
                False, f"no package energy counter under {root}: a virtual machine or a CPU without RAPL"
            )
        try:
            found = {
                f"rapl:{name}": (zone / "energy_uj", float(_text(zone / "max_energy_range_uj")))
                for name, zone in zones.items()
            }
            for counter, _ in found.values():
                int(counter.read_text())
        except PermissionError:
            return _status(False, f"the counters are readable by root only: {GRANT}")
        except (OSError, ValueError) as error:
            return _status(False, f"the counters cannot be read ({error})")
        self._zones = found
        whose = "" if root.resolve() == KERNELS.resolve() else f"{MADE_UP}, under {root}: "
        return _status(True, whose + ", ".join(zones))


def _zones(root: Path) -> dict[str, Path]:
    """Label → folder: ``package-0`` and ``package-0/dram``."""
    packages = {
        zone.name: _text(zone / "name")
        for zone in sorted(root.glob("intel-rapl:*"))
        if re.fullmatch(r"intel-rapl:\d+", zone.name) and _text(zone / "name").startswith("package")
    }
    found = {label: root / zone for zone, label in packages.items()}
    for zone in sorted(root.glob("intel-rapl:*:*")):
        parent = zone.name.rpartition(":")[0]
        if parent in packages and _text(zone / "name") == "dram":
            found[f"{packages[parent]}/dram"] = zone
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""


def _status(usable: bool, detail: str) -> ProbeStatus:
    return ProbeStatus(probe="rapl", usable=usable, detail=detail)
