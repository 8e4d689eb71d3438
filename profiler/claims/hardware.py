"""What a board is poor in, by its data sheet: the three things that "less powerful hardware" may mean.

A step of decoding reads weights and cache and multiplies with what it read; a board is the poorer in one the
more it has of the other.  Where they balance is its ridge, dense bf16 operations a byte of memory bandwidth
(Williams, Waterman and Patterson, CACM 52(4), 2009).  The measure of plenty is the H100 SXM5, for which the
claims on trial were made: 3,350 GB/s, 989 TFLOP/s, ridge 295.
"""

from __future__ import annotations

from profiler import catalog
from profiler.catalog import GpuSpec
from profiler.claims.nouns import GpuClass

# A third of the H100's bandwidth: boards with up to 384 bits of GDDR memory lie below it, those with stacked
# memory (HBM) above, but for the A30.
POOR_BANDWIDTH_GBS = 3350 / 3
# A quarter of the H100's rate; the H20, made to keep export limits, has 15 %.
POOR_RATE_TFLOPS = 989 / 4
# Among the boards of the catalog there is none between 80 (RTX 3090 Ti) and 117 (RTX 5090).
BALANCED_FLOP_PER_BYTE = 100.0
# Below the smallest A100: a dense model of 14e9 parameters in two bytes (27.5 GiB) and its cache do not fit
# into less than 40 GB.
POOR_MEMORY_GB = 40.0


def classes(spec: GpuSpec) -> tuple[GpuClass, ...]:
    """What the board is poor in; of a CPU and of what a sheet does not say, nothing is known."""
    if spec.kind == "cpu":
        return ()
    found: list[GpuClass] = []
    bandwidth, rate = spec.mem_bw_gbs, spec.dense_bf16_tflops
    if bandwidth is not None and rate is not None:
        flop_per_byte = 1e3 * rate / bandwidth
        if bandwidth < POOR_BANDWIDTH_GBS and flop_per_byte >= BALANCED_FLOP_PER_BYTE:
            found.append("bandwidth-poor")
        if rate < POOR_RATE_TFLOPS and flop_per_byte < BALANCED_FLOP_PER_BYTE:
            found.append("compute-poor")
    if spec.mem_gb < POOR_MEMORY_GB:
        found.append("memory-poor")
    return tuple(found)


def of_class(wanted: GpuClass) -> tuple[GpuSpec, ...]:
    """The boards of the catalog, and of the user's sheet, that are poor in this."""
    return tuple(spec for spec in catalog.gpus() if wanted in classes(spec))


def is_of(driver_name: str, memory_bytes: int | None, wanted: GpuClass) -> bool | None:
    """Whether a board, as its driver or the catalog names it, is of the class; None where nobody knows it."""
    spec = catalog.named(driver_name, memory_bytes)
    return None if spec is None else wanted in classes(spec)
