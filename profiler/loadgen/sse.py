"""Server-sent events without I/O: bytes in, complete events out.

Follows the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream": lines end with LF, CR
or CR LF, a blank line ends an event, ``:`` starts a comment, one space after the field's colon is
dropped, several ``data`` lines are joined by LF.  Only ``data`` and ``event`` are kept.
"""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"


class SseParser:
    """Feed it pieces cut anywhere; each call returns the ``(name, data)`` of the events it completed."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._name = b""
        self._skip_lf = False
        self._at_start = True

    def feed(self, piece: bytes) -> list[tuple[bytes, bytes]]:
        """Events completed by this piece, in order."""
        if self._skip_lf and piece:
            self._skip_lf = False
            piece = piece[1:] if piece[:1] == b"\n" else piece
        text = self._rest + piece
        if b"\r" in text:
            self._skip_lf = text[-1:] == b"\r"
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = text.split(b"\n")
        return self._take(lines)

    def close(self) -> list[tuple[bytes, bytes]]:
        """The event left without its blank line when the body ended.  (The standard drops it; servers that
        end their last event with a single line end are common, so the caller decides.)"""
        rest, self._rest = self._rest, b""
        return self._take([rest, b""])

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
                self._data, self._name = [], b""
            else:
                self._name = b""
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value
