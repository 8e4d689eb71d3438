"""Server-sent events without I/O: bytes in, complete events out.

Follows the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream": lines end with LF, CR
or CR LF, a blank line ends an event, ``:`` starts a comment, one space after the field's colon is
dropped, several ``data`` lines are joined by LF.  Only ``data`` and ``event`` are kept.

However small the pieces, the work stays proportional to the bytes.
"""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"
MAX_EVENT_BYTES = 16 << 20


class TooLongError(ValueError):
    """An event of more than ``MAX_EVENT_BYTES``; nothing that follows can be trusted."""


class SseParser:
    """Feed it pieces cut anywhere; each call returns the ``(name, data)`` of the events it completed."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = b""
        self._skip_lf = False
        self._at_start = True

    def feed(self, piece: bytes) -> list[tuple[bytes, bytes]]:
        """Events completed by this piece, in order; TooLongError when one grows beyond all measure."""
        if self._skip_lf and piece:
            self._skip_lf = False
            piece = piece.removeprefix(b"\n")
        if b"\r" in piece:
            self._skip_lf = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *others = piece.split(b"\n")
        if first:
            self._keep(first)
        if not others:
            return []
        lines = [b"".join(self._rest), *others[:-1]]
        self._rest, self._rest_bytes = [], 0
        events = self._take(lines)
        if others[-1]:
            self._keep(others[-1])
        return events

    def close(self) -> list[tuple[bytes, bytes]]:
        """The event left without its blank line when the body ended.  (The standard drops it; servers that
        end their last event with a single line end are common, so the caller decides.)"""
        rest, self._rest, self._rest_bytes = b"".join(self._rest), [], 0
        return self._take([rest, b""])

    def _keep(self, part: bytes) -> None:
        """Part of a line that is not over yet."""
        self._rest.append(part)
        self._rest_bytes += len(part)
        self._check_length()

    def _take(self, lines: list[bytes]) -> list[tuple[bytes, bytes]]:
        events = []
        for raw in lines:
            line = raw
            if self._at_start:
                self._at_start = False
                line = raw.removeprefix(BOM)
            if line:
                self._field(line)
            elif self._data:
                events.append((self._name, b"\n".join(self._data)))
                self._data, self._data_bytes, self._name = [], 0, b""
            else:
                self._name = b""
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(value)
            self._check_length()
        elif name == b"event":
            self._name = value

    def _check_length(self) -> None:
        if self._rest_bytes + self._data_bytes > MAX_EVENT_BYTES:
            raise TooLongError(f"an event is longer than {MAX_EVENT_BYTES >> 20} MiB")
