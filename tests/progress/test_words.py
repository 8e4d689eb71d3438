"""Words for loads, speeds, readings and spans of time."""

from __future__ import annotations

import sys

import pytest

from profiler.client import ClientAudit
from profiler.progress import words
from profiler.progress.readings import NOTHING, Readings
from profiler.schema import LoadPoint
from tests.progress.telling import SLOT, held, progress


def test_a_window_and_its_speed():
    assert words.label("m", SLOT) == "m · concurrency 8 · repeat 2"
    assert words.speed(progress()) == "measuring · 1,234 tokens/s · 124 requests · 2 failed"
    after = progress(phase="decoding", chunks_per_s=None, decoded_frac=0.426, failed=0)
    assert words.speed(after) == "decoding 43% · 124 requests"


def test_a_load_is_named_in_its_own_unit():
    assert words.load_words(LoadPoint(mode="open", requests_per_s=12.3456)) == "12.35 requests/s"
    assert words.load_words(LoadPoint(mode="batch", concurrency=64)) == "batch of 64"


def test_what_is_not_read_is_not_said():
    assert list(words.readings_words(NOTHING)) == []
    idle = Readings(power_w=0.0, power_of="cpu", running=0, waiting=0, kv_used_frac=0.0)
    assert list(words.readings_words(idle)) == ["0 running, 0 waiting", "0 W, CPU", "KV cache 0%"]
    made_up = Readings(power_w=1234.5, power_of="gpu", is_made_up=True)
    assert list(words.readings_words(made_up)) == ["1,234 W, made up"]


def test_shares_small_and_large():
    assert [words.used(frac) for frac in (0, 1e-5, 0.003, 0.34)] == ["0%", "<0.1%", "0.3%", "34%"]
    assert words.precision_words(0.024, 3) == "±2.4% after 3 windows"
    assert words.precision_words(12.345, 2) == "±1,234% after 2 windows"


def test_what_spoils_a_measurement_is_said():
    bad = Readings(held_back=("software power cap",), is_shared=True, is_lost=True)
    assert list(words.readings_words(bad)) == [
        "⚠ a GPU has fallen off the bus",
        "⚠ clocks held back: software power cap",
        "⚠ others use the GPUs",
    ]
    bound = ClientAudit(
        cpu_frac=1, loop_lag_p99_s=1, send_lag_p99_s=1, chunks=1, bound_by=("send lag", "cpu")
    )
    assert list(words.troubles(held(trouble="never steady", audit=bound))) == [
        "never steady",
        "the client was the limit (send lag; cpu)",
    ]
    assert list(words.troubles(held())) == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0:00"), (7, "0:07"), (750, "12:30"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_spans_of_time(seconds, said):
    assert words.clock(seconds) == said


def test_time_left_is_said_where_it_is_known_and_worth_it():
    assert words.time_left(750) == "about 12:30 left"
    assert words.time_left(0.2) == words.time_left(None) == ""


def test_that_nobody_listens_ends_no_run(monkeypatch):
    class Gone:
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    words.out("a line")
