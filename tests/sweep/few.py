"""Small sweeps: their files, and what is to be found in their results."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from profiler import store
from profiler.storage import open_home
from profiler.sweep import ledger
from profiler.sweep.nouns import Record
from profiler.sweep.session import Request

QUICK = {
    "engine.kind": "simulated",
    "measure.warmup_s": 0,
    "measure.window_s": 0.2,
    "measure.min_requests": 1,
    "telemetry.idle_s": 0,
}
MODELS, LOADS = ("sim:a", "sim:b"), (1, 2, 4)


def write(
    folder: Path, models=MODELS, loads=LOADS, starts: int = 3, head: str = "", tail: str = "", **sets
) -> Path:
    """The file of a sweep called ``few``."""
    fields = "\n".join(f'"{name}" = {toml(value)}' for name, value in (QUICK | sets).items())
    file = folder / "few.toml"
    file.write_text(
        f'scenario = "smoke"\nstarts = {starts}\nseed = 5\n{head}\n[axes]\nmodel = {toml(list(models))}\n'
        f'"load.concurrency" = {list(loads)}\n[set]\n{fields}\n{tail}\n'
    )
    return file


def toml(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def request(file: Path, out: Path, **changes) -> Request:
    return Request(file=file, out=str(out), **changes)


def record(out: Path, name: str = "few") -> Record:
    found = ledger.read(open_home(out), name)
    assert found is not None
    return found


def cells(out: Path) -> Counter[tuple[str, int]]:
    """How often each (model, concurrency) is to be found in the folder, as any reader of it would."""
    return Counter(
        (run.manifest.model.name, window.point.concurrency)
        for run in (store.load(out / name) for name in store.within(out))
        for window in run.manifest.windows
    )


def whole(models=MODELS, loads=LOADS, starts: int = 3) -> Counter[tuple[str, int]]:
    return Counter({(model, load): starts for model in models for load in loads})
