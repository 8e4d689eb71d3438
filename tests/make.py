"""Runs with known truth, written through the real store: requests at exact times, samples of exact power."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from profiler import checksums, integrity, samples, scenario, store
from profiler import records as records_file
from profiler.schema import (
    SCHEMA_VERSION,
    EngineFacts,
    Gpu,
    Host,
    LoadPoint,
    Manifest,
    Memory,
    Model,
    ModelFacts,
    RequestRecord,
    Window,
)
from profiler.settings import EngineSettings, Load, Measure, Scenario, Workload

S = 10**9
GPU = Gpu(uuid="GPU-1", name="NVIDIA H100 80GB HBM3", memory_bytes=80 << 30)
HOST = Host(
    hostname_hash="abc",
    os="Linux",
    cpu="cpu",
    cores=2,
    memory_bytes=8 << 30,
    gpus=(),
    driver=None,
    python="3.11.7",
    packages={"torch": "2.13.0"},
)
SCENARIO = Scenario(
    name="test",
    about="made by a test",
    workload=Workload(input_tokens=10, output_tokens=5),
    load=Load(concurrency=(1,)),
    measure=Measure(repeats=1),
)
FACTS = ModelFacts(
    architecture="Qwen3MoeForCausalLM",
    kind="moe",
    total_params=1000,
    active_params=100,
    routed_expert_params=900,
    kv_bytes_per_token=64,
    vocab_size=512,
    layers=2,
    source="test",
)


def request(window: int, index: int, due_s: float, **changes: Any) -> RequestRecord:
    """Due at ``due_s``, first token 0.1 s later, five tokens 0.02 s apart, ten prompt tokens."""
    due = round(due_s * S)
    arrivals = [due + S // 10 + n * S // 50 for n in range(5)]
    base = RequestRecord(
        window=window,
        index=index,
        due_ns=due,
        sent_ns=due + 1000,
        first_ns=arrivals[0],
        last_ns=arrivals[-1],
        done_ns=arrivals[-1] + 1000,
        planned_input_tokens=10,
        planned_output_tokens=5,
        input_tokens=10,
        output_tokens=5,
        reported_input_tokens=10,
        reported_output_tokens=5,
        arrivals_ns=arrivals,
        arrival_tokens=[1] * 5,
        outcome="ok",
        status=200,
    )
    return msgspec.structs.replace(base, **changes)


def window(index: int, start_s: float, end_s: float, **changes: Any) -> Window:
    base = Window(
        index=index,
        repeat=index,
        engine_start=0,
        point=LoadPoint(mode="closed", concurrency=1),
        opened_ns=round((start_s - 1) * S),
        steady_start_ns=round(start_s * S),
        steady_end_ns=round(end_s * S),
        closed_ns=round((end_s + 1) * S),
    )
    return msgspec.structs.replace(base, **changes)


def manifest(run_id: str, **changes: Any) -> Manifest:
    base = Manifest(
        schema_version=SCHEMA_VERSION,
        run_id=run_id,
        group="g",
        tool_version="0",
        status="running",
        reason=None,
        utc="20260101T000000Z",
        unix_ns=0,
        clock_ns=crc32(run_id.encode()),  # no two runs begin at one instant
        scenario=SCENARIO,
        scenario_hash=changes.get("scenario_hash") or scenario.digest(changes.get("scenario", SCENARIO)),
        model=Model(name="m", weights="random", facts=FACTS),
        settings=EngineSettings(kind="transformers"),
        exclusive=False,
        engine=EngineFacts(kind="transformers", version="5", device="cpu"),
        memory=Memory(weights_bytes=2000, kv_bytes=640),
        host=HOST,
        probes=(),
    )
    return msgspec.structs.replace(base, **changes)


def writer(out: Path, windows: list[tuple[Window, list[RequestRecord]]], **changes: Any) -> store.RunWriter:
    """A run folder still being written, with these windows finished."""
    run = store.RunWriter.create(out, manifest(changes.pop("run_id", "run"), **changes))
    for each, records in windows:
        records_file.write_records(run.records_path(each.index), records)
        run.add(each)
    return run


def written_again(folder: Path) -> None:
    """A run folder that was changed since passes for one that was written like this."""
    file = next(path for name in (store.MANIFEST, store.JOURNAL) if (path := folder / name).exists())
    held = msgspec.convert(msgspec.json.decode(file.read_bytes()), Manifest)
    files = {name: checksums.of_file(folder / name) for name in held.checksums.files}
    sums = checksums.Checksums(files=files)
    store.write_json(file, integrity.signed(msgspec.structs.replace(held, checksums=sums)))


def steady(
    index: int, start_s: float, requests: int = 50, **changes: Any
) -> tuple[Window, list[RequestRecord]]:
    """One slot's closed loop of back-to-back 0.2 s requests, 0.18 s of it streaming, over ``requests``."""
    records = [request(index, n, start_s + n * 0.2) for n in range(requests)]
    return window(index, start_s, start_s + requests * 0.2, **changes), records


def sample_lines(rows: list[tuple[float, str, str, float]]) -> bytes:
    return samples.encode(
        samples.Sample(round(t * S), source, name, value) for t, source, name, value in rows
    )
