"""Finished exchanges on disk, raw, so that memory holds only what is in flight.

One exchange after another, each: length of the header (4 bytes), the header (:class:`_Header`, msgpack),
the stamps (8 bytes each), the lengths of the pieces (4 bytes each), the pieces.  Numbers are the machine's
own; the file never leaves it.

Adding costs some µs and a write of ``FLUSH_BYTES`` every few dozen exchanges.  On Linux what has been read
leaves the disk at once, so that the records made of it find room on one that is full.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import sys
from array import array
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from profiler.errors import LoadError
from profiler.loadgen.exchange import Exchange
from profiler.schema import Outcome
from profiler.workload import PlannedRequest

FLUSH_BYTES = 256 << 10
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
_WORD_BYTES = 4


class _Header(Struct, frozen=True, array_like=True, gc=False):
    """An exchange without its bytes.  The context of a planned request is not kept: it is for building it."""

    index: int
    input_tokens: int
    output_tokens: int
    share: int
    turn: int
    due_ns: int
    opening_ns: int | None
    sent_ns: int | None
    first_token_ns: int | None
    end_ns: int | None
    status: int | None
    failure: Outcome | None
    error: str | None
    retry_after_s: float | None
    piece_count: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Header)


class Spill:
    """Exchanges in a file of their own: all are added, then they are read, once, then the file is closed.

    A file that cannot be written to is a LoadError, once; from then on what is added stays in memory.
    Whatever was added, the exchange whose addition failed among it, can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._written_bytes = 0
        self._read_bytes = 0
        self._is_full = False
        try:
            self._file = self._path.open("w+b", buffering=0)
            self._path.unlink()  # gone with the process, however that ends
        except OSError as error:
            raise self._failed(error) from None

    def add(self, exchange: Exchange) -> None:
        """Take over the bytes of a finished exchange: its stamps and pieces are empty afterwards."""
        planned, pieces = exchange.planned, exchange.pieces
        header = _encoder.encode(
            _Header(
                planned.index,
                planned.input_tokens,
                planned.output_tokens,
                planned.share,
                planned.turn,
                exchange.due_ns,
                exchange.opening_ns,
                exchange.sent_ns,
                exchange.first_token_ns,
                exchange.end_ns,
                exchange.status,
                exchange.failure,
                exchange.error,
                exchange.retry_after_s,
                len(pieces),
            )
        )
        lengths = array("I", map(len, pieces)).tobytes()
        size = len(header).to_bytes(_WORD_BYTES, sys.byteorder)
        frame = b"".join([size, header, exchange.stamps.tobytes(), lengths, *pieces])
        exchange.empty()
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        if self._waiting_bytes >= FLUSH_BYTES and not self._is_full:
            self._flush()

    def read(self) -> Iterator[Exchange]:
        """All exchanges in the order they were added, one in memory at a time.  Not to be read twice."""
        with open(os.dup(self._file.fileno()), "rb", buffering=FLUSH_BYTES) as file:
            file.seek(0)
            gone_bytes = 0
            while self._read_bytes < self._written_bytes:
                exchange = _read_one(file)
                self._read_bytes = file.tell()
                if self._read_bytes - gone_bytes >= FLUSH_BYTES or self._read_bytes == self._written_bytes:
                    gone_bytes = self._read_bytes
                    _free(file.fileno(), gone_bytes)
                yield exchange
        waiting = io.BytesIO(b"".join(self._waiting))
        while waiting.tell() < self._waiting_bytes:
            exchange = _read_one(waiting)
            self._read_bytes = self._written_bytes + waiting.tell()
            yield exchange

    @property
    def read_frac(self) -> float:
        """How much of it has been read."""
        total_bytes = self._written_bytes + self._waiting_bytes
        return self._read_bytes / total_bytes if total_bytes else 1.0

    def close(self) -> None:
        """Let go of it all.  Nothing can be added or read afterwards."""
        self._waiting.clear()
        self._waiting_bytes = 0
        self._file.close()

    def _flush(self) -> None:
        """Write what waits.  After a failure it still waits, and the torn end is taken away."""
        data = memoryview(b"".join(self._waiting))
        end_bytes = self._written_bytes + len(data)
        try:
            while data:
                data = data[os.pwrite(self._file.fileno(), data, end_bytes - len(data)) :]
        except OSError as error:
            self._is_full = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), self._written_bytes)
            raise self._failed(error) from None
        self._written_bytes = end_bytes
        self._waiting.clear()
        self._waiting_bytes = 0

    def _failed(self, error: OSError) -> LoadError:
        return LoadError(
            f"the raw answers of the window cannot be kept in {self._path}: {error.strerror or error}; "
            "free some space there or choose another folder for the results"
        )


@functools.cache
def _fallocate() -> Any:
    """The system's call; None where there is none."""
    if sys.platform != "linux":
        return None
    call = ctypes.CDLL(None).fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    return call


def _free(file: int, end_bytes: int) -> None:
    """Give the disk back what lies before ``end_bytes``, where the file system can; the length stays."""
    if _fallocate() is not None:
        _fallocate()(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, end_bytes)


def _read_one(file: BinaryIO) -> Exchange:
    header = _decoder.decode(file.read(int.from_bytes(file.read(_WORD_BYTES), sys.byteorder)))
    planned = PlannedRequest(
        header.index, header.input_tokens, header.output_tokens, header.share, header.turn
    )
    exchange = Exchange(planned, header.due_ns)
    exchange.opening_ns = header.opening_ns
    exchange.sent_ns = header.sent_ns
    exchange.first_token_ns = header.first_token_ns
    exchange.end_ns = header.end_ns
    exchange.status = header.status
    exchange.failure = header.failure
    exchange.error = header.error
    exchange.retry_after_s = header.retry_after_s
    exchange.stamps.frombytes(file.read(exchange.stamps.itemsize * header.piece_count))
    lengths = array("I")
    lengths.frombytes(file.read(lengths.itemsize * header.piece_count))
    ends = list(accumulate(lengths, initial=0))
    body = file.read(ends[-1])
    exchange.pieces = [body[start:end] for start, end in pairwise(ends)]
    return exchange
