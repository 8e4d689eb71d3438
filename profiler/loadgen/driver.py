"""Holds one load point once and notes the bounds of its steady window.

Closed loop.  The first slot starts alone; once the length of its request can be told (its 17th piece,
or its end) the others follow, evenly spread over that length or ``warmup_s``, whichever is shorter.  The
first answer of slot i of c is cut to i/c of its length, so that from then on the slots are evenly spread
over all phases of a request, however fast the engine turns out to be under the full load: without that, a
workload of equal lengths runs in waves that never dissolve, and a window sees a wave or misses it.

The window opens when every slot has had a first token and ``warmup_s`` have passed since the first
request.  It ends at the first whole multiple of ``window_s`` after its start by which ``min_requests``, and
one request a slot on average, were completed in it (or at ``max_window_s``): an instant set beforehand,
since a window that ends with a completion holds one more than its length is worth.  The slots then go on
until every request sent inside it is done: no measured request sees an emptying server.  What then still
runs is cancelled.

A request is due when the slot's last one has ended and its pause (``think_s``) is over.

Batch.  A few short requests warm the engine (not recorded), then all prompts are due at one instant.
The window is from the first sent to the last arrival.

Open loop and replay.  Every instant at which a request is due is fixed before the run; so is the window.
A timer of the kernel's wakes us at these instants; requests are built ahead, so that sending one is a
write.  Idle connections are taken from a pool, new ones opened when none is idle.  Latency counts from the
due instant, whatever the reason for which a request was sent late.  The load goes on after the window until
every request due inside it has ended.

Conversations.  A slot, or each instant of an open loop, opens one; a turn is due when the last answer has
come and its ``think_s`` have passed.

What has ended is kept on disk (:mod:`profiler.loadgen.spill`), so that memory holds what is under way.

Several processes hold one load together, each its part of the slots, arrivals or requests; they wait for
each other at a few stages (:mod:`profiler.loadgen.meeting`): connections open, length of the ramp, start of
the window, each instant at which it may end, last measured request done.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Protocol

from msgspec import Struct

from profiler.loadgen.batch import Batch
from profiler.loadgen.closed import ClosedLoop
from profiler.loadgen.job import Progress
from profiler.loadgen.openloop import OpenLoop
from profiler.loadgen.pulse import Pulse
from profiler.loadgen.session import Crowded, Full, Lost, Session, Setting, Stopped
from profiler.loadgen.spill import Spill


class Held(Struct, frozen=True, kw_only=True):
    """What came of a window: its exchanges, and its bounds where it became steady.

    ``steady_end_ns`` is None for a batch: the last arrival is known only once decoded.  ``lost``: why
    the server is not one to be measured now, where the window was given up for that.
    ``crowded``: it was given up before it opened because the load is too much for so few processes.
    ``full``: it was cut short because the disk took no more.  ``progress``: where it stood at its end.
    """

    opened_ns: int
    steady_start_ns: int | None
    steady_end_ns: int | None
    closed_ns: int
    exchanges: Spill
    pulse: Pulse
    trouble: str | None
    lost: str | None
    crowded: bool
    full: bool
    progress: Progress


class Shape(Protocol):
    """One kind of load.  ``run`` holds it from the first connection until nothing measured is under way."""

    start_ns: int | None
    end_ns: int | None

    async def run(self) -> None: ...

    def expected_s(self, now_ns: int) -> float: ...


class Driver:
    """One window of load.  Use once: ``held = await Driver(Setting(job, report)).hold()``."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._cancelled = False
        self._session: Session | None = None

    async def hold(self) -> Held:
        """Run the window to its end or until :meth:`cancel`; whatever the server does is data."""
        self._session = session = Session(self._setting)
        session.cancelled = self._cancelled
        stopped: Stopped | None = None
        shape: Shape | None = None
        session.pulse.start()
        try:
            shape = shape_of(session)
            session.expected_s = shape.expected_s
            await shape.run()
        except Stopped as reason:
            stopped = reason
        except BaseException:
            session.kept.close()
            raise
        finally:
            await session.let_go()
        assert shape is not None
        closed_ns = perf_counter_ns()
        return Held(
            opened_ns=session.opened_ns,
            steady_start_ns=shape.start_ns,
            steady_end_ns=shape.end_ns,
            closed_ns=closed_ns,
            exchanges=session.kept,
            pulse=session.pulse,
            trouble=None if stopped is None else str(stopped),
            lost=stopped.why if isinstance(stopped, Lost) and shape.end_ns is None else None,
            crowded=isinstance(stopped, Crowded),
            full=isinstance(stopped, Full),
            progress=session.progress(closed_ns),
        )

    def cancel(self) -> None:
        """End the window as soon as possible; what was recorded is kept."""
        self._cancelled = True
        if self._session is not None:
            self._session.cancelled = True


def shape_of(session: Session) -> Shape:
    """The load that the point asks for."""
    mode = session.job.point.mode
    if mode == "closed":
        return ClosedLoop(session)
    return Batch(session) if mode == "batch" else OpenLoop(session)
