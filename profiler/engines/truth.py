"""A metronome as a child process, and what it knows: when every chunk was really emitted."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from profiler.engines.metronome import API_KEY_VARIABLE, command
from profiler.engines.metronome_law import Settings
from profiler.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STOP_PATIENCE_S = 2.0
TRUTH_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Truth:
    """Request i arrived at ``arrived_ns[i]`` and was answered in ``chunks[i]`` chunks; ``emitted_ns`` and
    ``due_ns`` are those of all requests, one after another.  In order of arrival."""

    arrived_ns: NDArray[np.int64]
    chunks: NDArray[np.int64]
    emitted_ns: NDArray[np.int64]
    due_ns: NDArray[np.int64]

    def arrived_in(self, start_ns: int, end_ns: int) -> Truth:
        """The requests that arrived in [start, end)."""
        first, last = self.arrived_ns.searchsorted((start_ns, end_ns))
        return self.part(int(first), int(last))

    def part(self, first: int, last: int) -> Truth:
        """The requests from the ``first``-th to the one before the ``last``-th to arrive."""
        begin, end = int(self.chunks[:first].sum()), int(self.chunks[:last].sum())
        one, many = slice(first, last), slice(begin, end)
        return Truth(self.arrived_ns[one], self.chunks[one], self.emitted_ns[many], self.due_ns[many])

    def ttft_s(self) -> NDArray[np.float64]:
        """From arrival to the first emission; of requests never answered nothing."""
        answered = self.chunks > 0
        firsts = (self.chunks.cumsum() - self.chunks)[answered]
        return (self.emitted_ns[firsts] - self.arrived_ns[answered]) / 1e9

    def gaps_s(self) -> NDArray[np.float64]:
        """Between emissions of the same answer, those of all answers."""
        import numpy as np

        owner = np.repeat(np.arange(self.chunks.size), self.chunks)
        gaps_s: NDArray[np.float64] = (np.diff(self.emitted_ns) / 1e9)[np.diff(owner) == 0]
        return gaps_s

    def late_s(self) -> NDArray[np.float64]:
        """How long after its due instant each chunk was emitted."""
        return (self.emitted_ns - self.due_ns) / 1e9


class Metronome:
    """One metronome in a process of its own; a context manager.  ``port`` is where it listens on loopback.

    Without ``key`` it lets everybody in.  It is in a session of its own, so that Ctrl-C does not reach it,
    and ends with this process however that dies.  Raises EngineError when it cannot start or does not answer.
    """

    port: int

    def __init__(
        self,
        settings: Settings,
        *,
        core: int | None = None,
        model: str = "metronome",
        key: str | None = None,
    ) -> None:
        self.model = model
        self.key = key
        self._argv = command(settings, model=model, core=core)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Metronome:
        self._process = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | ({API_KEY_VARIABLE: self.key} if self.key else {}),
        )
        assert self._process.stdout is not None
        try:
            said = self._process.stdout.readline().split()
        except BaseException:
            self._stop()
            raise
        if len(said) != len(("listening", "PORT")):
            self._stop()
            raise EngineError("the metronome did not start", [])
        self.port = int(said[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def truth(self) -> Truth:
        """All it knows since it started or was last cleared, answers under way as far as they have come."""
        import numpy as np

        with np.load(io.BytesIO(self._ask("GET")), allow_pickle=False) as arrays:
            return _by_arrival(**arrays)

    def clear(self) -> None:
        """Forget what is known so far."""
        self._ask("DELETE")

    def _ask(self, method: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TRUTH_PATIENCE_S)
        try:
            key = {"Authorization": f"Bearer {self.key}"} if self.key else {}
            connection.request(method, "/truth", headers=key)
            return connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the metronome does not answer: {error}", []) from None
        finally:
            connection.close()

    def _stop(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _by_arrival(**columns: Any) -> Truth:
    """Answers are kept as they end; here they are put in the order in which their requests came."""
    import numpy as np

    chunks = columns["chunks"]
    order = np.argsort(columns["arrived_ns"], kind="stable")
    sizes = chunks[order]
    begins = (chunks.cumsum() - chunks)[order]
    places = np.arange(sizes.sum()) + np.repeat(begins - (sizes.cumsum() - sizes), sizes)
    return Truth(
        columns["arrived_ns"][order], sizes, columns["emitted_ns"][places], columns["due_ns"][places]
    )
