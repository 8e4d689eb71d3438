import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.loadgen import sse
from profiler.loadgen.sse import SseParser, TooLongError

STREAM = (
    b"\xef\xbb\xbfdata: first\n\n"
    b": a comment\n\n"
    b"event: error\r\ndata:no space\r\n\r\n"
    b"data: two\ndata: lines\n\n"
    b"id: 7\nretry: 10\n\n"
    b"data\rdata:  two spaces\r\r"
    b'data: {"a": "b: c"}\n\n'
    b"data: [DONE]\n\n"
)
EVENTS = [
    (b"", b"first"),
    (b"error", b"no space"),
    (b"", b"two\nlines"),
    (b"", b"\n two spaces"),
    (b"", b'{"a": "b: c"}'),
    (b"", b"[DONE]"),
]


def parse(pieces):
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_whole():
    assert parse([STREAM]) == EVENTS


def test_byte_by_byte():
    assert parse([bytes([byte]) for byte in STREAM]) == EVENTS


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_cut_with_every_line_end(end):
    stream = b"data: one\ndata: 1\n\n:c\n\ndata: two\n\n".replace(b"\n", end)
    for cut in range(len(stream) + 1):
        assert parse([stream[:cut], stream[cut:]]) == [(b"", b"one\n1"), (b"", b"two")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_any_cuts(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    assert parse([STREAM[a:b] for a, b in pairwise(edges)]) == EVENTS


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1), max_size=5),
    st.data(),
)
def test_what_is_written_is_read(texts, data):
    stream = b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)
    cut = data.draw(st.integers(0, len(stream)))
    assert parse([stream[:cut], stream[cut:]]) == [(b"", text.encode()) for text in texts]


def test_event_is_complete_with_its_blank_line_and_not_before():
    parser = SseParser()
    assert parser.feed(b"data: x") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"\n") == [(b"", b"x")]


def test_close_gives_up_an_unfinished_event_once():
    parser = SseParser()
    parser.feed(b"data: [DONE]\n")
    assert parser.close() == [(b"", b"[DONE]")]
    assert parser.close() == []
    unterminated = SseParser()
    unterminated.feed(b"data: [DONE]")
    assert unterminated.close() == [(b"", b"[DONE]")]


def test_name_without_data_does_not_stick_to_the_next_event():
    assert parse([b"event: ping\n\ndata: x\n\n"]) == [(b"", b"x")]


def test_every_two_cuts_of_the_sample():
    for cut in range(len(STREAM) + 1):
        for second in range(cut, len(STREAM) + 1):
            assert parse([STREAM[:cut], STREAM[cut:second], STREAM[second:]]) == EVENTS


lines = st.lists(
    st.sampled_from([b"data: a", b"data:b", b"data", b": note", b"event: e", b"id: 1", b"", b"", b"nonsense"])
    | st.binary(max_size=6).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")),
    max_size=12,
)


@given(lines, st.sampled_from([b"\n", b"\r", b"\r\n"]), st.data())
def test_cuts_and_line_ends_change_nothing(lines, end, data):
    text = b"".join(line + end for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    whole = b"".join(line + b"\n" for line in lines)
    assert parse([text[a:b] for a, b in pairwise([0, *cuts, len(text)])]) == parse([whole])


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 40] * 3,  # one line that never ends
        [b"data: 1234567890\n"] * 12,  # lines that never become an event
        [b"data: " + b"x" * 120 + b"\n"],
    ],
)
def test_an_event_beyond_all_measure_is_refused(pieces, monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    with pytest.raises(TooLongError, match="an event is longer"):
        parse(pieces)
    assert len(parse([b"data: 1234567890\n\n"] * 100)) == 100


def test_a_long_line_in_small_pieces_takes_time_in_proportion():
    """Joining what is there with every piece would copy 80 GB here."""
    parser = SseParser()
    began_s = time.process_time()
    for _ in range(20_000):
        assert parser.feed(b"x" * 400) == []
    assert parser.feed(b"\n\ndata: y\n\n") == [(b"", b"y")]
    assert time.process_time() - began_s < 2
