"""The sample file: what the sampler writes and both halves read.

One line a sample, tab-separated: ``t_ns  source  name  value``.  Append-only and each line whole in
itself, so whatever a crash leaves behind is readable up to its last complete line.

Sources are ``gpu:<uuid>``, ``rapl:<zone>``, ``machine``, ``process:<name>``, ``engine:<name>`` and
``sampler``.
Names end in their unit; the probe that reads a name documents it (``profiler/telemetry``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_NS = 1 << 62  # a century and a half; a column of a table holds no more
COLUMNS = ("t_ns", "source", "name", "value")


class Sample(NamedTuple):
    """One reading: CLOCK_MONOTONIC nanoseconds of the read, where, what, how much."""

    t_ns: int
    source: str
    name: str
    value: float


def encode(samples: Iterable[Sample]) -> bytes:
    """The lines of ``samples``; integers keep every digit up to 2^53, the exact range of float64."""
    return b"".join(
        b"%d\t%s\t%s\t%s\n" % (s.t_ns, s.source.encode(), s.name.encode(), _number(s.value)) for s in samples
    )


def _number(value: float) -> bytes:
    whole = int(value)
    return b"%d" % whole if whole == value else repr(float(value)).encode()


def decode(lines: bytes) -> Iterator[Sample]:
    """The samples of a few whole lines, without pyarrow; a damaged line is left out."""
    for line in lines.splitlines():
        with suppress(ValueError):
            t_ns, source, name, value = line.split(b"\t")
            yield Sample(int(t_ns), source.decode(), name.decode(), float(value))


def complete_bytes(content: bytes) -> int:
    """Length of the part of a sample file that consists of whole lines."""
    return content.rfind(b"\n") + 1


class Tail:
    """Follows a sample file that grows, from at most ``tail_bytes`` before its present end on; it need not be
    there yet, or any more."""

    def __init__(self, path: Path, tail_bytes: int) -> None:
        self._path = path
        self._at = 0
        self.skip(tail_bytes)

    def skip(self, tail_bytes: int) -> None:
        """Go on at most so many bytes before the end: what is older is passed over."""
        if not self._path.exists():
            return
        start = self._path.stat().st_size - tail_bytes
        if start > self._at:
            with self._path.open("rb") as file:
                file.seek(start)
                self._at = start + len(file.readline())  # where a line begins

    def read(self) -> Iterator[Sample]:
        """What was appended since the last time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            content = file.read()
        whole = content[: complete_bytes(content)]
        self._at += len(whole)
        yield from decode(whole)


def read_samples(path: Path | str) -> Any:
    """The samples of a file as a pyarrow table: t_ns int64, source string, name string, value float64.

    A last line cut short by a crash is left out, as is any line that does not have four fields or no number
    where one belongs; an absent or empty file is an empty table.
    """
    import pyarrow as pa
    from pyarrow import csv

    schema = pa.schema(
        [("t_ns", pa.int64()), ("source", pa.string()), ("name", pa.string()), ("value", pa.float64())]
    )
    file = Path(path)
    content = file.read_bytes() if file.exists() else b""
    # A row that is no text cannot even be told to the handler of invalid rows.
    content = content[: complete_bytes(content)].decode(errors="replace").encode()
    if not content:
        return schema.empty_table()
    try:
        return csv.read_csv(
            pa.BufferReader(content),
            read_options=csv.ReadOptions(column_names=list(COLUMNS)),
            parse_options=csv.ParseOptions(
                delimiter="\t", quote_char=False, invalid_row_handler=lambda _: "skip"
            ),
            convert_options=csv.ConvertOptions(column_types=schema),
        )
    except pa.ArrowException:  # it says of which column, not of which line
        rows = [each._asdict() for each in decode(content) if abs(each.t_ns) < MOST_NS]
        return pa.Table.from_pylist(rows, schema=schema)


def whole_lines(path: Path) -> int:
    """How many lines a sample file has that were written to their end."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def sources(samples: Any, kind: str) -> list[str]:
    """The sources of one kind (``"gpu"``, ``"rapl"``, ``"process"``…) that occur, sorted."""
    import pyarrow.compute as pc

    found = pc.unique(samples["source"]).to_pylist()
    return sorted(source for source in found if source.startswith(f"{kind}:"))


def series(samples: Any, source: str, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Times in ns (int64, ascending) and values (float64) of one name of one source."""
    import pyarrow.compute as pc

    rows = samples.filter(pc.and_(pc.equal(samples["source"], source), pc.equal(samples["name"], name)))
    rows = rows.sort_by("t_ns")
    return rows["t_ns"].to_numpy(), rows["value"].to_numpy()


def between(samples: Any, t0_ns: int, t1_ns: int) -> Any:
    """The samples taken from ``t0_ns`` to ``t1_ns``, both included."""
    import pyarrow.compute as pc

    return samples.filter(
        pc.and_(pc.greater_equal(samples["t_ns"], t0_ns), pc.less_equal(samples["t_ns"], t1_ns))
    )
