"""Sealed runs of the user's move a plan towards what was measured."""

from __future__ import annotations

import msgspec
import pytest

from profiler import models
from profiler.errors import InputError
from profiler.plan.calibration import deployment, from_runs
from profiler.plan.rows import row_at
from profiler.settings import EngineSettings
from tests import make
from tests.plan.ask import DENSE_14B, placement

HOST = msgspec.structs.replace(make.HOST, gpus=(make.GPU,))


def sealed(folder, **changes):
    """A closed loop of one request: 20 ms between tokens."""
    known = {
        "host": HOST,
        "model": models.resolve(DENSE_14B, "random"),
        "settings": EngineSettings(kind="vllm", tensor_parallel=1, routing="uniform"),
    }
    writer = make.writer(folder, [make.steady(0, 10.0)], **(known | changes))
    writer.seal()
    return writer.folder


def test_a_slower_machine_is_learnt(tmp_path):
    what = placement(DENSE_14B, 1, "workload.input_tokens=10", "workload.output_tokens=5")
    plain = row_at(what.question, what, 1, None)
    taught = row_at(what.question, what, 1, from_runs([sealed(tmp_path)]))
    assert (plain["calibrated"], taught["calibrated"]) == (False, True)
    assert abs(taught["tpot_s"] - 0.02) < 0.7 * abs(plain["tpot_s"] - 0.02)


def test_what_was_measured_is_known_again(tmp_path):
    from profiler import store

    found = deployment(store.load(sealed(tmp_path)))
    assert (found.gpu.gpu, found.tensor, found.cv, found.execution) == ("H100 SXM5 80GB", 1, 0.0, "graph")
    eager = sealed(tmp_path, run_id="other", settings=EngineSettings(kind="transformers"))
    assert deployment(store.load(eager)).execution == "eager"


def test_a_cpu_without_a_sheet_says_what_would_mend_it(tmp_path):
    folder = sealed(tmp_path, host=make.HOST)
    with pytest.raises(InputError, match="in no GPU sheet; `profile doctor --measure` writes one"):
        from_runs([folder])


def test_an_endpoints_inside_is_not_known(tmp_path):
    folder = sealed(tmp_path, model=models.remote(DENSE_14B))
    with pytest.raises(InputError, match="the model's config is not in it"):
        from_runs([folder])
