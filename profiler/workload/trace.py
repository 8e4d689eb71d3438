"""A recorded load, to be replayed: when each request was due, and how long it and its answer were.

The layout is told from the header of a CSV file or the keys of a JSON-lines file:

- ours: ``time_s,input_tokens,output_tokens``, as CSV (lines that begin with # are remarks) or JSON lines
- Azure LLM inference (2023, 2024): ``TIMESTAMP,ContextTokens,GeneratedTokens``
- BurstGPT: ``Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`` (later ones have a
  ``Session ID`` and an ``Elapsed time`` too); failed requests, which have 0 response tokens, are skipped
- Mooncake: JSON lines of ``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids``: an id for
  each 512 tokens of the prompt, and equal ids are equal tokens
"""

from __future__ import annotations

import functools
import io
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from profiler.errors import InputError
from profiler.settings import Load

BLOCK_TOKENS = 512
MOST_TOKENS = 1 << 30  # of a request; more is no length
LEAST_S, MOST_S = 1e-6, 100 * 366 * 86_400.0  # of a whole replay; no clock sends in less, nobody waits longer


class Trace(Struct, frozen=True, kw_only=True, eq=False):
    """The rows replayed, in order; ``times_s`` count from the first row's and are scaled.

    ``whole_s``: until one mean gap after the last row, so that rows / ``whole_s`` is the mean rate.
    ``lines``: where in the file each row stands.  ``blocks``: None where the layout knows of none.
    ``skipped`` rows were failures.  ``digest`` is the SHA-256 of the file.
    """

    layout: str
    times_s: Sequence[float]
    input_tokens: Sequence[int]
    output_tokens: Sequence[int]
    lines: Sequence[int]
    blocks: tuple[tuple[int, ...], ...] | None
    whole_s: float
    skipped: int
    digest: str

    def __len__(self) -> int:
        return len(self.times_s)


def load_trace(path: str, load: Load) -> Trace:
    """The first ``load.requests`` rows of a trace, ``load.time_scale`` times as slow.

    Raises InputError, with file and line, when it cannot be read, is of no known layout, is empty, out of
    order, or holds a length or a time that cannot be.
    """
    file = Path(path)
    try:
        state = file.stat()
        return _read(path, load.requests, load.time_scale, (state.st_mtime_ns, state.st_size))
    except OSError as error:
        raise InputError(f"load.trace: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"load.trace: {path} is not UTF-8 text (byte {error.start})") from None
    except ValueError as error:  # a name that no file has
        raise InputError(f"load.trace: {path!r} cannot be read: {error}") from None


class _Row(Struct, frozen=True):
    time_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


class _Layout(Struct, frozen=True):
    """How a known file is read: its columns for time, input and output, and its clock in seconds."""

    name: str
    columns: tuple[str, str, str]
    seconds: Callable[[Any], float]
    blocks: str | None = None
    zero_is_failure: bool = False


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(number := float(value)):
        raise ValueError(value)
    return number


def _calendar(value: Any) -> float:
    """Seconds of an ISO date and time; without a zone it is UTC."""
    moment = datetime.fromisoformat(value.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


LAYOUTS = (
    _Layout("ours", ("time_s", "input_tokens", "output_tokens"), _number),
    _Layout("Azure LLM inference", ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _calendar),
    _Layout("BurstGPT", ("Timestamp", "Request tokens", "Response tokens"), _number, zero_is_failure=True),
    _Layout(
        "Mooncake",
        ("timestamp", "input_length", "output_length"),
        lambda value: _number(value) / 1e3,
        blocks="hash_ids",
    ),
)


@functools.lru_cache(maxsize=2)
def _read(path: str, requests: int | None, time_scale: float, _state: tuple[int, int]) -> Trace:
    """``_state`` (time of change, size) makes a changed file another one."""
    raw = Path(path).read_bytes()
    text = raw.decode("utf-8-sig")
    lines, times, inputs, outputs = array("q"), array("d"), array("q"), array("q")
    blocks: list[tuple[int, ...]] = []
    skipped = 0
    layout, records = _records(path, text)
    last_s = -math.inf
    for line, record in records:
        row = _row(f"{path}, line {line}", layout, record)
        if row.time_s < last_s:
            raise InputError(
                f"{path}, line {line}: out of order, {last_s - row.time_s:.6g} s before the row above it; "
                "sort the trace by time"
            )
        last_s = row.time_s
        if layout.zero_is_failure and row.output_tokens == 0:
            skipped += 1
            continue
        lines.append(line)
        times.append(row.time_s)
        inputs.append(row.input_tokens)
        outputs.append(row.output_tokens)
        blocks.append(row.blocks)
        if len(times) == requests:
            break
    from hashlib import sha256

    return Trace(
        layout=layout.name,
        times_s=array("d", [(each - times[0]) * time_scale for each in times]),
        input_tokens=inputs,
        output_tokens=outputs,
        lines=lines,
        blocks=tuple(blocks) if any(blocks) else None,
        whole_s=_whole_s(path, times, requests, time_scale),
        skipped=skipped,
        digest=sha256(raw).hexdigest(),
    )


def _whole_s(path: str, times: Sequence[float], requests: int | None, time_scale: float) -> float:
    if requests is not None and len(times) < requests:
        raise InputError(f"load.requests = {requests}, but {path} has only {len(times)} rows to replay")
    span_s = times[-1] - times[0] if times else 0.0
    if not span_s:
        rows = f"{len(times)} rows, all at one instant" if times else "no rows to replay"
        raise InputError(f"{path}: {rows}; a replay needs two rows at different times")
    whole_s = span_s * len(times) / (len(times) - 1) * time_scale
    if not LEAST_S <= whole_s <= MOST_S:
        raise InputError(f"{path}: {len(times)} rows in {whole_s:.3g} s, which nothing can replay")
    return whole_s


def _records(path: str, text: str) -> tuple[_Layout, Iterator[tuple[int, dict[str, Any]]]]:
    """The layout, and each row with its line number."""
    first = next((line for line in io.StringIO(text) if line.strip()), None)
    if first is None:
        raise InputError(f"{path} is empty; a trace needs rows")
    if first.lstrip().startswith("{"):
        return _layout(path, _parsed(path, 1, first)), _json_rows(path, text)
    import csv

    reader = csv.reader(io.StringIO(text))
    rows = (row for row in _csv_rows(path, reader) if row and not row[0].startswith("#"))
    header = [name.strip() for name in next(rows, [])]
    return _layout(path, header), ((reader.line_num, dict(zip(header, row, strict=False))) for row in rows)


def _csv_rows(path: str, reader: Any) -> Iterator[list[str]]:
    import csv

    try:
        yield from reader
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV: {error}") from None


def _layout(path: str, names: Iterable[str]) -> _Layout:
    found = set(names)
    layout = next((each for each in LAYOUTS if found.issuperset(each.columns)), None)
    if layout is None:
        known = "; ".join(f"{each.name}: {', '.join(each.columns)}" for each in LAYOUTS)
        raise InputError(f"{path}, line 1: no known layout of a trace, whose columns are ({known})")
    return layout


def _json_rows(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(io.StringIO(text), start=1):
        if line.strip():
            yield number, _parsed(path, number, line)


def _parsed(path: str, number: int, line: str) -> dict[str, Any]:
    import json

    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}, line {number}: not a JSON object: {line.strip()[:60]!r}")
    return value


def _row(where: str, layout: _Layout, record: dict[str, Any]) -> _Row:
    time, input_, output = layout.columns
    try:
        time_s = layout.seconds(record[time])
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError):
        raise InputError(f"{where}: {time} is {_shown(record, time)}; expected a time") from None
    least = 0 if layout.zero_is_failure else 1
    return _Row(
        time_s,
        _length(where, record, input_, 1),
        _length(where, record, output, least),
        _blocks(where, record, layout.blocks),
    )


def _length(where: str, record: dict[str, Any], name: str, least: int) -> int:
    try:
        number = _number(record[name])
    except (KeyError, ValueError, TypeError, OverflowError):
        raise InputError(f"{where}: {name} is {_shown(record, name)}; expected a number of tokens") from None
    if not least <= number <= MOST_TOKENS or number != int(number):
        raise InputError(
            f"{where}: {name} is {number:g}; expected a whole number of tokens, at least {least}"
        )
    return int(number)


def _blocks(where: str, record: dict[str, Any], name: str | None) -> tuple[int, ...]:
    ids = record.get(name, []) if name else []
    if not isinstance(ids, list) or not all(isinstance(each, int) and each >= 0 for each in ids):
        raise InputError(f"{where}: {name} is {_shown(record, str(name))}; expected a list of whole numbers")
    return tuple(ids)


def _shown(record: dict[str, Any], name: str) -> str:
    return repr(record[name])[:60] if record.get(name) is not None else "missing"
