"""Measures what memory and matrix units of each device can do: ``python -m profiler.ceilings.child CORES``.

A JSON line a rate (:class:`profiler.ceilings.Rate`).  The only place outside the engines where torch is
imported.  Bandwidth counts bytes read and bytes written, over arrays far larger than any cache; the matrix
rate counts 2·n³ operations of a product of two n × n matrices of normal numbers, since what a chip draws, and
so its clock, depends on the bits that toggle.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import msgspec
import psutil
import torch

from profiler.ceilings import Rate

GIB = 1 << 30
ROUNDS = 12
SECONDS_A_RATE = 1.5
CPU_BYTES, GPU_BYTES = GIB, 4 * GIB
GPU_SIDE = 8192
# A round this long is far above what starting an operation takes (some µs) and what a clock tells apart.
ROUND_S = 0.02
FP8_CAPABILITY = (8, 9)


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    for index in range(torch.cuda.device_count()):
        with torch.cuda.device(index), torch.inference_mode():
            _say(_of_gpu(index))
    with torch.inference_mode():
        _say(_of_cpu())


def _say(rates: Iterator[Rate]) -> None:
    for rate in rates:
        sys.stdout.buffer.write(msgspec.json.encode(rate) + b"\n")
        sys.stdout.flush()


def _of_cpu() -> Iterator[Rate]:
    size = min(CPU_BYTES, psutil.virtual_memory().available // 8)
    place = {"device": "cpu"}
    yield from _bandwidths(place, size, _clocked)
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        yield _product(place, name, *_cpu_matrices(dtype), _clocked)


def _of_gpu(index: int) -> Iterator[Rate]:
    device = torch.device("cuda", index)
    facts = torch.cuda.get_device_properties(device)
    place = {"device": device.type, "name": facts.name, "uuid": f"GPU-{facts.uuid}"}
    free, _ = torch.cuda.mem_get_info(device)
    yield from _bandwidths(place, min(GPU_BYTES, free // 8), _by_events)
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(GPU_SIDE, GPU_SIDE, device=device).to(dtype) for _ in range(2))
        yield _product(place, name, a, b, _by_events)
    if (facts.major, facts.minor) >= FP8_CAPABILITY:
        yield _fp8(place, device)


# ------------------------------------------------------------------------------------- what is run


def _bandwidths(place: dict[str, str], size: int, clock: Clock) -> Iterator[Rate]:
    """Reading alone (one stream, two streams) and reading with writing: which is fastest differs by chip."""
    x, y = (torch.ones(size // 4, device=place["device"]) for _ in range(2))
    kinds: dict[str, tuple[int, Callable[[], object]]] = {
        "sum": (1, x.sum),
        "dot": (2, lambda: torch.dot(x, y)),
        "copy": (2, lambda: y.copy_(x)),
        "scale": (2, lambda: torch.mul(x, 2.0, out=y)),
    }
    for name, (streams, run) in kinds.items():
        found = _rounds(run, clock)
        yield Rate(
            **place, what=name, size=f"{size / GIB:.2g} GiB", per_s=[streams * size / s for s in found]
        )


def _cpu_matrices(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """As large as a round of some ROUND_S takes, up to GPU_SIDE: many cores need more to be busy, and a type
    that the chip only emulates would take minutes."""
    side = GPU_SIDE // 16
    while True:
        a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
        if side >= GPU_SIDE or min(_clocked(partial(torch.mm, a, b)) for _ in range(3)) > ROUND_S:
            return a, b
        side *= 2


def _product(place: dict[str, str], name: str, a: torch.Tensor, b: torch.Tensor, clock: Clock) -> Rate:
    out = torch.empty_like(a)
    return _flops(place, name, len(a), _rounds(lambda: torch.mm(a, b, out=out), clock))


def _fp8(place: dict[str, str], device: torch.device) -> Rate:
    """As engines call it: e4m3 by e4m3, the second matrix by columns, one scale each, bf16 out."""
    a, b = (torch.randn(GPU_SIDE, GPU_SIDE, device=device).to(torch.float8_e4m3fn) for _ in range(2))
    one = torch.ones((), device=device)

    def run() -> object:
        return torch._scaled_mm(
            a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
        )

    try:
        return _flops(place, "fp8", GPU_SIDE, _rounds(run, _by_events))
    except RuntimeError as error:  # a chip or a build of torch without it
        why = str(error).strip().splitlines()[0]
        return Rate(**place, what="fp8", size=f"{GPU_SIDE}³", per_s=[], missing=why)


def _flops(place: dict[str, str], name: str, side: int, seconds: list[float]) -> Rate:
    return Rate(**place, what=name, size=f"{side}³", per_s=[2 * side**3 / s for s in seconds])


# ------------------------------------------------------------------------------------- the clocks


Clock = Callable[[Callable[[], object]], float]


def _rounds(run: Callable[[], object], clock: Clock) -> list[float]:
    """Seconds one call takes, of up to ROUNDS rounds; what comes before the first warms caches and clocks."""
    run()
    each_s = clock(run)
    calls = max(1, round(ROUND_S / each_s))
    ends = time.perf_counter() + SECONDS_A_RATE

    def several() -> None:
        for _ in range(calls):
            run()

    found = [clock(several) / calls]
    while len(found) < ROUNDS and time.perf_counter() < ends:
        found.append(clock(several) / calls)
    return found


def _clocked(run: Callable[[], object]) -> float:
    started_ns = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - started_ns) / 1e9


def _by_events(run: Callable[[], object]) -> float:
    """The device's own clock: what the host takes to ask is not in it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


if __name__ == "__main__":
    main()
