"""Which node of a cluster holds a visit: a question of what is free and of where its cells were before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from profiler import host_facts
from profiler.cluster.nodes import Node
from profiler.prepare import LAUNCHED
from profiler.sweep import machines
from profiler.sweep.machines import Machine
from profiler.sweep.nouns import Start, Visit


class Place(Struct, frozen=True, kw_only=True):
    """What a visit takes of a node.  ``spans``: the engine takes its GPUs itself, from all nodes; ``helpers``
    are left alone meanwhile, for they send the load."""

    node: Node
    gpus: int
    cpus: int
    spans: bool = False
    helpers: tuple[str, ...] = ()


class Places:
    """The nodes by their ids, and what is taken of them.  ``needs``: GPUs of a start's engine; ``before``:
    the name of the node that held a cell last."""

    def __init__(
        self, nodes: Iterable[Node], needs: Callable[[Start], int], pack: bool, before: Mapping[str, str]
    ) -> None:
        self.nodes = {each.id: each for each in nodes}
        self._taken: list[Place] = []
        self._needs = needs
        self._pack = pack
        self._before = dict(before)
        self._hosts = {each.name: each for each in self.nodes.values()}

    def free(self, visit: Visit) -> Place | None:
        """Where it can begin now: on the node of its cells' earlier starts while there is one, else on one
        like that; of several the one with the fewest GPUs."""
        if any(machines.spans(start.asked[0].scenario.engine) for start in visit.starts):
            return self._for_all(visit)
        for node in self._candidates(visit):
            place = self._on(node, visit)
            if place is not None:
                return place
        return None

    def take(self, place: Place, visit: Visit) -> None:
        self._taken.append(place)
        self._before |= {cell: place.node.name for start in visit.starts for cell in start.cells}

    def give_back(self, place: Place) -> None:
        self._taken = [each for each in self._taken if each is not place]

    def lose(self, node: str) -> None:
        self.nodes.pop(node, None)

    def join(self, node: Node) -> None:
        self.nodes[node.id] = self._hosts[node.name] = node

    def _candidates(self, visit: Visit) -> list[Node]:
        fitting = [node for node in self.nodes.values() if self._fits(node, visit)]
        fitting.sort(key=lambda each: (each.gpus, each.cpus, each.name))
        earlier = {self._before.get(cell) for start in visit.starts for cell in start.cells} - {None}
        same = [node for node in fitting if node.name in earlier]
        if same or not earlier:
            return same or fitting
        gone = [self._hosts[name] for name in earlier if name in self._hosts]
        alike = [node for node in fitting if any(_are_alike(node, each) for each in gone)]
        return alike or fitting

    def _fits(self, node: Node, visit: Visit) -> bool:
        return all(
            machines.is_of(machine_of(node), each.gpu) and self._needs(each) <= node.gpus
            for each in visit.starts
        )

    def _on(self, node: Node, visit: Visit) -> Place | None:
        if any(node.id in each.helpers or each.spans for each in self._taken):
            return None
        beside = [each for each in self._taken if each.node.id == node.id]
        gpus, cpus = self._share(node, visit)
        if sum(each.gpus for each in beside) + gpus > node.gpus:
            return None
        if beside and sum(each.cpus for each in beside) + cpus > node.cpus:
            return None
        helpers = self._helpers(node, visit)
        if helpers is None or (beside and not self._pack):
            return None
        return Place(node=node, gpus=gpus, cpus=cpus, helpers=helpers)

    def _share(self, node: Node, visit: Visit) -> tuple[int, int]:
        """GPUs and CPUs: all of the node, unless engines are packed."""
        if not self._pack:
            return node.gpus, node.cpus
        gpus = max(map(self._needs, visit.starts))
        if gpus:
            return gpus, node.cpus * gpus // node.gpus
        computes = any(start.asked[0].scenario.engine.kind in ("auto", *LAUNCHED) for start in visit.starts)
        return 0, node.cpus if computes else min(1, node.cpus)

    def _helpers(self, node: Node, visit: Visit) -> tuple[str, ...] | None:
        """Other nodes that send the load with it; None while too few are free."""
        count = max(each.scenario.load.machines for start in visit.starts for each in start.asked) - 1
        busy = {node.id, *(each.node.id for each in self._taken)}
        busy |= {helper for each in self._taken for helper in each.helpers}
        free = [each.id for each in self.nodes.values() if each.id not in busy]
        return tuple(free[:count]) if len(free) >= count else None

    def _for_all(self, visit: Visit) -> Place | None:
        """For an engine that has the cluster to itself."""
        if self._taken:
            return None
        fitting = [
            node
            for node in self.nodes.values()
            if all(machines.is_of(machine_of(node), each.gpu) for each in visit.starts)
        ]
        first = max(fitting, key=lambda each: each.gpus, default=None)
        return Place(node=first, gpus=0, cpus=0, spans=True) if first else None


def _are_alike(one: Node, other: Node) -> bool:
    return one.accelerator == other.accelerator and not host_facts.differences(one.host, other.host)


def machine_of(node: Node) -> Machine:
    """A node as a plan sees it."""
    boards = node.host.gpus
    name = boards[0].name if boards and node.gpus else node.accelerator
    return Machine(host=node.host, node=node.name, gpu=name, gpus=node.gpus)
