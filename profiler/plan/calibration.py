"""What sealed runs of the user's teach the predictor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from profiler import arch, catalog, experts, store
from profiler.errors import InputError
from profiler.store import RunResult
from profiler.weight_sizes import widths

if TYPE_CHECKING:
    from profiler.predict import Calibration, Deployment, Point


def from_runs(paths: Sequence[Path]) -> Calibration:
    """Raises InputError where a run has no GPU of the sheet, or no steady load of a model we know."""
    from profiler import predict

    points: list[Point] = []
    for run in store.find(paths):
        points += predict.points_of(run, deployment(run))
    if not points:
        raise InputError("--calibrate: none of these runs has a steady closed loop or batch")
    return predict.calibrate(points)


def deployment(run: RunResult) -> Deployment:
    """What was measured, as the predictor sees it."""
    from profiler import predict

    made = run.manifest
    if made.model.config is None:
        raise InputError(f"--calibrate {run.folder}: the model's config is not in it")
    gpus = made.host.gpus
    spec = (
        catalog.match_gpu(gpus[0].name, gpus[0].memory_bytes)
        if gpus
        else catalog.match_gpu(made.host.cpu or "", cores=made.host.cores)
    )
    if spec is None:
        what = gpus[0].name if gpus else made.host.cpu
        raise InputError(
            f"--calibrate {run.folder}: {what} is in no GPU sheet; `profile doctor --measure` writes one"
        )
    routing = made.settings.routing
    asked = experts.parse(routing) if isinstance(routing, str) and routing != "auto" else "model"
    return predict.Deployment(
        shape=arch.shape(made.model.config),
        widths=widths(made.model, made.settings.dtype),
        gpu=spec,
        tensor=made.settings.tensor_parallel or 1,
        cv=0.0 if asked == "uniform" else None if asked == "model" else asked,
        execution="eager" if made.settings.kind == "transformers" else "graph",
    )
