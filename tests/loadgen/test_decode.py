import json
from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.loadgen import decode as module
from profiler.loadgen.decode import Answer, answer_of, decode
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


def exchange_of(pieces, *, share=0, turn=0):
    exchange = Exchange(PlannedRequest(5, 4, 3, share, turn), due_ns=50)
    exchange.sent_ns, exchange.status, exchange.end_ns = 60, 200, 999
    exchange.pieces = [piece if isinstance(piece, bytes) else b"".join(map(event, piece)) for piece in pieces]
    exchange.stamps = array("q", range(100, 100 + len(pieces)))
    return exchange


PLAIN = b"".join(b"".join(map(event, piece)) for piece in GOOD)
ODD = b"\xef\xbb\xbf: hello\n\n" + PLAIN.replace(b"\n", b"\r\n", 4).replace(b"}\n\n", b"}\r\r", 1).replace(
    b': 1, "text', b': 1,\ndata:"text'
)
MODEST = PLAIN.replace(b"data: ", b"data:")
CHATTY = b"".join(
    map(event, [delta(role="assistant"), delta(content="a"), delta(reasoning="b\u2028"), delta(content="c")])
) + b"".join(map(event, [delta("length"), usage(4, 3), DONE]))


@pytest.mark.parametrize("stream", [PLAIN, ODD, MODEST, CHATTY])
def test_wherever_a_stream_is_cut_in_two_its_tokens_come_when_their_last_byte_does(stream):
    endpoint = CHAT if stream is CHATTY else IDS
    whole = decode(exchange_of([stream]), endpoint, 0)
    assert whole.outcome == "ok"
    counts = []
    for cut in range(1, len(stream)):
        got = decode(exchange_of([stream[:cut], stream[cut:]]), endpoint, 0)
        assert (got.outcome, got.output_tokens, len(got.arrivals_ns)) == ("ok", 3, 3)
        counts.append(got.arrivals_ns.count(100))
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 3)


@given(st.sampled_from([PLAIN, ODD, MODEST]), st.data())
def test_the_short_way_and_the_long_way_agree(stream, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=9)))
    exchange = exchange_of([stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])])
    slow = Answer()
    for stamp, piece in zip(exchange.stamps, exchange.pieces, strict=True):
        slow.feed(stamp, piece)
    got = decode(exchange, IDS, 0)
    assert (got.arrivals_ns, got.arrival_tokens) == (slow.arrivals_ns, slow.arrival_tokens)
    assert got.outcome == "ok"


@given(st.lists(st.binary(max_size=40), max_size=5), st.booleans())
def test_no_bytes_raise(junk, framed):
    pieces = [b"data: " + piece + b"\n\n" if framed else piece for piece in junk]
    got = decode(exchange_of(pieces), IDS, 0)
    assert got.outcome in ("malformed", "empty", "no_end", "stream_error")
    assert isinstance(answer_of(exchange_of(pieces), IDS), str)


@pytest.mark.parametrize("cut", [False, True])
def test_an_event_beyond_all_measure(monkeypatch, cut):
    monkeypatch.setattr("profiler.loadgen.sse.MAX_EVENT_BYTES", 1000)
    monkeypatch.setattr(module, "MAX_EVENT_BYTES", 1000)
    long = [event(ids(1)), event("x" * 2000), event(ids(2, 3, finish="length")), event(DONE)]
    got = decode(exchange_of(long if cut else [b"".join(long)]), IDS, 0)
    assert got.outcome == "malformed"
    assert "an event is longer" in got.error
    assert answer_of(exchange_of(long), IDS) == ""


def test_what_a_cache_held_is_recorded_where_the_server_says_so():
    said = usage(4, 3)
    said["usage"]["prompt_tokens_details"] = {"cached_tokens": 2, "audio_tokens": None}
    assert record([*GOOD[:3], [said, DONE]]).cached_tokens == 2
    assert record(GOOD).cached_tokens is None
    said["usage"]["prompt_tokens_details"] = None
    assert record([*GOOD[:3], [said, DONE]]).cached_tokens is None


def test_share_and_turn_go_into_the_record():
    got = decode(exchange_of(GOOD, share=2, turn=3), IDS, 0)
    assert (got.share, got.turn) == (2, 3)


def test_an_error_in_a_text_is_a_text():
    got = record([[ids(1, text="the error: none")], [ids(2, text='{"error": 1}')], *GOOD[2:]])
    assert got.outcome == "ok"


def test_the_answer_for_the_next_turn():
    assert answer_of(exchange_of(GOOD), IDS) == [1, 2, 3]
    assert answer_of(exchange_of([[ids(1, 2, text="a b")], [ids(3, text=" c")]]), TEXT) == "a b c"
    assert answer_of(exchange_of([[words("a"), words(" b", "length"), DONE]]), IDS) == "a b"
    assert answer_of(exchange_of([CHATTY]), CHAT) == "ac"
    for cut in range(1, len(ODD)):
        assert answer_of(exchange_of([ODD[:cut], ODD[cut:]]), IDS) == [1, 2, 3]


def test_a_refusal_says_where_else_to_go():
    exchange = exchange_of([b"moved"])
    exchange.status, exchange.error = 307, "sends us on to /v2"
    assert decode(exchange, IDS, 0).error == "HTTP 307: moved; sends us on to /v2"
    exchange.pieces, exchange.error = [b""], None
    assert decode(exchange, IDS, 0).error == "HTTP 307: no text"
