from __future__ import annotations

from itertools import groupby

import pytest

from profiler.errors import EngineError
from profiler.measure import describe, schedule, without_secrets
from profiler.schema import LoadPoint
from profiler.settings import EngineSettings

ONE, EIGHT = LoadPoint(mode="closed", concurrency=1), LoadPoint(mode="closed", concurrency=8)


def test_resident_models_alternate_window_by_window():
    order = [
        (s.repeat, s.point.concurrency, s.subject) for s in schedule(2, [ONE, EIGHT], 2, exclusive=False)
    ]
    assert order == [(0, 1, 0), (0, 1, 1), (0, 8, 0), (0, 8, 1), (1, 1, 1), (1, 1, 0), (1, 8, 1), (1, 8, 0)]


def test_exclusive_models_alternate_by_engine_start():
    slots = list(schedule(2, [ONE, EIGHT], 3, exclusive=True))
    blocks = [subject for subject, _ in groupby(slots, key=lambda s: (s.repeat, s.subject))]
    assert [subject for _, subject in blocks] == [0, 1, 1, 0, 0, 1]
    assert all(len(list(held)) == 2 for _, held in groupby(slots, key=lambda s: (s.repeat, s.subject)))


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("subjects", [1, 2, 3])
def test_every_window_is_held_exactly_once(subjects, exclusive):
    slots = list(schedule(subjects, [ONE, EIGHT], 4, exclusive))
    assert len(slots) == len(set(slots)) == subjects * 2 * 4


def test_no_model_is_always_first():
    firsts = {next(iter(g)).subject for _, g in groupby(schedule(3, [ONE], 3, False), key=lambda s: s.repeat)}
    assert firsts == {0, 1, 2}


def test_secrets_are_left_out_and_the_rest_kept():
    nested = {"model_loader_extra_config": {"token": "x", "workers": 2}, "api-key": "x", "key_env": "MY_KEY"}
    settings = EngineSettings(
        env={"HF_TOKEN": "x", "AWS_SECRET_ACCESS_KEY": "x", "OMP_NUM_THREADS": "2"}, args=nested
    )
    safe = without_secrets(settings)
    assert safe.env == {"OMP_NUM_THREADS": "2"}
    assert safe.args == {"model_loader_extra_config": {"workers": 2}, "key_env": "MY_KEY"}
    batched = EngineSettings(args={"max_num_batched_tokens": 5})
    assert without_secrets(batched) == batched


def test_how_a_run_ended():
    assert describe(KeyboardInterrupt()) == ("interrupted", "interrupted by the user")
    assert describe(EngineError("vllm died", ["line"])) == ("failed", "vllm died\nline")
    assert describe(ValueError()) == ("failed", "ValueError")
