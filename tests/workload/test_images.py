"""Synthetic pictures: real PNGs of the exact size, no two alike."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.settings import Images
from profiler.workload.images import URL, Pictures


def decoded(url: bytes):
    """(width, height, pixels as RGB rows), every check of the format made on the way."""
    assert url.startswith(URL)
    data = base64.b64decode(url.removeprefix(URL), validate=True)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (size,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        assert data[at + 8 + size : at + 12 + size] == struct.pack(">I", zlib.crc32(kind + body))
        chunks[kind] = body
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, *form = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert form == [8, 3, 0, 0, 0]
    rows = zlib.decompress(chunks[b"IDAT"])
    assert len(rows) == height * (width + 1)
    palette = chunks[b"PLTE"]
    pixels = []
    for y in range(height):
        filtered, *row = rows[y * (width + 1) : (y + 1) * (width + 1)]
        assert filtered == 0
        pixels.append(b"".join(palette[3 * p : 3 * p + 3] for p in row))
    return width, height, tuple(pixels)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_a_picture_has_exactly_the_size(width, height):
    pictures = Pictures(Images(width=width, height=height), 0, 0, 0)
    assert decoded(b"".join(pictures.url(3, 0)))[:2] == (width, height)


def test_no_two_are_alike_and_each_is_the_same_every_time():
    shape = Images(width=20, height=12, count=2)
    seen = set()
    for window in range(3):
        pictures = Pictures(shape, 0, 0, window)
        seen |= {decoded(b"".join(pictures.url(i, place)))[2] for i in range(100) for place in range(2)}
    assert len(seen) == 600
    one, other = Pictures(shape, 0, 0, 0), Pictures(shape, 0, 0, 0)
    assert one.url(7, 1) == other.url(7, 1)
    assert one.url(7, 1) not in (Pictures(shape, 1, 0, 0).url(7, 1), Pictures(shape, 0, 1, 0).url(7, 1))


def test_two_pictures_of_one_pattern_differ_in_every_pixel():
    pictures = Pictures(Images(width=64, height=64), 0, 0, 0)
    one, other = (decoded(b"".join(pictures.url(i, 0)))[2] for i in (5, 5 + 16))
    pairs = [(a[x : x + 3], b[x : x + 3]) for a, b in zip(one, other, strict=True) for x in range(0, 192, 3)]
    assert all(a != b for a, b in pairs)


def test_an_image_library_reads_it():
    image = pytest.importorskip("PIL.Image")
    import io

    pictures = Pictures(Images(width=50, height=30), 0, 0, 0)
    url = b"".join(pictures.url(0, 0))
    opened = image.open(io.BytesIO(base64.b64decode(url.removeprefix(URL)))).convert("RGB")
    assert opened.size == (50, 30)
    assert opened.tobytes() == b"".join(decoded(url)[2])
