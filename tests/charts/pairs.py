"""Runs of a MoE and of dense rivals whose speeds are known at every batch and in every engine start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from profiler import store
from profiler.schema import EngineFacts, LoadPoint, Model
from profiler.settings import Load, Workload
from profiler.store import RunResult
from tests import make

DENSE = replace(make.FACTS, kind="dense", experts=None, routed_expert_params=0)
REQUESTS = 20  # of a slot
# What starts differ by: two of them in a side's mean, so that intervals are a few percent wide.
SCATTER = (1.0, 1.01, 0.99, 1.005)


def run(
    out: Path,
    model: str,
    speeds: Mapping[int, float],
    starts: int = 3,
    prompt: int = 10,
    **changes: object,
) -> RunResult:
    """A sealed run: ``starts`` engine starts, each of which holds every batch at its speed, times SCATTER.
    A model whose name has ``moe`` in it is one."""
    windows = []
    for start in range(starts):
        for batch, speed in speeds.items():
            window, records = _held(len(windows), batch, speed * SCATTER[start], prompt)
            windows.append((replace(window, engine_start=start, repeat=start), records))
    scenario = replace(
        make.SCENARIO,
        workload=Workload(input_tokens=prompt, output_tokens=5),
        load=Load(concurrency=tuple(speeds)),
    )
    told = {
        "model": Model(name=model, weights="local", facts=make.FACTS if "moe" in model else DENSE),
        "engine": EngineFacts(kind="transformers", version="5", device="cpu", routing="model"),
        "starts_s": (1.0,) * starts,
        "exclusive": True,
        "scenario": scenario,
    }
    name = changes.pop("run_id", f"{model.replace('/', '-')}-{prompt}")
    writer = make.writer(out, windows, run_id=name, **{**told, **changes})
    writer.seal()
    return store.load(writer.folder)


def _held(index, batch, speed, prompt):
    """``batch`` slots of back-to-back requests of five tokens, 0.2 s each at speed 1."""
    begin, records = 60 * index + 10, []
    for slot in range(batch):
        for n in range(REQUESTS):
            due = begin + n * 0.2 / speed + slot * 1e-4
            arrivals = [round((due + (0.1 + 0.02 * k) / speed) * make.S) for k in range(5)]
            times = {"first_ns": arrivals[0], "last_ns": arrivals[-1], "done_ns": arrivals[-1] + 1000}
            lengths = dict.fromkeys(("planned_input_tokens", "input_tokens", "reported_input_tokens"), prompt)
            records.append(make.request(index, len(records), due, arrivals_ns=arrivals, **times, **lengths))
    point = LoadPoint(mode="closed", concurrency=batch)
    return make.window(index, begin, begin + REQUESTS * 0.2 / speed, point=point), records
