"""The memory account as a table, one for each run: ``profile compare RUN --show memory``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from profiler.charts.memory import KNOWN
from profiler.charts.words import NA, significant
from profiler.memory import MemoryAccount, Row, Use, account
from profiler.store import RunResult

if TYPE_CHECKING:
    from rich.table import Table


def as_json(runs: Sequence[RunResult]) -> str:
    """All accounts, in bytes, each with the folder of its run."""
    found = [{"run": str(run.folder)} | msgspec.to_builtins(account(run)) for run in runs]
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n"


def rich_table(found: MemoryAccount, title: str) -> Table:
    """The rows of one account; parts are indented and inside the row above them."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for header in (title, "GiB", "share", "known", ""):
        right = header in ("GiB", "share")
        table.add_column(escape(header), justify="right" if right else "left", overflow="fold")
    for row in found.rows:
        table.add_row(*(escape(cell) for cell in _cells(row, found.rows, found.total_bytes)))
    total = gib(found.total_bytes), "100.0%" if found.total_bytes else NA
    table.add_section()
    table.add_row(escape(found.device), *total, "sampled" if found.total_bytes else "", "")
    return table


def lines(found: MemoryAccount) -> Iterator[str]:
    """What each load used, and what to know of the found."""
    if found.kv_tokens and found.kv_bytes_per_token:
        each = significant(found.kv_bytes_per_token)
        yield f"KV cache: room for {found.kv_tokens:,} tokens, {each} bytes each"
    for use in found.uses:
        yield f"at {_load(use)}: {'; '.join(_used(use))}"
    yield from found.notes


def gib(size: int | None) -> str:
    """In a column, so that points stand below each other."""
    return NA if size is None else f"{size / 2**30:,.3f}"


def _gib(size: int | None) -> str:
    return NA if size is None else significant(size / 2**30)


def _cells(row: Row, rows: tuple[Row, ...], total: int | None) -> tuple[str, ...]:
    share = f"{row.bytes / total:.1%}" if row.bytes is not None and total else NA
    return "  " * _depth(row, rows) + row.name, gib(row.bytes), share, KNOWN[row.known], row.note or ""


def _depth(row: Row, rows: tuple[Row, ...]) -> int:
    above = next((each for each in rows if each.name == row.part_of), None)
    return 0 if above is None else 1 + _depth(above, rows)


def _load(use: Use) -> str:
    point = use.point
    return (
        f"concurrency {point.concurrency}"
        if point.requests_per_s is None
        else f"{point.requests_per_s:.4g}/s"
    )


def _used(use: Use) -> Iterator[str]:
    if use.kv_max_bytes is None:
        yield "KV cache in use n/a: no sample of the engine's shows any"
    else:
        yield f"KV cache in use {_gib(use.kv_mean_bytes)} GiB on average, {_gib(use.kv_max_bytes)} at most"
    if use.required_bytes is not None:
        yield f"required {_gib(use.required_bytes)} GiB"
    if use.idle_recorded_bytes is not None:
        yield f"{_unread(use, use.idle_recorded_bytes)} unread (by the recorded routing)"
    elif use.idle_uniform_bytes is not None:
        yield f"{_unread(use, use.idle_uniform_bytes)} or more unread (computed for uniform routing)"


def _unread(use: Use, size: int) -> str:
    return f"a decode step of {use.batch:.3g} tokens leaves {_gib(size)} GiB of experts"
