"""The executor of a Ray cluster.

The driver says which node holds what: Ray knows resources, not machines.  On a node a placement group keeps
CPUs and GPUs for a seat, an actor that holds one start after another; seats outlive visits.  What an actor
says is asked for again and again, run folders are fetched once a start has ended, and a start whose actor is
gone is looked for on its node first: a run that was sealed counts.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from profiler import host_facts
from profiler.catalog import SHEET_VARIABLE
from profiler.cluster import nodes
from profiler.errors import InputError, ProfilerError, StoreError
from profiler.measure import Show
from profiler.storage import Found, Home
from profiler.sweep import one, order, remote_files
from profiler.sweep.machines import Machine
from profiler.sweep.nouns import Attempt, Began, Ended, News, Said, UnderWay, Visit
from profiler.sweep.nouns import Place as Where
from profiler.sweep.outline import Outline
from profiler.sweep.remote_actor import Errand
from profiler.sweep.remote_files import Ask, Sender
from profiler.sweep.remote_left import left_of
from profiler.sweep.remote_places import Place, Places, machine_of
from profiler.sweep.remote_seat import Seat

STOP_S = 15.0  # for what is being held to end by itself
LOOK_EVERY_S = 10.0  # for nodes that came or went
WAITS_S = 10.0  # until it is said that others use a node


def machines() -> tuple[Machine, ...]:
    """The nodes of the cluster that this process is connected to.  Raises InputError."""
    return tuple(machine_of(each) for each in nodes.collect())


class Remote:
    """See :class:`profiler.sweep.holding.Executor`."""

    def __init__(self, outline: Outline, home: Home, show: Show) -> None:
        self._outline = outline
        self._home = home
        self._show = show
        self._places = Places(
            nodes.collect(), lambda start: outline.takes(start).gpus, outline.grid.file.pack, _before(outline)
        )
        _check_machines(outline, len(self._places.nodes))
        self._seats: list[Seat] = []
        self._seen = set(self._places.nodes)
        self._looked_s = time.monotonic()
        self._scratch = _name_of(outline, home)
        self._senders: dict[str, Sender] = {}
        self._owed = {each.group for each in outline.record.under_way}
        if home.is_shared:
            _check_shared(home, self._places.nodes)
        self._send_files()

    # -------------------------------------------------------------------------------- giving out

    def takes(self, visit: Visit) -> bool:
        return self._places.free(visit) is not None

    def submit(self, visit: Visit, noted: Mapping[str, UnderWay]) -> None:
        place = self._places.free(visit)
        assert place is not None, "takes() said so"
        self._places.take(place, visit)
        self._owed |= {each.group for each in noted.values()}
        seat = self._seat(place)
        seat.visit(visit, {key: replace(each, node=place.node.name) for key, each in noted.items()}, place)
        seat.next()

    def _seat(self, place: Place) -> Seat:
        """One that is there already, else a new one; what would be in its way goes."""
        for seat in [each for each in self._seats if each.is_idle]:
            if seat.is_like(place):
                return seat
            if place.spans or seat.node.id in (place.node.id, *place.helpers):
                self._seats.remove(seat)
                seat.close()
        seat = Seat(place, self._errand(place), self._sender(place.node.id))
        self._seats.append(seat)
        return seat

    def _errand(self, place: Place) -> Errand:
        import ray

        sender, job = self._sender(place.node.id), self._outline.job
        price, env = job.price, _keys(self._outline)
        if sheet := os.environ.get(SHEET_VARIABLE):
            env[SHEET_VARIABLE] = sender.path(sheet)
        if price is not None and Path(price).is_file():
            job = replace(job, price=sender.path(price))
        return Errand(
            job=job,
            scratch=self._scratch,
            home=self._shared,
            hides_gpus=not place.spans,
            cluster=str(ray.get_runtime_context().gcs_address),
            env=env,
        )

    @property
    def _shared(self) -> str | None:
        return self._home.where if self._home.is_shared else None

    def _sender(self, node: str) -> Sender:
        return self._senders.setdefault(node, Sender(node, self._scratch))

    def _send_files(self) -> None:
        """What the sweep names is on every node before it begins.  Raises InputError for too large a one."""
        starts = [start for visit in self._outline.visits for start in visit.starts]
        for path in {path for start in starts for path in remote_files.named_by(start)}:
            for node in self._places.nodes:
                self._sender(node).path(path)

    # ------------------------------------------------------------------------------------ news

    def news(self, timeout_s: float) -> Iterator[News]:
        import ray

        self._look_around()
        asked = {ref: seat for seat in self._seats for ref in seat.refs()}
        if not asked:
            time.sleep(timeout_s)
            return
        ready, _ = ray.wait(list(asked), num_returns=1, timeout=timeout_s)
        for ref in ready:
            if ref in asked[ref].refs():
                yield from self._hear(asked[ref], ref)
        for seat in self._seats:
            if seat.waits_s() > WAITS_S and not seat.has_said_so:
                seat.has_said_so = True
                yield Said(f"{seat.node.name}: others use it; waiting for its CPUs and GPUs", seat.start)

    def _hear(self, seat: Seat, ref: Any) -> Iterator[News]:
        import ray

        try:
            said = ray.get(ref)
        except ray.exceptions.RayError as error:
            yield from self._broken(seat, error)
            return
        if ref == seat.news_ref:
            for text in seat.told(said):
                yield from self._began(seat)
                if text:
                    self._show.phase(f"{seat.node.name} · {seat.start.model}", text)
            return
        attempts = msgspec.json.decode(said, type=tuple[Attempt, ...])
        try:
            self._fetch(seat.ask, [run for each in attempts for run in each.runs])
        except ray.exceptions.RayError as error:
            yield from self._broken(seat, error)
            return
        yield from self._began(seat)
        yield self._ended(seat, attempts)
        self._go_on(seat)

    def _began(self, seat: Seat) -> Iterator[News]:
        """Once a start; its end may be heard of before its beginning."""
        if not seat.has_begun:
            seat.has_begun = True
            yield Began(seat.start, _where(seat))

    def _ended(self, seat: Seat, attempts: Sequence[Attempt]) -> Ended:
        self._owed.discard(seat.noted.group)
        return Ended(seat.start, self._taken_in(attempts, _where(seat)))

    def _taken_in(self, attempts: Sequence[Attempt], where: Where) -> tuple[Attempt, ...]:
        for run in (run for each in attempts if each.outcome == "held" for run in each.runs):
            if (self._home.scratch / run).exists():
                self._home.take_in(self._home.scratch / run)
        return tuple(each if each.place else replace(each, place=where) for each in attempts)

    def _go_on(self, seat: Seat) -> None:
        if not seat.next():
            self._places.give_back(seat.place)

    def _fetch(self, ask: Ask, runs: Iterable[str]) -> None:
        """Into our own folder; where the home is shared, the node has brought them."""
        there = remote_files.told(ask, remote_files.scratch_of, self._scratch)
        for run in runs:
            if not self._home.is_shared:
                remote_files.fetch(ask, f"{there}/{run}", self._home.scratch)
            remote_files.told(ask, remote_files.drop, f"{there}/{run}")

    # ------------------------------------------------------------------------------- what breaks

    def _broken(self, seat: Seat, error: BaseException) -> Iterator[News]:
        """An actor is gone: alone, or with its node.  What it had sealed counts."""
        import ray

        seat.end()
        why = f"what held it on {seat.node.name} died: {nodes.trouble(error)}"
        try:
            self._collect(seat.ask, [seat.noted], why)
        except (ProfilerError, ray.exceptions.RayError) as why_not:
            if isinstance(why_not, StoreError) and not isinstance(why_not, ray.exceptions.RayError):
                raise  # it is ours: the node is well
            yield from self._lose(seat)
            return
        yield self._ended(seat, one.judged(seat.noted, self._left(seat.noted), why, seat.took_s()))
        self._go_on(seat)

    def _lose(self, seat: Seat) -> Iterator[News]:
        self._places.lose(seat.node.id)
        self._places.give_back(seat.place)
        yield Said(f"{seat.node.name} is gone; what it had goes to another")
        where = _where(seat)
        for start, noted in list(seat.unfinished()):
            fates = one.judged(noted, self._left(noted), f"{seat.node.name} was lost", 0.0)
            lost = [replace(each, outcome="lost") if each.outcome == "failed" else each for each in fates]
            self._owed.discard(noted.group)
            yield Ended(start, self._taken_in(lost, where))
        self._seats.remove(seat)
        seat.close()

    def _left(self, noted: UnderWay) -> list[Found]:
        """The runs of a start that came home."""
        return self._home.grouped([noted.group])

    def _collect(self, ask: Ask, noted: Sequence[UnderWay], why: str = one.CUT_SHORT) -> None:
        """Brings what these starts left on a node; raises as :func:`remote_files.fetch`."""
        name = self._outline.job.name
        self._fetch(ask, remote_files.told(ask, left_of, self._scratch, name, noted, why, self._shared))

    def _look_around(self) -> None:
        """Nodes that joined are used, those that went are not."""
        if time.monotonic() - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = time.monotonic()
        alive = set(nodes.alive())
        for gone in set(self._places.nodes) - alive:
            self._places.lose(gone)
        if alive - self._seen:
            self._seen |= alive
            with suppress(InputError):  # it may be going again
                for node in nodes.collect():
                    self._places.join(node)

    # ----------------------------------------------------------------------------- before and after

    def recover(self, under_way: Sequence[UnderWay]) -> None:
        for node in self._places.nodes:
            self._collect(remote_files.asking(node), under_way)

    def close(self) -> None:
        import ray

        busy = [seat for seat in self._seats if not seat.is_idle]
        for seat in busy:
            seat.stop()
        if busy:
            ray.wait([seat.hold_ref for seat in busy], num_returns=len(busy), timeout=STOP_S)
        for seat in busy:
            seat.end()
            with suppress(ProfilerError, ray.exceptions.RayError):
                self._collect(seat.ask, [seat.noted])
        for seat in self._seats:
            seat.close()
        self._seats = []
        for node in set(self._places.nodes) & set(nodes.alive()):
            with suppress(ray.exceptions.RayError):
                remote_files.told(remote_files.asking(node), remote_files.tidy, self._scratch, self._owed)


def _where(seat: Seat) -> Where:
    return Where(machine=host_facts.facts(seat.node.host), node=seat.node.name)


def _name_of(outline: Outline, home: Home) -> str:
    """The sweep's folder on every node: the same for whoever goes on with it."""
    where = str(home.folder.resolve()) if home.folder else home.where
    return f"{outline.record.name}-{hashlib.sha256(where.encode()).hexdigest()[:12]}"


def _before(outline: Outline) -> dict[str, str]:
    """The node that held a cell last; of one that is new in a pair, that of the others."""
    found = {
        cell: each.place.node
        for each in outline.record.attempts
        if each.place and each.place.node
        for cell in each.cells
    }
    for cells in order.pairs(outline.grid):
        if node := next((found[cell] for cell in cells if cell in found), None):
            found |= {cell: node for cell in cells if cell not in found}
    return found


def _keys(outline: Outline) -> dict[str, str]:
    """The keys of servers that are measured, by the variables that hold them."""
    names = {
        each.scenario.engine.args.get("key_env")
        for visit in outline.visits
        for start in visit.starts
        for each in start.asked
    }
    return {name: os.environ[name] for name in names if isinstance(name, str) and name in os.environ}


def _check_machines(outline: Outline, there: int) -> None:
    """Raises InputError where a load is to come from more nodes than there are."""
    starts = [start for visit in outline.visits for start in visit.starts]
    needed = max((each.scenario.load.machines for start in starts for each in start.asked), default=1)
    if needed > there:
        raise InputError(
            f"{outline.grid.label}: clients = {needed} (load.machines) takes as many nodes that have CPUs to "
            f"give, the engine's among them; the cluster has {there}: join more to it, or lower it"
        )


def _check_shared(home: Home, there: Iterable[str]) -> None:
    """Raises InputError that names a node which does not see what is written here."""
    token = os.urandom(8).hex().encode()
    home.check()
    home.write("sweeps/.shared", token)
    for node, seen in nodes.ask_each(there, read_there, home.where, "sweeps/.shared"):
        if seen != token:
            raise InputError(
                f"--out {home.where}: node {nodes.label(node)} does not see what this machine writes there; "
                f"use storage that all nodes share, or a folder, which the driver fetches results into"
            )


def read_there(where: str, name: str) -> bytes | None:
    """Runs on a node."""
    from profiler.storage import open_home

    return open_home(where).read(name)
