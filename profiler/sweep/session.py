"""From the words of a sweep to its end: the file read, the home opened, the machines looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from profiler.measure import Show
from profiler.storage import Home, open_home
from profiler.sweep import grid, holding, ledger, machines, outline
from profiler.sweep.holding import Ending, Tell
from profiler.sweep.local import Local
from profiler.sweep.machines import Machine
from profiler.sweep.nouns import Grid
from profiler.sweep.outline import Asked, Outline


class Request(Struct, frozen=True, kw_only=True):
    """What a user asked of ``profile sweep``, word for word.  ``ray`` None: this machine alone."""

    file: Path
    overrides: Sequence[str] = ()
    ray: str | None = None
    out: str = "results"
    price: str | None = None
    budget: str | None = None
    seed: int | None = None
    retry_failed: bool = False


class Session(Struct, frozen=True, kw_only=True):
    """A sweep that can begin or go on, and where."""

    request: Request
    home: Home
    outline: Outline

    @property
    def record(self) -> str:
        """Where the record is, as the user would write it."""
        return f"{self.home.where}/{ledger.path_of(self.outline.record.name)}"

    def hold(self, show: Show, tell: Tell) -> Ending:
        """See :func:`profiler.sweep.holding.hold`."""
        if self.request.ray is None:
            local = Local(self.outline.job, self.home, show, len(self.outline.starts))
            return holding.hold(self.outline, self.home, local, tell)
        from profiler.sweep.remote import Remote

        return holding.hold(self.outline, self.home, Remote(self.outline, self.home, show), tell)


def asked_grid(request: Request) -> Grid:
    """All cells of a sweep's file.  Raises InputError."""
    return grid.grid(grid.read(request.file), str(request.file), request.overrides)


@contextmanager
def planned(request: Request, is_dry: bool = False) -> Iterator[Session]:
    """All checked and nothing started; on a cluster for as long as the block lasts.  Raises InputError."""
    cells = asked_grid(request)
    home = open_home(request.out)
    record = ledger.read(home, cells.name)
    with _at_hand(request.ray) as found:
        asked = Asked(
            price=request.price,
            budget=request.budget,
            seed=request.seed,
            retry_failed=request.retry_failed,
            is_dry=is_dry,
            out=home.folder,
            runs=tuple(home.runs()) if record else None,
        )
        course = outline.outline(cells, record, found, asked)
        if not is_dry:
            home.check()
        yield Session(request=request, home=home, outline=course)


@contextmanager
def _at_hand(ray: str | None) -> Iterator[tuple[Machine, ...]]:
    """What starts can be held on."""
    if ray is None:
        yield (machines.here(),)
        return
    from profiler.cluster.connect import connected
    from profiler.sweep import remote

    with connected(ray):
        yield remote.machines()
