"""The state a board was in during a window, from samples: held back, shared, warm.  Values out, no words.

What was not sampled is None (or absent from a dict), which is not the same as "nothing happened".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from profiler.samples import between, series, sources

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# nvmlDeviceGetCurrentClocksEventReasons: the bits of nvml.h (nvmlClocksEventReasons)
REASON_BITS = {
    "gpu idle": 0x1,
    "application clocks": 0x2,
    "software power cap": 0x4,
    "hardware slowdown": 0x8,
    "sync boost": 0x10,
    "software thermal slowdown": 0x20,
    "hardware thermal slowdown": 0x40,
    "hardware power brake": 0x80,
    "display clocks": 0x100,
    "board limit": 0x200,
    "reliability": 0x400,
}
THERMAL_BITS = REASON_BITS["software thermal slowdown"] | REASON_BITS["hardware thermal slowdown"]
# Memory that no listed process holds: contexts and page tables of our own come to less than this.
UNEXPLAINED_BYTES = 500 * 2**20
# A board is warm when its temperature changes by less.  Boards tell whole degrees, which flicker by one: the
# mean of the last EDGE_S is set against that of the first.
STEADY_C, EDGE_S = 1.0, 5.0


class Tenants(NamedTuple):
    """The most that others held of one board at any time of a window; None where it cannot be told."""

    processes: int | None
    bytes: int | None
    unexplained_bytes: int | None

    @property
    def shared(self) -> bool:
        """Whether anything says that somebody else was there."""
        return bool(self.processes or self.bytes) or (self.unexplained_bytes or 0) > UNEXPLAINED_BYTES


def throttled(
    samples: Any, t0_ns: int, t1_ns: int, gpus: Sequence[str] | None = None
) -> dict[str, float] | None:
    """Share of the window in which each reason held a board's clocks back, for the board worst off.

    Only reasons that occurred are in it; None where no board's reasons were sampled in the window.
    ``gpus``: UUIDs; None takes all that were sampled.
    """
    found: dict[str, float] = {}
    masks = _masks(samples, t0_ns, t1_ns, gpus)
    for mask in masks:
        for reason, bit in REASON_BITS.items():
            share = _share(mask, bit)
            if share > 0:
                found[reason] = max(found.get(reason, 0.0), share)
    return found if masks else None


def thermally_throttled_frac(
    samples: Any, t0_ns: int, t1_ns: int, gpus: Sequence[str] | None = None
) -> float | None:
    """Share of the window in which heat held a board back, by either thermal bit, for the board worst off."""
    masks = _masks(samples, t0_ns, t1_ns, gpus)
    return max(_share(mask, THERMAL_BITS) for mask in masks) if masks else None


def tenants(samples: Any, t0_ns: int, t1_ns: int, gpus: Sequence[str] | None = None) -> dict[str, Tenants]:
    """By source, of every board: who else was seen on it."""
    inside = between(samples, t0_ns, t1_ns)
    return {
        source: Tenants(*(_most(inside, source, name) for name in _TENANT_NAMES))
        for source in _boards(samples, gpus)
    }


def busy_pct(samples: Any, t0_ns: int, t1_ns: int, gpus: Sequence[str]) -> dict[str, float]:
    """By source, the mean share of the time in which a board of ``gpus`` was at work, in percent."""
    inside = between(samples, t0_ns, t1_ns)
    each = {f"gpu:{uuid}": series(inside, f"gpu:{uuid}", "utilisation_gpu_pct")[1] for uuid in gpus}
    return {source: float(values.mean()) for source, values in each.items() if len(values)}


def requests_running(samples: Any, t0_ns: int, t1_ns: int) -> float | None:
    """The most requests an engine had in work at once, by its own metrics."""
    inside = between(samples, t0_ns, t1_ns)
    each = [series(inside, source, "requests_running")[1] for source in sources(inside, "engine")]
    return max((float(values.max()) for values in each if len(values)), default=None)


def drift_c(samples: Any, t0_ns: int, t1_ns: int, gpus: Sequence[str]) -> float | None:
    """Mean temperature of the last EDGE_S less that of the first, of the board that changed most.

    None where it was not sampled, or the window is too short for its ends to be apart.
    """
    edge_ns = round(EDGE_S * 1e9)
    if t1_ns - t0_ns < 2 * edge_ns:
        return None
    inside = between(samples, t0_ns, t1_ns)
    changes = []
    for uuid in gpus:
        times, degrees = series(inside, f"gpu:{uuid}", "temperature_c")
        first, last = degrees[times <= t0_ns + edge_ns], degrees[times >= t1_ns - edge_ns]
        if len(first) and len(last):
            changes.append(float(last.mean() - first.mean()))
    return max(changes, key=abs, default=None)


_TENANT_NAMES = ("foreign_processes", "foreign_bytes", "unexplained_bytes")


def _most(samples: Any, source: str, name: str) -> int | None:
    _, values = series(samples, source, name)
    return int(values.max()) if len(values) else None


def _boards(samples: Any, gpus: Sequence[str] | None) -> list[str]:
    return [f"gpu:{uuid}" for uuid in gpus] if gpus else sources(samples, "gpu")


def _masks(samples: Any, t0_ns: int, t1_ns: int, gpus: Sequence[str] | None) -> list[Floats]:
    inside = between(samples, t0_ns, t1_ns)
    each = [series(inside, source, "clocks_event_reasons")[1] for source in _boards(inside, gpus)]
    return [mask for mask in each if len(mask)]


def _share(masks: Floats, bits: int) -> float:
    import numpy as np

    return float(((masks.astype(np.int64) & bits) != 0).mean())
