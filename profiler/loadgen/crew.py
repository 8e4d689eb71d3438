"""The load processes that hold one load together, seen from the profiler's side."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any, get_args

from profiler.errors import LoadError
from profiler.loadgen.job import (
    Broken,
    Cancel,
    Finished,
    Meet,
    Met,
    Order,
    Phase,
    Progress,
    Reply,
    Underway,
)
from profiler.loadgen.process import Member
from profiler.records import whole_or_not

PHASES = get_args(Phase)


class Crew:
    """The processes of one window, from their start to the last one's end.

    What one says of its progress is summed up over all.  They meet here: what each of them brings to a stage
    all of them are told, once all are there.  When one of them ends before its time or fails, the others are
    told to end too.
    """

    def __init__(self, processes: Sequence[Member], on_progress: Callable[[Progress], None]) -> None:
        self._processes = processes
        self._on_progress = on_progress
        self._progress: dict[int, Progress] = {}
        self._met: dict[str, dict[int, float]] = {}
        self._cancelled = False
        self.finished: dict[int, Finished] = {}
        self.failures: dict[int, LoadError] = {}
        self.decoding_s = 0.0  # when one of them last said that it decodes

    @property
    def is_done(self) -> bool:
        return len(self.finished) + len(self.failures) == len(self._processes)

    def follow(self, wait_s: float) -> None:
        """Take in what they say within this time."""
        left = [p for shard, p in enumerate(self._processes) if shard not in self.finished | self.failures]
        for process in select.select(left, [], [], wait_s)[0]:
            shard = self._processes.index(process)
            try:
                for reply in process.replies():
                    self._take(shard, reply)
            except LoadError as error:
                self._lose(shard, error)

    def cancel(self) -> None:
        """Tell all that are not done to end now."""
        if self._cancelled:
            return
        self._cancelled = True
        for shard, process in enumerate(self._processes):
            if shard not in self.finished and shard not in self.failures:
                self._tell(shard, process, Cancel())

    def mute(self) -> None:
        """Say no more of the progress."""
        self._on_progress = lambda _: None

    def kill_rest(self) -> None:
        """End those that do not end."""
        for shard, process in enumerate(self._processes):
            if shard not in self.finished and shard not in self.failures:
                process.kill()

    def _take(self, shard: int, reply: Reply) -> None:
        if isinstance(reply, Meet):
            self._meet(shard, reply)
        elif isinstance(reply, Underway):
            self._progress[shard] = reply.progress
            is_decoding = reply.progress.phase == "decoding"
            if is_decoding:
                self.decoding_s = time.monotonic()
            if is_decoding or shard == min(self._progress):
                self._on_progress(merged_progress(list(self._progress.values())))
        elif isinstance(reply, Broken):
            self._lose(shard, LoadError(f"the load generator failed: {reply.message}"))
        elif isinstance(reply, Finished):
            self.finished[shard] = reply
            if reply.window.trouble is not None:
                self.cancel()

    def _lose(self, shard: int, error: LoadError) -> None:
        self.failures[shard] = error
        self.cancel()

    def _meet(self, shard: int, reply: Meet) -> None:
        here = self._met.setdefault(reply.stage, {})
        here[shard] = reply.value
        if len(here) == len(self._processes):
            values = [value for _, value in sorted(here.items())]
            notice_ns = max(process.notice_ns for process in self._processes)
            met = Met(reply.stage, perf_counter_ns() + notice_ns, values)
            for place, process in enumerate(self._processes):
                self._tell(place, process, met)

    def _tell(self, shard: int, process: Member, order: Order) -> None:
        try:
            process.tell(order)
        except LoadError as error:
            self._lose(shard, error)


def merged_progress(parts: list[Progress]) -> Progress:
    """One progress of the parts' last ones."""
    rates = [part.chunks_per_s for part in parts if part.chunks_per_s is not None]
    decoded = [part.decoded_frac for part in parts if part.decoded_frac is not None]
    return Progress(
        phase=min((part.phase for part in parts), key=PHASES.index),
        elapsed_s=max(part.elapsed_s for part in parts),
        expected_s=max(part.expected_s for part in parts),
        chunks_per_s=sum(rates) if rates else None,
        in_flight=sum(part.in_flight for part in parts),
        done=sum(part.done for part in parts),
        failed=sum(part.failed for part in parts),
        decoded_frac=sum(decoded) / len(decoded) if len(decoded) == len(parts) else None,
    )


def part_path(records_path: str, shard: int) -> Path:
    """Where the shard writes its records: beside those of the whole."""
    path = Path(records_path)
    return path.with_name(f"{path.stem}-part{shard}.records")


def merge_parts(records_path: str, ahead_ns: Sequence[int]) -> None:
    """Put the shards' records together in one file, some hundred rows in memory at a time; the times of a
    shard whose clock was ``ahead_ns`` of ours become ours."""
    import pyarrow.parquet as pq

    parts = {part_path(records_path, shard): ahead for shard, ahead in enumerate(ahead_ns)}
    parts = {path: ahead for path, ahead in parts.items() if path.exists()}
    if not parts:
        return
    beside = Path(records_path).with_suffix(".tmp")
    schema = pq.read_schema(next(iter(parts)))
    with whole_or_not(beside, records_path), pq.ParquetWriter(beside, schema, compression="zstd") as writer:
        for part, ahead in parts.items():
            file = pq.ParquetFile(part)
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                writer.write_table(_earlier(table, ahead) if ahead else table)
    for part in parts:
        part.unlink()


def _earlier(table: Any, by_ns: int) -> Any:
    """Records with all of their times, each column ``…_ns``, moved; what did not happen still did not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for place, name in enumerate(table.schema.names):
        if not name.endswith("_ns"):
            continue
        column, kind = table.column(place), table.schema.field(place)
        if pa.types.is_list(kind.type):
            moved: Any = pa.chunked_array(
                [
                    pa.ListArray.from_arrays(chunk.offsets, pc.subtract(chunk.values, by_ns))
                    for chunk in column.chunks
                ],
                type=kind.type,
            )
        else:
            moved = pc.subtract(column, by_ns)
        table = table.set_column(place, kind, moved)
    return table
