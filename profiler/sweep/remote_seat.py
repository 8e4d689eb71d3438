"""The driver's side of a seat: its reservation, its actor, and the visit it is on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from profiler.cluster import nodes
from profiler.sweep import remote_actor
from profiler.sweep.nouns import Start, UnderWay, Visit
from profiler.sweep.remote_actor import Errand
from profiler.sweep.remote_files import Sender, asking, with_files
from profiler.sweep.remote_places import Place

CALLS = 4  # of an actor at a time: what is held, what it says, and being called off


class Seat:
    """Reserves what its ``place`` says for as long as it is open."""

    def __init__(self, place: Place, errand: Errand, sender: Sender) -> None:
        self.place = place
        self.node = place.node
        self.has_said_so = False
        self._errand = errand
        self._sender = sender
        self._group = None if place.spans else _reserved(place)
        self._actor: Any = None
        self._queue: deque[Start] = deque()
        self._noted: Mapping[str, UnderWay] = {}
        self._start: Start | None = None
        self._since_s = 0.0
        self.has_begun = False
        self.hold_ref: Any = None
        self.news_ref: Any = None

    def is_like(self, place: Place) -> bool:
        return (self.node.id, self.place.gpus, self.place.cpus, self.place.spans) == (
            place.node.id, place.gpus, place.cpus, place.spans
        )  # fmt: skip

    @property
    def is_idle(self) -> bool:
        return self._start is None

    @property
    def start(self) -> Start:
        assert self._start is not None
        return self._start

    @property
    def noted(self) -> UnderWay:
        return self._noted[self.start.key]

    def took_s(self) -> float:
        return time.monotonic() - self._since_s

    def waits_s(self) -> float:
        """How long its first sign of life is awaited; 0 once it came."""
        return 0.0 if self.is_idle or self.has_begun else self.took_s()

    # --------------------------------------------------------------------------------------- a visit

    def visit(self, visit: Visit, noted: Mapping[str, UnderWay], place: Place) -> None:
        self.place = place
        self._queue = deque(visit.starts)
        self._noted = noted

    def next(self) -> bool:
        """Begin the next start of the visit; False: that was the last."""
        self._start = self._queue.popleft() if self._queue else None
        if self._start is None:
            return False
        self._since_s, self.has_begun, self.has_said_so = time.monotonic(), False, False
        self._actor = self._actor or self._seated()
        self.hold_ref = self._actor.hold.remote(
            msgspec.json.encode(with_files(self._start, self._sender)), msgspec.json.encode(self.noted)
        )
        self.news_ref = self.news_ref or self._actor.news.remote()
        return True

    def unfinished(self) -> Iterator[tuple[Start, UnderWay]]:
        """The start it is on and those that were to follow."""
        for start in (self.start, *self._queue):
            yield start, self._noted[start.key]

    def refs(self) -> tuple[Any, ...]:
        return () if self.is_idle else (self.hold_ref, self.news_ref)

    def told(self, said: list[tuple[str, str]]) -> list[str]:
        """What it said of the start it is on, and asked for more."""
        self.news_ref = self._actor.news.remote()
        return [text for key, text in said if key == self.start.key]

    # --------------------------------------------------------------------------------------- the actor

    def _seated(self) -> Any:
        options: dict[str, Any] = {"max_concurrency": CALLS, "max_restarts": 0}
        if self._group is not None:
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

            strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=0)
            options |= {"scheduling_strategy": strategy, "num_gpus": self.place.gpus}
        return nodes.on(self.node.id, remote_actor.Holder, **options).remote(
            msgspec.json.encode(self._errand)
        )

    def ask(self, function: Any, *arguments: Any) -> Any:
        """Of the node, by its actor while there is one (see :data:`profiler.sweep.remote_files.Ask`)."""
        if self._actor is None:
            return asking(self.node.id)(function, *arguments)
        return self._actor.do.remote(function, *arguments)

    def stop(self) -> None:
        """Call off what is being held; it ends a little later."""
        if self._actor is not None:
            self._actor.stop.remote()

    def end(self) -> None:
        """The actor's process, now; all that it started ends by itself."""
        import ray

        if self._actor is not None:
            with suppress(ray.exceptions.RayError, ValueError):
                ray.kill(self._actor)
        self._actor = self.news_ref = None

    def close(self) -> None:
        self.end()
        if self._group is not None:
            from ray.util import remove_placement_group

            remove_placement_group(self._group)
        self._group = self._start = None
        self._queue.clear()


def _reserved(place: Place) -> Any:
    """All of it on the one node."""
    from ray.util import placement_group

    bundle = {name: count for name, count in (("CPU", place.cpus), ("GPU", place.gpus)) if count}
    here = [{"ray.io/node-id": place.node.id}]
    return placement_group([bundle], strategy="STRICT_PACK", bundle_label_selector=here) if bundle else None
