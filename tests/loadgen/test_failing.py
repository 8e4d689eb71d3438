"""Is a server that fails one to be measured still?"""

from __future__ import annotations

import pytest

from profiler.loadgen import failing as module
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.failing import Failing
from profiler.schema import Endpoint
from profiler.workload import PlannedRequest

ENDPOINT = Endpoint(base_url="http://127.0.0.1:1/v1", model="m", vocab_size=100)


def failed(what):
    """An exchange that was refused with this status, or failed in this way."""
    exchange = Exchange(PlannedRequest(0, 1, 1), 0)
    if isinstance(what, int):
        exchange.status = what
    else:
        exchange.failure, exchange.error = what, f"as told: {what}"
    return exchange


@pytest.mark.parametrize(
    ("row", "had_token", "why"),
    [
        ([429] * 8, False, None),
        ([429, 502, 503, 504] * 2, False, None),
        ([429] * 8, True, None),
        ([429, "first_token_timeout"] * 4, True, None),
        ([429, "reset"] * 4, True, None),
        (["total_timeout"] * 8, True, None),
        (["first_token_timeout"] * 8, False, "answers with nothing but failures: as told: first_token"),
        ([429, 401] * 4, False, "answers with nothing but failures: HTTP 401"),
        ([401] * 8, True, "answers with nothing but failures: HTTP 401"),
        ([404] * 8, False, "answers with nothing but failures: HTTP 404"),
        ([500] * 8, True, "answers with nothing but failures: HTTP 500"),
        (["malformed"] * 8, True, "answers with nothing but failures: as told: malformed"),
        (["connect_error", "reset"] * 4, True, "stopped answering: as told: reset"),
    ],
)
def test_too_much_load_is_data_and_all_else_is_a_lost_server(row, had_token, why):
    failing = Failing(ENDPOINT)
    assert not any(list(map(failing.add, map(failed, row))))
    assert failing.in_row == len(row)
    found = failing.why_lost(had_token)
    assert found is None if why is None else found.startswith(why)


def test_answers_that_were_cut_off_are_not_parsed_inside_the_window(monkeypatch):
    def parse(_):
        raise AssertionError("parsed")

    monkeypatch.setattr(module, "read", parse)
    failing = Failing(ENDPOINT)
    for status, error, told in ((200, "connection lost", "connection lost"), (None, None, "reset")):
        cut = failed("reset")
        cut.status, cut.error = status, error
        cut.pieces = [b'data: {"choices": [{"token_ids": [1]}]}\n\n'] * 1000
        cut.stamps.extend(range(1000))
        assert not failing.add(cut)
        assert failing.last == told
