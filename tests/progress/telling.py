"""What a watcher hears of a run, made to order."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from profiler.client import ClientAudit
from profiler.loadgen.job import Progress
from profiler.measure import Ahead
from profiler.samples import Sample, encode
from profiler.schema import LoadPoint
from profiler.subject import Slot, Sources
from tests import make

POINTS = tuple(LoadPoint(mode="closed", concurrency=n) for n in (1, 8, 64))
AHEAD = Ahead(
    scenario="chat",
    engine="vllm",
    models=("tiny-moe",),
    folders=("results/tiny-moe-chat",),
    points=POINTS,
    windows=9,
    target_frac=None,
)
UNDERWAY = Progress(
    phase="measuring", elapsed_s=12, expected_s=20, chunks_per_s=1234.4, in_flight=8, done=124, failed=2
)
SLOT = Slot(0, 1, POINTS[1])
BOARDS = ("GPU-1", "GPU-2")


def progress(**changes) -> Progress:
    return replace(UNDERWAY, **changes)


def held(index: int = 0, chunks: int = 1000, **changes):
    """A window of 10 s after a second of warm-up, with a second to end in."""
    audit = ClientAudit(cpu_frac=0.1, loop_lag_p99_s=0, send_lag_p99_s=0, chunks=chunks)
    return make.window(index, 10, 20, **{"point": SLOT.point, "audit": audit} | changes)


def sampled(path: Path, now_ns: int, **changes) -> Sources:
    """An engine on two boards whose newest samples are of now."""
    board = {"power_w": 300.5, "temperature_c": 61, "clocks_event_reasons": 0x4, "foreign_processes": 0}
    engine = {"requests_running": 8, "requests_waiting": 3, "kv_cache_usage_frac": 0.34}
    samples = [Sample(now_ns, f"gpu:{uuid}", name, value) for uuid in BOARDS for name, value in board.items()]
    samples += [Sample(now_ns, "engine:tiny-moe", name, value) for name, value in engine.items()]
    path.write_bytes(encode(samples))
    return Sources(**{"path": path, "name": "tiny-moe", "gpus": BOARDS} | changes)
