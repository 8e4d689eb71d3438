"""Requests as tools tell them → records, and which stretch of them is steady."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.importing import requests, steady
from profiler.importing.requests import Told, outcome_of, records, spread
from profiler.schema import LoadPoint

S = 10**9
TIMES = st.floats(0, 1e5)
GAPS = st.lists(st.floats(1e-9, 100), min_size=0, max_size=30)
TOLD = st.builds(
    lambda sent, wait, ttft, gaps: Told(
        sent=sent, due=sent - wait, tokens=list(accumulate([sent + ttft, *gaps])), input_tokens=7
    ),
    TIMES,
    st.floats(0, 10),
    st.floats(1e-6, 100),
    GAPS,
)


@given(st.lists(TOLD, min_size=1, max_size=20))
def test_records_keep_every_time(told):
    found = records(told)
    assert min(each.due_ns for each in found) == 0
    assert [each.due_ns for each in found] == sorted(each.due_ns for each in found)
    ordered = sorted(told, key=lambda each: (each.due, each.sent))
    for record, each in zip(found, ordered, strict=True):
        assert record.sent_ns - record.due_ns == pytest.approx((each.sent - each.due) * S, abs=50)
        assert record.first_ns - record.sent_ns == pytest.approx((each.tokens[0] - each.sent) * S, abs=50)
        assert record.last_ns - record.first_ns == pytest.approx(
            (each.tokens[-1] - each.tokens[0]) * S, abs=50
        )
        assert (record.output_tokens, sum(record.arrival_tokens)) == (len(each.tokens),) * 2
        assert record.outcome == "ok"
        assert record.error is None


def test_a_tool_that_sends_early_wanted_it_then():
    (record,) = records([Told(sent=1.0, due=1.5)])
    assert record.due_ns == record.sent_ns == 0


@given(first=TIMES, span=st.floats(1e-3, 100), tokens=st.integers(1, 500))
def test_tokens_spread_between_first_and_last(first, span, tokens):
    times = spread(first, first + span, tokens)
    assert len(times) == tokens
    assert times == sorted(times)
    assert times[0] == first
    assert tokens == 1 or times[-1] == first + span


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        ("Internal Server Error", None, ("http_error", 500)),
        ("Too Many Requests", None, ("http_error", 429)),
        (
            "HTTPStatusError(\"Server error '503 Service Unavailable' for url 'http://h'\")",
            None,
            ("http_error", 503),
        ),
        ("x", 500, ("http_error", 500)),
        ("aiohttp.ClientPayloadError: Response payload is not completed", None, ("reset", None)),
        ("ConnectionResetError(104, 'Connection reset by peer')", None, ("reset", None)),
        ("ReadError('')", None, ("reset", None)),
        ("ConnectError: connection refused", None, ("connect_error", None)),
        ("asyncio.TimeoutError", None, ("total_timeout", None)),
        ("json.decoder.JSONDecodeError: Expecting value", None, ("malformed", None)),
        ("Never received a valid chunk to calculate TTFT.", None, ("empty", None)),
        ("something else", None, ("failed", None)),
        (None, None, ("failed", None)),
    ],
)
def test_failures_by_our_names(error, status, outcome):
    assert outcome_of(error, status) == outcome


def test_of_a_traceback_its_last_line_is_kept():
    (record,) = records([Told(sent=0.0, error='Traceback:\n  File "x"\nValueError: bad\n')])
    assert record.error == "ValueError: bad"


def closed(streams, rounds, ttft=0.1, answer=1.0):
    """Streams that begin a little apart, each sending its next request when the last has ended."""
    return records(
        [
            Told(
                sent=slot * 0.01 + turn * answer,
                tokens=spread(*_span(slot * 0.01 + turn * answer, ttft, answer)),
            )
            for slot in range(streams)
            for turn in range(rounds)
        ]
    )


def _span(sent, ttft, answer):
    return sent + ttft, sent + answer, 10


def test_a_closed_loop_is_steady_from_the_first_tokens_to_the_last_sending():
    held = closed(streams=4, rounds=10)
    found = steady.window(LoadPoint(mode="closed", concurrency=4), held)
    assert found.start_ns == round(0.13 * S)
    assert found.end_ns == round(9.03 * S)
    assert "0.13–9.03 s of 10.03 s" in found.note


def test_all_of_it_where_asked_and_where_it_is_too_short():
    point = LoadPoint(mode="closed", concurrency=4)
    for found in (steady.window(point, closed(4, 10), whole=True), steady.window(point, closed(4, 2))):
        assert found.start_ns == 0
        assert "all of the run" in found.note
    assert "too short for a steady window" in steady.window(point, closed(4, 2)).note


def test_an_open_loop_begins_when_the_first_answer_ended():
    held = records([Told(sent=n * 0.2, tokens=[n * 0.2 + 0.1, n * 0.2 + 0.5]) for n in range(30)])
    found = steady.window(LoadPoint(mode="open", requests_per_s=5.0), held)
    assert (found.start_ns, found.end_ns) == (S // 2, round(5.8 * S))


def test_a_window_ends_within_the_run():
    told = [Told(sent=n * 0.2, tokens=[n * 0.2 + 0.1, n * 0.2 + 0.15]) for n in range(30)]
    held = records([*told, Told(sent=6.5, cancelled=True)])
    found = steady.window(LoadPoint(mode="open", requests_per_s=5.0), held)
    assert "0.15–6.50 s of 6.50 s" in found.note


def test_without_an_answer_there_is_no_window():
    held = records([Told(sent=n * 1.0, error="no") for n in range(20)])
    assert steady.window(LoadPoint(mode="closed", concurrency=1), held)[:2] == (None, None)


def test_alike():
    assert requests.alike([3, 3, 3]) == 3
    assert requests.alike([3, 4]) is None
    assert requests.alike([]) is None
