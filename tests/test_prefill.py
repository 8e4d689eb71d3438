from __future__ import annotations

import pytest
from msgspec.structs import replace

from profiler import prefill
from profiler.schema import LoadPoint
from tests.cost.load import figures

MANY = LoadPoint(mode="closed", concurrency=8)


def test_prefill_is_taken_apart_at_concurrency_one_or_from_answers_of_one_token():
    many = replace(figures(), point=MANY)
    assert prefill.s_per_token([many]) is None
    assert prefill.s_per_token([many, figures()]).value == pytest.approx(0.002)
    alone = replace(figures(input_tokens_per_s=4000.0, output_tokens_mean=1.0), point=MANY)
    assert prefill.s_per_token([figures(), alone]).value == pytest.approx(1 / 4000)


def test_unknown_prompt_lengths_leave_the_split_unknown():
    assert prefill.s_per_token([figures(input_tokens_mean=None)]) is None
