from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.loadgen.sse import SseParser

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
