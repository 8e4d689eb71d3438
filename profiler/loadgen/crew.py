"""The load processes that hold one load together, seen from the profiler's side."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import IO, get_args

import msgspec

from profiler.errors import InputError, LoadError
from profiler.loadgen.job import (
    Ask,
    Asked,
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
from profiler.records import whole_or_not
from profiler.schema import Endpoint

EXIT_PATIENCE_S = 5.0
STDERR_LINES = 15
AHEAD_NS = 5_000_000
PHASES = get_args(Phase)


class LoadProcess:
    """One load process.  It lives in a session of its own, so that Ctrl-C does not reach it, and ends when
    its stdin closes, so that it cannot outlive the profiler."""

    def __init__(self) -> None:
        self._stderr: IO[bytes] = _nameless_file()  # lives as long as the child
        self._pending = b""
        self._is_told = False
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "profiler.loadgen.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
            env=os.environ | {"MALLOC_ARENA_MAX": "1"},  # the thread that writes needs no heap of its own
        )

    def fileno(self) -> int:
        """The pipe it replies through, for select."""
        assert self.popen.stdout is not None
        return self.popen.stdout.fileno()

    def tell(self, order: Order) -> None:
        assert self.popen.stdin is not None
        self._is_told = True
        try:
            self.popen.stdin.write(msgspec.json.encode(order) + b"\n")
            self.popen.stdin.flush()
        except OSError:
            raise self._died() from None

    def replies(self) -> list[Reply]:
        """What it has said, waiting until it says something; LoadError when it is no more."""
        data = os.read(self.fileno(), 1 << 16)
        if not data:
            raise self._died()
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [msgspec.json.decode(line, type=Reply) for line in lines]

    def ask(self, endpoint: Endpoint, timeout_s: float) -> Endpoint:
        """The endpoint as it turns out to be; raises as :func:`profiler.loadgen.probe.probe`."""
        self.tell(Ask(endpoint, timeout_s))
        reply = next(iter(self.replies()))
        if isinstance(reply, Asked) and reply.endpoint is not None:
            return reply.endpoint
        if isinstance(reply, Asked):
            raise InputError(reply.why_not)
        raise LoadError(f"the load generator failed: {reply}")

    def dismiss(self) -> None:
        """Tell it to end; :meth:`close` waits for it.  One that was told nothing has nothing to finish."""
        assert self.popen.stdin is not None
        if not self._is_told:
            self.popen.kill()
        with contextlib.suppress(OSError):
            self.popen.stdin.close()

    def close(self) -> None:
        self.dismiss()
        try:
            self.popen.wait(EXIT_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        self._stderr.close()

    def _died(self) -> LoadError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(EXIT_PATIENCE_S)
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()[-STDERR_LINES:]
        return LoadError("\n".join([f"the load process died (exit code {self.popen.poll()})", *lines]))


def _nameless_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("stderr"), "w+b")
    import tempfile  # 5 ms of imports

    return tempfile.TemporaryFile()


class Crew:
    """The processes of one window, from their start to the last one's end.

    What one says of its progress is summed up over all.  They meet here: what each of them brings to a stage
    all of them are told, once all are there.  When one of them ends before its time or fails, the others are
    told to end too.
    """

    def __init__(self, processes: list[LoadProcess], on_progress: Callable[[Progress], None]) -> None:
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
                process.popen.kill()

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
            met = Met(reply.stage, perf_counter_ns() + AHEAD_NS, values)
            for place, process in enumerate(self._processes):
                self._tell(place, process, met)

    def _tell(self, shard: int, process: LoadProcess, order: Order) -> None:
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


def merge_parts(records_path: str, shards: int) -> None:
    """Put the shards' records together in one file, some hundred rows in memory at a time."""
    import pyarrow.parquet as pq

    parts = [path for shard in range(shards) if (path := part_path(records_path, shard)).exists()]
    if not parts:
        return
    beside = Path(records_path).with_suffix(".tmp")
    schema = pq.read_schema(parts[0])
    with whole_or_not(beside, records_path), pq.ParquetWriter(beside, schema, compression="zstd") as writer:
        for part in parts:
            file = pq.ParquetFile(part)
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group))
    for part in parts:
        part.unlink()
