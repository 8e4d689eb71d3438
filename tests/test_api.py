"""``import profiler``: what a Python user has beside the command."""

from __future__ import annotations

import pytest

import profiler
from profiler.errors import InputError


def test_claims_are_judged_again_and_again():
    """Not ``profiler.claims``: that is the package which the first call imports."""
    for _ in range(2):
        (ruling,) = profiler.rulings(claim="tiny-moe-active-params")
        assert ruling.verdict == "supported"
        assert ruling.findings[0].ratio.value == pytest.approx(0.119, abs=1e-3)


def test_runs_and_claims_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        profiler.rulings([tmp_path], "moe-faster")
    with pytest.raises(InputError, match="unknown claim"):
        profiler.rulings(claim=["moe-fastr"])
