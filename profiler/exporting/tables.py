"""Runs → typed Arrow tables: the comparison table, the raw requests, the raw telemetry.

Not measured is null.  Each column carries its unit in its metadata.  Raw tables come run by run, so that
memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from profiler import comparison, index, store
from profiler.comparison.columns import COLUMNS
from profiler.cost import terms
from profiler.exporting import units
from profiler.records import requests_schema
from profiler.store import RunResult

WHAT = ("table", "requests", "telemetry")
FLAGS = ("shared_gpu",)
Row = dict[str, Any]


def rows(paths: Sequence[Path], price: str | None) -> list[Row]:
    """The comparison table's; raises InputError."""
    return list(comparison.of_figures(index.figures(paths), terms.read(price=price)))


def table(found: Iterable[Row]) -> Any:
    """The comparison table, typed alike whatever was measured."""
    import pyarrow as pa

    kept = list(found)
    schema = pa.schema([_field(name) for name in COLUMNS])
    return pa.table({name: [_plain(name, row[name]) for row in kept] for name in COLUMNS}, schema=schema)


def raw(paths: Sequence[Path], what: str) -> Iterator[Any]:
    """One table a run, all of the same schema."""
    for run in store.find(paths):
        yield _requests(run) if what == "requests" else _telemetry(run)


def _field(name: str) -> Any:
    import pyarrow as pa

    unit = units.of(name)
    if name in FLAGS:
        return pa.field(name, pa.bool_())
    if unit is None:
        return pa.field(name, pa.string())
    kind = pa.int64() if name in units.COUNTS else pa.float64()
    return pa.field(name, kind, metadata={"unit": unit})


def _plain(name: str, value: Any) -> Any:
    if value is None or name in FLAGS:
        return value
    if units.of(name) is None:
        return str(value)
    return int(value) if name in units.COUNTS else float(value)


def _requests(run: RunResult) -> Any:
    """The run's requests with the load each was part of; columns an older run lacks are null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    held = run.requests
    windows = {each.index: each for each in (*run.manifest.windows, *run.manifest.cut_short)}
    numbers = pc.unique(held["window"]).to_pylist()
    of_window = pa.table(
        {
            "window": pa.array(numbers, pa.int64()),
            "repeat": pa.array([windows[n].repeat for n in numbers], pa.int64()),
            "load": pa.array([windows[n].point.mode for n in numbers], pa.string()),
            "concurrency": pa.array([windows[n].point.concurrency for n in numbers], pa.int64()),
            "load_requests_per_s": pa.array([windows[n].point.requests_per_s for n in numbers], pa.float64()),
        }
    )
    places = pc.index_in(held["window"], of_window["window"])
    columns = _identity(run, held.num_rows)
    columns |= {name: of_window[name].take(places) for name in of_window.column_names if name != "window"}
    for field in requests_schema():
        there = field.name in held.column_names
        columns[field.name] = (
            held[field.name].cast(field.type) if there else pa.nulls(held.num_rows, field.type)
        )
    return _with_units(pa.table(columns))


def _telemetry(run: RunResult) -> Any:
    import pyarrow as pa

    samples = run.samples
    own = {name: samples[name] for name in ("t_ns", "source", "name", "value")}
    return _with_units(pa.table(_identity(run, samples.num_rows) | own))


def _identity(run: RunResult, count: int) -> dict[str, Any]:
    import pyarrow as pa

    manifest = run.manifest
    texts = {"run": run.folder.name, "model": manifest.model.name, "scenario": manifest.scenario.name}
    return {name: pa.repeat(pa.scalar(text, pa.string()), count) for name, text in texts.items()}


def _with_units(found: Any) -> Any:
    import pyarrow as pa

    fields = []
    for field in found.schema:
        unit = units.of(field.name)
        fields.append(field.with_metadata({"unit": unit}) if unit else field)
    return found.cast(pa.schema(fields))
