"""How long a window takes, before it is held (what a whole trial or sweep takes is tested with those)."""

from __future__ import annotations

import msgspec
import pytest

from profiler import pace
from profiler.settings import Measure


def test_windows_last_whole_multiples_until_enough_requests_are_complete():
    measure = msgspec.structs.replace(
        Measure(), warmup_s=5.0, window_s=10.0, max_window_s=100.0, min_requests=20
    )
    assert pace.window_s(measure, 4, requests_per_s=1.0) == pytest.approx(5 + 20 + 4)
    assert pace.window_s(measure, 64, requests_per_s=1.0) == pytest.approx(5 + 70 + 64)
    assert pace.window_s(measure, 4, requests_per_s=0.01) == pytest.approx(5 + 100 + 400)
