"""A run of a million token arrivals: its report is made within bounds and opens at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from profiler.schema import LoadPoint
from tests import make
from tests.browser.conftest import Open, until
from tests.report import building

REQUESTS, TOKENS, LOADS = 1000, 500, (32, 64)


def answered(window: int, index: int, due_s: float):
    begin = round(due_s * make.S) + make.S // 10
    arrivals = [begin + token * make.S // 50 for token in range(TOKENS)]
    return make.request(
        window,
        index,
        due_s,
        arrivals_ns=arrivals,
        arrival_tokens=[1] * TOKENS,
        output_tokens=TOKENS,
        planned_output_tokens=TOKENS,
        reported_output_tokens=TOKENS,
        first_ns=arrivals[0],
        last_ns=arrivals[-1],
        done_ns=arrivals[-1] + 1000,
    )


def million(folder: Path) -> Path:
    windows = []
    for place, load in enumerate(LOADS):
        begin, apart = 1000.0 * (place + 1), 10.1 / load
        point = LoadPoint(mode="closed", concurrency=load)
        window = make.window(place, begin + 10, begin + REQUESTS * apart - 12, point=point)
        windows.append((window, [answered(place, each, begin + each * apart) for each in range(REQUESTS)]))
    run = make.writer(folder, windows, run_id="million")
    run.seal()
    return run.folder


@pytest.mark.timing
def test_a_million_tokens(opened: Open, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    took = building.report(million(tmp_path), report)
    assert took.seconds < 10
    assert took.kib < 1 << 20, "1 GiB"
    assert report.stat().st_size < 6e6
    begun = time.perf_counter()
    page = opened(report)
    until(lambda: page.locator("figure[data-drawn]").count() > 0)
    assert time.perf_counter() - begun < 3
