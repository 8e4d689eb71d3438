"""Connections for loads that do not know how many they need."""

from __future__ import annotations

from time import perf_counter_ns

from profiler.loadgen.client import Connection
from profiler.loadgen.files import most_connections
from profiler.loadgen.session import Session

IDLE_NS = 4 * 10**9  # servers close idle connections after 5 s (uvicorn, and so vLLM) or later


class Pool:
    """Idle connections, the one used last first; more are made when none is idle, up to ``most``.

    A connection that has been idle for long is not used again, since the server may be closing it that very
    moment, which would look like a failure.  The ``ready`` last used ones are opened anew.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._idle: list[tuple[Connection, int]] = []
        self._closed: list[Connection] = []
        self._made = 0
        self.most = most_connections()

    async def open(self, number: int) -> None:
        """Open this many now."""
        self._made = min(number, self.most)
        made = [self._session.connect() for _ in range(self._made)]
        await self._session.open_all()
        for connection in made:
            self.give_back(connection)

    def take(self) -> Connection | None:
        """A connection, open if any is; None when all are in use and no more can be had."""
        while self._idle:
            connection, _ = self._idle.pop()
            if connection.is_open:
                return connection
            self._closed.append(connection)  # by the server, while it was idle
        if self._closed:
            return self._closed.pop()
        if self._made >= self.most:
            return None
        self._made += 1
        return self._session.connect()

    def give_back(self, connection: Connection) -> None:
        if connection.is_open:
            self._idle.append((connection, perf_counter_ns()))
        else:
            self._closed.append(connection)

    def freshen(self, ready: int) -> None:
        """See to connections that have been idle for long.  To be called now and then."""
        stale_ns = perf_counter_ns() - IDLE_NS
        old = [connection for connection, since_ns in self._idle if since_ns < stale_ns]
        if not old:
            return
        self._idle = self._idle[len(old) :]
        missing = max(0, ready - len(self._idle))
        for connection in old:
            connection.close()
        self._closed += old[: len(old) - missing]
        for connection in old[len(old) - missing :]:
            self._session.spawn(self._reopen(connection))

    async def _reopen(self, connection: Connection) -> None:
        await connection.open()
        self.give_back(connection)
