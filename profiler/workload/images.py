"""Synthetic pictures of an exact size, a fresh one for every request at the price of a copy.

A picture is a PNG with a palette: 16 patterns of random 4 × 4 blocks are drawn and compressed once a
window (about as many bytes as a photograph's JPEG of that size), and each picture is one of them under a
palette of its own.  Another palette is another picture in all its pixels, to the eye and to a server's
cache of images, which go by the decoded pixels; and it sits in the first 813 bytes, so that the base64 of
the rest stands.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode

from profiler.settings import Images
from profiler.workload.draws import PICTURES, generator

PATTERNS = 16
BLOCK_PIXELS = 4
COLOURS = 256
URL = b"data:image/png;base64,"


class Pictures:
    """``url(index, place)``: the data URL of the ``place``-th picture of request ``index``, in parts."""

    def __init__(self, images: Images, seed: int, salt: int, window: int) -> None:
        self.count = images.count
        draw = generator(PICTURES, seed, salt, window)
        header = struct.pack(">IIBBBBB", images.width, images.height, 8, 3, 0, 0, 0)
        self._head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
        self._palette: bytes = draw.bytes(3 * COLOURS)
        self._rest: list[bytes] = []
        for _ in range(PATTERNS):
            size = (-(-images.height // BLOCK_PIXELS), -(-images.width // BLOCK_PIXELS))
            blocks = draw.integers(0, COLOURS, size, dtype="uint8")
            pixels = blocks.repeat(BLOCK_PIXELS, 0).repeat(BLOCK_PIXELS, 1)[: images.height, : images.width]
            rows = b"".join(b"\0" + row.tobytes() for row in pixels)
            data = _chunk(b"IDAT", zlib.compress(rows, 1)) + _chunk(b"IEND", b"")
            self._rest.append(b64encode(data))

    def url(self, index: int, place: int) -> list[bytes]:
        """Two of a run are never alike, as far as their pixels can tell: the palette is turned by a number
        of its own, 48 bits of it, added to every colour."""
        number = index * self.count + place
        turn = (number * 0x9E3779B97F4B + 1) % (1 << 48)
        mask = turn.to_bytes(6, "big") * (3 * COLOURS // 6)
        palette = int.from_bytes(self._palette, "big") ^ int.from_bytes(mask, "big")
        head = self._head + _chunk(b"PLTE", palette.to_bytes(3 * COLOURS, "big"))
        return [URL, b64encode(head), self._rest[number % PATTERNS]]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
