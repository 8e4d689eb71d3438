from __future__ import annotations

import math
import re

import pytest

from profiler import metrics, steadiness, store
from profiler.schema import Imported, LoadPoint
from profiler.windows import WindowView
from tests import make

S = make.S
TOKENS = 80
IMPORTED = Imported(tool="a tool", file="its.json", sha256="0")


def answer(window, index, due_s, e2e_s, wait_frac=0.0):
    """One answer of TOKENS tokens that takes ``e2e_s``, its tokens evenly spread after the wait."""
    shares = [wait_frac + (1 - wait_frac) * (n + 1) / TOKENS for n in range(TOKENS)]
    arrivals = [round((due_s + e2e_s * share) * S) for share in shares]
    return make.request(
        window,
        index,
        due_s,
        first_ns=arrivals[0],
        last_ns=arrivals[-1],
        done_ns=arrivals[-1] + 1000,
        output_tokens=TOKENS,
        reported_output_tokens=TOKENS,
        arrivals_ns=arrivals,
        arrival_tokens=[1] * TOKENS,
    )


def held(index, start_s, e2e_s, span_s=20.0, wait_frac=0.0, **changes):
    """A window of one slot whose answers take ``e2e_s(share of the window)`` and a little scatter."""
    requests, at = [], start_s
    while at < start_s + span_s:
        share = (at - start_s) / span_s
        takes = e2e_s(share) * (1 + 0.01 * math.sin(7.3 * len(requests) ** 2))
        requests.append(answer(index, len(requests), at, takes, wait_frac))
        at += takes
    return make.window(index, start_s, start_s + span_s, **changes), requests


def notes(tmp_path, windows, samples=None, **changes):
    run = make.writer(tmp_path, windows, **changes)
    if samples:
        run.samples_path.write_bytes(make.sample_lines(samples))
    run.seal()
    [point] = metrics.points(store.load(run.folder))
    return [each for each in point.notes if each.startswith(steadiness.PREFIX) or "preempted" in each]


def view(tmp_path, e2e_s):
    run = make.writer(tmp_path, [held(0, 10, e2e_s)])
    run.seal()
    sealed = store.load(run.folder)
    return WindowView(sealed.manifest.windows[0], sealed.requests)


def test_a_steady_window_has_no_note(tmp_path):
    assert notes(tmp_path, [held(0, 10, lambda share: 0.2), held(1, 40, lambda share: 0.2)]) == []


def test_a_jump_says_when(tmp_path):
    slower = held(0, 10, lambda share: 0.2 if share < 0.5 else 0.25)
    [note] = notes(tmp_path, [slower, held(1, 40, lambda share: 0.2)])
    assert note.startswith("not steady: output tokens/s fell by 2")
    after = re.search(r"after ([\d.]+) s of window 0 \(so or alike in 1 of 2 windows\)$", note)
    assert float(after.group(1)) == pytest.approx(10, abs=0.5)


def test_a_drift(tmp_path):
    [note] = notes(tmp_path, [held(0, 10, lambda share: 0.2 * (1 + 0.15 * share))])
    assert note == "not steady: output tokens/s fell by 13% in the course of window 0"


def test_a_slow_beginning(tmp_path):
    [note] = notes(tmp_path, [held(0, 10, lambda share: 0.2 * (1 + 0.8 * math.exp(-share * 25)))])
    assert note == "not steady: output tokens/s was 11% lower in the first 5.15 s of window 0 (warm-up?)"


def test_a_drift_from_window_to_window(tmp_path):
    windows = [held(n, 10 + 30 * n, lambda share, n=n: 0.2 * (1 + 0.01 * n)) for n in range(12)]
    [note] = notes(tmp_path, windows)
    assert note == "not steady: output tokens/s fell by 10% from window 0 to window 11"
    other_start = [
        (make.msgspec.structs.replace(each, engine_start=each.index), records) for each, records in windows
    ]
    assert notes(tmp_path / "other", other_start) == []


def test_an_open_loop_tells_nothing(tmp_path):
    point = LoadPoint(mode="open", requests_per_s=5.0)
    slower = held(0, 10, lambda share: 0.2 if share < 0.5 else 0.3, point=point)
    assert notes(tmp_path, [slower]) == []


def test_of_an_imported_run_that_tells_no_gaps_nothing_is_known(tmp_path):
    slower = [held(0, 10, lambda share: 0.2 if share < 0.5 else 0.25)]
    for known, notes_wanted in ((False, 0), (True, 1)):
        told = make.msgspec.structs.replace(IMPORTED, gaps_known=known)
        assert len(notes(tmp_path / str(known), slower, imported=told)) == notes_wanted


def test_too_few_answers_tell_nothing(tmp_path):
    assert steadiness.rate_slices(view(tmp_path, lambda share: 6.0)) is None


def test_the_waves_of_answers_are_no_change(tmp_path):
    """Half of every answer is a wait for its first token: slices shorter than answers would be empty."""
    waves = held(0, 10, lambda share: 1.3, wait_frac=0.5)
    assert notes(tmp_path, [waves]) == []
    sealed = store.load(tmp_path / "run")
    rates = steadiness.rate_slices(WindowView(sealed.manifest.windows[0], sealed.requests))
    assert rates.max() < 1.7 * rates.min()


def test_slices_hold_every_token_of_the_window(tmp_path):
    found = view(tmp_path, lambda share: 0.2)
    rates = steadiness.rate_slices(found)
    inside = found.within(found.arrived_output[0]).sum()
    assert rates.mean() * found.span_s == pytest.approx(inside)
    assert rates == pytest.approx([400] * len(rates), rel=0.07)


def clocks(mhz, start_s=10.0):
    return [(start_s + n / 2, "gpu:GPU-1", "sm_clock_mhz", mhz(n)) for n in range(41)]


def test_clocks_that_fall(tmp_path):
    host = make.msgspec.structs.replace(make.HOST, gpus=(make.GPU,))
    facts = {
        "host": host,
        "engine": make.EngineFacts(kind="vllm", version="1", device="cuda", gpus=("GPU-1",)),
    }
    still = [held(0, 10, lambda share: 0.2)]
    assert notes(tmp_path / "a", still, clocks(lambda n: 1980), **facts) == []
    [note] = notes(tmp_path / "b", still, clocks(lambda n: 1980 if n < 20 else 1600), **facts)
    assert note.startswith("not steady: the clock of ")
    assert "fell by 21% after 9.76 s of window 0" in note


def test_preempted_requests_are_told(tmp_path):
    counted = [(10.0 + n, "engine:m", "preemptions", 3 + n // 10) for n in range(20)]
    [note] = notes(tmp_path, [held(0, 10, lambda share: 0.2)], counted)
    assert note == "the engine preempted 1 requests for want of memory, and did their work again"
