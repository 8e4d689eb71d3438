"""Runs → a local MLflow file store: an experiment a scenario, a run a run.

Parameters are what was asked for and on what; metrics the figures of each load point, with the load as the
step; tags who and where; artifacts the manifest and the rows.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from profiler import comparison, store
from profiler.comparison.columns import ENDS, ESTIMATES
from profiler.errors import InputError
from profiler.schema import Manifest
from profiler.store import RunResult

Row = dict[str, Any]
MISSING = "mlflow is not installed: pip install 'moe-profiler[mlflow]' (mlflow-skinny is enough)"
LONGEST = 6000  # of a parameter's text; MLflow refuses more
NOT_A_KEY = re.compile(r"[^A-Za-z0-9_\-./ ]")
AT_ONCE = 1000  # metrics; MLflow takes no more
LOADS = ("concurrency", "load_requests_per_s", "requests_ok", "requests_failed")
FIGURES = (*LOADS, *(each for name in ESTIMATES for each in (name, *ENDS[name])))


def export(runs: Sequence[RunResult], out: Path, price: str | None) -> None:
    """A new file store at ``out``; what was begun there is removed when it fails.  Raises InputError."""
    client = _client(out)
    try:
        for run in runs:
            _run(client, run, comparison.rows([run], price))
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _client(out: Path) -> Any:
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow keeps file stores, for those who ask
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise InputError(MISSING) from None
    return MlflowClient(tracking_uri=out.resolve().as_uri())


def _run(client: Any, run: RunResult, rows: Sequence[Row]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    manifest = run.manifest
    name = NOT_A_KEY.sub("_", manifest.scenario.name)
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    began_ms = manifest.unix_ns // 10**6
    made = client.create_run(experiment, start_time=began_ms, run_name=run.folder.name)
    run_id = made.info.run_id
    metrics = [Metric(_key(name), value, began_ms, step) for name, value, step in _metrics(rows)]
    params = [Param(_key(name), text[:LONGEST]) for name, text in _params(manifest)]
    tags = [RunTag(f"profile.{name}", text) for name, text in _tags(manifest)]
    client.log_batch(run_id, params=params, tags=tags)
    for first in range(0, len(metrics), AT_ONCE):
        client.log_batch(run_id, metrics=metrics[first : first + AT_ONCE])
    for file in (store.MANIFEST, store.JOURNAL):
        if (run.folder / file).exists():
            client.log_artifact(run_id, str(run.folder / file))
    client.log_text(run_id, comparison.as_json(rows), comparison.SUMMARY)
    ended = began_ms + max((w.closed_ns - manifest.clock_ns for w in manifest.windows), default=0) // 10**6
    status = "FINISHED" if manifest.status == "complete" else "FAILED"
    client.set_terminated(run_id, status=status, end_time=max(ended, began_ms))


def _metrics(rows: Sequence[Row]) -> Iterator[tuple[str, float, int]]:
    """The step is the concurrency where all loads have one, else the load's place, from 1; the load itself is
    a metric too."""
    has_concurrency = all(row["concurrency"] is not None for row in rows)
    for place, row in enumerate(rows, 1):
        step = row["concurrency"] if has_concurrency else place
        for name in FIGURES:
            if row[name] is not None:
                yield name, float(row[name]), step


def _params(manifest: Manifest) -> Iterator[tuple[str, str]]:
    engine, host = manifest.engine, manifest.host
    yield from (("model", manifest.model.name), ("weights", manifest.model.weights))
    yield from (("engine", engine.kind), ("engine_version", str(engine.version)), ("device", engine.device))
    yield from (("gpus", str(len(engine.gpus))), ("routing", str(engine.routing)))
    yield "gpu", " + ".join(sorted({gpu.name for gpu in host.gpus if gpu.uuid in engine.gpus})) or "none"
    yield from (("scenario_hash", manifest.scenario_hash), ("cpu", str(host.cpu)), ("cores", str(host.cores)))
    yield from ((f"package.{name}", version) for name, version in sorted(host.packages.items()))
    for part, fields in msgspec.to_builtins(manifest.scenario).items():
        if isinstance(fields, dict):
            yield from ((f"{part}.{name}", str(value)) for name, value in fields.items())


def _tags(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield from (("run_id", manifest.run_id), ("group", manifest.group), ("status", manifest.status))
    yield from (("tool_version", manifest.tool_version), ("host", str(manifest.host.hostname_hash)))


def _key(name: str) -> str:
    return NOT_A_KEY.sub("_", name)
