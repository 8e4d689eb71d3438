import json

import pytest

from profiler.loadgen.decode import decode
from profiler.loadgen.exchange import Exchange
from profiler.schema import Endpoint
from profiler.workload import PlannedRequest

IDS = Endpoint(base_url="http://h/v1", model="m")
TEXT = Endpoint(base_url="http://h/v1", model="m", prompt="text", returns_ids=False)
CHAT = Endpoint(base_url="http://h/v1", model="m", prompt="text", protocol="chat", returns_ids=False)
DONE = "[DONE]"


def event(content):
    return b"data: " + (content if isinstance(content, str) else json.dumps(content)).encode() + b"\n\n"


def ids(*tokens, finish=None, text=""):
    return {"choices": [{"index": 0, "text": text, "token_ids": list(tokens), "finish_reason": finish}]}


def words(text, finish=None):
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish}]}


def delta(finish=None, **fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def usage(prompt, completion):
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def record(pieces, endpoint=IDS, *, wanted=3, status=200, failure=None, stamps=None):
    """One piece a list of events (or bytes); stamps 100, 110, 120, … unless given."""
    exchange = Exchange(PlannedRequest(5, 4, wanted), due_ns=50)
    exchange.sent_ns = 60
    exchange.status = status
    exchange.failure = failure
    for number, piece in enumerate(pieces):
        exchange.pieces.append(piece if isinstance(piece, bytes) else b"".join(map(event, piece)))
        exchange.stamps.append(stamps[number] if stamps else 100 + 10 * number)
    exchange.end_ns = 999
    return decode(exchange, endpoint, window=2)


GOOD = [[ids(1)], [ids(2)], [ids(3, finish="length")], [usage(4, 3), DONE]]


def test_one_token_a_chunk():
    got = record(GOOD)
    assert got.outcome == "ok"
    assert got.error is None
    assert (got.window, got.index, got.due_ns, got.sent_ns) == (2, 5, 50, 60)
    assert got.arrivals_ns == [100, 110, 120]
    assert got.arrival_tokens == [1, 1, 1]
    assert (got.first_ns, got.last_ns, got.done_ns) == (100, 120, 999)
    assert (got.input_tokens, got.output_tokens) == (4, 3)
    assert (got.reported_input_tokens, got.reported_output_tokens) == (4, 3)
    assert (got.planned_input_tokens, got.planned_output_tokens) == (4, 3)


def test_several_tokens_a_chunk_and_an_empty_first_chunk_with_the_prompts_ids():
    first = {"choices": [{"text": "", "token_ids": [], "prompt_token_ids": [9, 9], "finish_reason": None}]}
    got = record([[first], [ids(1, 2)], [ids(3, finish="length"), usage(4, 3), DONE]])
    assert got.outcome == "ok"
    assert got.arrivals_ns == [110, 120]
    assert got.arrival_tokens == [2, 1]


def test_event_cut_across_pieces_belongs_to_the_piece_that_completes_it():
    whole = b"".join(b"".join(map(event, piece)) for piece in GOOD)
    for cut in range(1, len(whole)):
        got = record([whole[:cut], whole[cut:]], stamps=[100, 200])
        assert got.outcome == "ok"
        early = sum(whole.find(event(piece[0])) + len(event(piece[0])) <= cut for piece in GOOD[:3])
        assert got.arrivals_ns == [100] * early + [200] * (3 - early)


def test_text_chunks_count_one_each_and_usage_wins_for_the_total():
    stream = [[words("a")], [words("")], [words(" bc", "length")], [usage(6, 3), DONE]]
    got = record(stream, TEXT)
    assert got.outcome == "ok"
    assert got.arrival_tokens == [1, 1]
    assert got.output_tokens == got.reported_output_tokens == 3
    assert got.input_tokens == 6


def test_pieces_without_ids_or_usage_are_no_count():
    # Three pieces of three tokens, or of twelve: nobody can tell.
    got = record([[words("a"), words("b"), words("c", "length"), DONE]], TEXT)
    assert got.outcome == "malformed"
    assert "no token count" in got.error
    assert (got.output_tokens, got.reported_output_tokens, got.input_tokens) == (0, None, None)


def test_ids_need_no_usage():
    got = record([[ids(1)], [ids(2, 3, finish="length"), DONE]])
    assert (got.outcome, got.output_tokens, got.reported_output_tokens) == ("ok", 3, None)


def test_an_answer_cut_off_before_its_usage_keeps_its_pieces_as_lower_bound():
    got = record([[words("a"), words("b")]], TEXT, failure="reset")
    assert (got.outcome, got.output_tokens) == ("reset", 2)


def test_chat_ignores_role_and_usage_and_counts_reasoning():
    stream = [
        [delta(role="assistant", content="")],
        [delta(reasoning_content="hm")],
        [delta(reasoning="so")],
        [delta(content="Yes")],
        [delta(finish="stop")],
        [usage(12, 3), DONE],
    ]
    got = record(stream, CHAT)
    assert got.outcome == "ok"
    assert got.arrivals_ns == [110, 120, 130]
    assert got.first_ns == 110


def test_chat_with_ids_counts_ids_even_where_the_text_is_held_back():
    held_back = {"choices": [{"delta": {}, "token_ids": [7, 8], "finish_reason": None}]}
    last = {"choices": [{"delta": {"content": "x"}, "token_ids": [9], "finish_reason": "length"}]}
    got = record([[delta(role="assistant")], [held_back], [last, usage(4, 3), DONE]], CHAT)
    assert (got.outcome, got.arrival_tokens) == ("ok", [2, 1])


@pytest.mark.parametrize(
    ("pieces", "options", "outcome", "said"),
    [
        ([], {}, "empty", "no tokens"),
        ([[ids(finish="stop"), usage(4, 0), DONE]], {}, "empty", "no tokens"),
        ([[ids(1)], [ids(2, finish="stop"), usage(4, 2), DONE]], {}, "short", "2 of 3 tokens"),
        ([[ids(1, 2, 3, 4, finish="length"), DONE]], {}, "malformed", "4 tokens came, 3 were asked for"),
        ([*GOOD[:3], [usage(4, 3)]], {}, "no_end", "[DONE]"),
        ([[ids(1, 2, 3)], [DONE]], {}, "no_end", "finish reason"),
        ([[ids(1)], [{"error": {"message": "engine dead"}}], [DONE]], {}, "stream_error", "engine dead"),
        ([[ids(1)], b"event: error\ndata: {}\n\n"], {}, "stream_error", ""),
        ([[{"object": "error", "message": "old vLLM"}]], {}, "stream_error", "old vLLM"),
        ([[ids(1)], b'data: {"choices": [{"te\n\n', *GOOD[1:]], {}, "malformed", "choices"),
        ([b'{"choices": []}'], {}, "malformed", "not an event stream"),
        ([b'{"detail":"no model"}'], {"status": 404}, "http_error", 'HTTP 404: {"detail":"no model"}'),
        ([[ids(1)]], {"failure": "reset"}, "reset", None),
        ([[ids(1)]], {"failure": "gap_timeout"}, "gap_timeout", None),
        ([[ids(1)], [{"error": "x"}]], {"failure": "reset"}, "stream_error", "x"),
        ([], {"status": None, "failure": "connect_error"}, "connect_error", None),
        ([[ids(1)]], {"failure": "cancelled"}, "cancelled", None),
    ],
)  # fmt: skip
def test_outcomes(pieces, options, outcome, said):
    got = record(pieces, **options)
    assert got.outcome == outcome
    if said is not None:
        assert said in got.error


def test_null_error_is_no_error():
    pieces = [[{**ids(1), "error": None}], *GOOD[1:]]
    assert record(pieces).outcome == "ok"


def test_early_stop_is_fine_only_where_the_end_could_not_be_ignored():
    stream = [[words("a")], [words("b", "stop"), usage(4, 2), DONE]]
    assert record(stream, TEXT).outcome == "ok"
    assert record(stream, Endpoint(base_url="u", model="m", ignores_eos=False)).outcome == "ok"
    assert record(stream, IDS).outcome == "short"
    capped = [[words("a")], [words("b", "length"), usage(4, 2), DONE]]
    assert record(capped, TEXT).outcome == "short"


def test_long_error_bodies_are_clipped():
    got = record([b"x" * 5000], status=500)
    assert got.outcome == "http_error"
    assert len(got.error) < 350
    assert got.status == 500


def test_end_mark_with_a_single_line_end_counts():
    assert record([*GOOD[:3], b"data: [DONE]\n"]).outcome == "ok"
