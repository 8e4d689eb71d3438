"""Figures of a sealed run."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler import figures, store
from profiler.schema import Imported
from tests import make
from tests.test_consumption import board_rows, rapl_rows, scenario, sealed


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pue=st.floats(1, 3))
@pytest.mark.parametrize(
    "rows", [board_rows(), board_rows() + rapl_rows(), []], ids=["board", "host", "none"]
)
def test_a_pue_given_afterwards_is_as_one_the_run_was_made_with(tmp_path_factory, rows, pue):
    folder = tmp_path_factory.mktemp("pue")
    asked = [
        sealed(folder / name, rows, scenario=scenario(pue=each)) for name, each in (("a", None), ("b", pue))
    ]
    without, with_it = (each for run in asked for each in figures.of_run(run))
    given_later = figures.with_pue(without, pue)
    same = {"run": with_it.run, "facts": given_later.facts | {"run": with_it.run}}
    plain = msgspec.structs.replace(given_later, **same)
    assert plain.facts == with_it.facts
    assert plain.estimates.keys() == with_it.estimates.keys()
    for name, each in plain.estimates.items():
        assert each.value == pytest.approx(with_it.estimates[name].value), name


def test_an_imported_run_names_its_tool(tmp_path):
    told = Imported(tool="guidellm", version="0.3", file="x.json", sha256="0" * 64)
    run = make.writer(tmp_path, [make.steady(0, 10.0)], imported=told)
    (found,) = figures.of_run(store.load(run.folder))
    assert found.facts["imported"] == "guidellm 0.3"


def test_what_was_asked_for_tells_runs_of_one_name_apart(tmp_path):
    longer = msgspec.structs.replace(
        make.SCENARIO, workload=msgspec.structs.replace(make.SCENARIO.workload, output_tokens=6)
    )
    louder = msgspec.structs.replace(
        make.SCENARIO, load=msgspec.structs.replace(make.SCENARIO.load, concurrency=(1, 8))
    )
    found = [
        next(
            figures.of_run(
                store.load(make.writer(tmp_path, [make.steady(0, 10.0)], run_id=name, scenario=each).folder)
            )
        )
        for name, each in (("a", make.SCENARIO), ("b", longer), ("c", louder))
    ]
    assert found[0].work != found[1].work
    assert found[0].work == found[2].work
