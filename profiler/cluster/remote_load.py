"""Load processes on other machines of a Ray cluster, as members of the crew that holds a load."""

from __future__ import annotations

import contextlib
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from profiler.client import Clock
from profiler.cluster import clocks, connect, nodes
from profiler.cluster.load_bridge import Bridge
from profiler.engines.base import EVERYWHERE, HERE
from profiler.errors import InputError, LoadError
from profiler.loadgen.job import Broken, Finished, LoadJob, Met, Order, Reply, Start
from profiler.loadgen.process import Member
from profiler.loadgen.worker import LoadWorker
from profiler.schema import Endpoint, Window

READY_S = 60.0  # Python and what a load process needs, from a cold disk
ANSWER_S = 30.0
ASK_S = 20.0
PIECE_BYTES = 4 << 20
OF_THIS_MACHINE = (HERE, EVERYWHERE, "localhost", "::1")
TRACE = "trace"  # its name over there
# Of each kind one call at a time, in their order; a reply is waited for while orders are given.
KINDS = {"hear": 1, "say": 1, "see": 1}


class RemoteProcess(Member):
    """One on another machine.  What it replies comes through a pipe of ours that a thread fills; before it is
    heard to have finished, its records are here.  It ends with this process, however that ends."""

    notice_ns = 50_000_000  # a call of Ray's is some ms late where machines are busy

    def __init__(self, node: str, machine: str, address: str) -> None:
        self.machine = machine
        self._address = address
        self._actor = _begun(node)
        self._folder = ""
        self._records = Path()
        self._before = clocks.Ahead(0, 0)
        self._why = f"{machine} did not answer"
        reading, writing = os.pipe()
        self._heard, self._said = os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def wait(self) -> None:
        """Until it is there; LoadError where it does not come."""
        self._folder = self._call("folder", timeout_s=READY_S)
        self._listener.start()

    def fileno(self) -> int:
        return self._heard.fileno()

    def tell(self, order: Order) -> None:
        if isinstance(order, Start):
            order = replace(order, job=self._taken_there(order.job))
        elif isinstance(order, Met):
            order = replace(order, at_ns=order.at_ns + self.ahead_ns)
        self._begin("say", "say", msgspec.json.encode(order) + b"\n")

    def ask(self, endpoint: Endpoint, timeout_s: float) -> Endpoint:
        return super().ask(self._seen_there(endpoint), timeout_s)

    def synchronise(self) -> None:
        self._before = clocks.look(partial(self._call, "now_ns"))
        self.ahead_ns = self._before.by_ns

    def clock(self) -> Clock | None:
        after = clocks.look(partial(self._call, "now_ns"))
        bound_ns = clocks.bound_ns(self._before, after)
        return Clock(machine=str(self.machine), ahead_s=self.ahead_ns / 1e9, bound_s=bound_ns / 1e9)

    def kill(self) -> None:
        self._begin("see", "kill")

    def dismiss(self) -> None:
        self._begin("say", "leave")

    def close(self) -> None:
        import ray

        with contextlib.suppress(LoadError):
            self._call("leave", kind="say", timeout_s=ANSWER_S)
        ray.kill(self._actor)
        self._heard.close()
        if self._listener.is_alive():
            self._listener.join(ANSWER_S)
        self._said.close()

    def _died(self) -> LoadError:
        return LoadError(self._why)

    # --------------------------------------------------------------------------- there and back

    def _begin(self, kind: str, method: str, *given: Any) -> Any:
        return getattr(self._actor, method).options(concurrency_group=kind).remote(*given)

    def _call(self, method: str, *given: Any, kind: str = "see", timeout_s: float | None = ANSWER_S) -> Any:
        import ray

        try:
            return ray.get(self._begin(kind, method, *given), timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise LoadError(f"{self.machine} gave no answer within {timeout_s:g} s") from None
        except ray.exceptions.RayError as error:
            why = nodes.trouble(error)
            raise LoadError(f"{self.machine}, which sends a part of the load, is lost: {why}") from None

    def _taken_there(self, job: LoadJob) -> LoadJob:
        """The job as it is to be done over there: its files in the folder there, the server at ours."""
        self._records = Path(job.records_path)
        load = job.load
        if load.trace is not None:
            self._call("put", TRACE, Path(load.trace).read_bytes())
            load = replace(load, trace=f"{self._folder}/{TRACE}{Path(load.trace).suffix}")
        there = f"{self._folder}/{self._records.name}"
        return replace(job, endpoint=self._seen_there(job.endpoint), load=load, records_path=there)

    def _seen_there(self, endpoint: Endpoint) -> Endpoint:
        parts = urlsplit(endpoint.base_url)
        if parts.hostname not in OF_THIS_MACHINE:
            return endpoint
        port = f":{parts.port}" if parts.port else ""
        return replace(endpoint, base_url=parts._replace(netloc=f"{self._address}{port}").geturl())

    def _listen(self) -> None:
        """In a thread of its own, until there is nothing more to hear."""
        pending = b""
        try:
            while data := self._call("hear", kind="hear", timeout_s=None):
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._pass_on(msgspec.json.decode(line, type=Reply))
            self._why = f"{self.machine}: {self._call('last_words')}"
        except LoadError as error:
            self._why = str(error)
        except OSError:  # nobody reads any more
            pass
        finally:
            self._said.close()

    def _pass_on(self, reply: Reply) -> None:
        if isinstance(reply, Finished):
            try:
                self._bring_records()
            except OSError as error:
                reply = Broken(f"the records of {self.machine} cannot be kept: {error.strerror or error}")
            else:
                reply = replace(reply, window=self._in_our_time(reply.window))
        data = msgspec.json.encode(reply) + b"\n"
        while data:
            data = data[self._said.write(data) :]

    def _bring_records(self) -> None:
        """Where there are any: a load that is begun anew has none."""
        name, begin = self._records.name, 0
        while piece := self._call("piece", name, begin, PIECE_BYTES):
            with self._records.open("ab" if begin else "wb") as file:
                file.write(piece)
            begin += len(piece)
        self._call("drop", name)

    def _in_our_time(self, window: Window) -> Window:
        times = ("opened_ns", "steady_start_ns", "steady_end_ns", "closed_ns")
        found = {name: getattr(window, name) for name in times}
        return replace(
            window, **{name: at_ns - self.ahead_ns for name, at_ns in found.items() if at_ns is not None}
        )


def _begun(node: str) -> Any:
    """A bridge on this machine, of which it takes a CPU."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(node, soft=False)
    grouped = ray.remote(concurrency_groups=KINDS)(Bridge)  # which no option can say
    return grouped.options(num_cpus=1, scheduling_strategy=place).remote()


class Machines:
    """Other machines that send a part of a load, each with processes of its own (see
    :class:`profiler.loadgen.worker.Others`)."""

    def __init__(self, count: int) -> None:
        self.count = count
        with contextlib.ExitStack() as stack:
            stack.enter_context(connect.connected())
            free = _free()
            if len(free) < count:
                raise LoadError(
                    f"load.machines = {count + 1} needs {count} beside this one; of the cluster's others "
                    f"{len(free)} {'has' if len(free) == 1 else 'have'} a free CPU now"
                )
            chosen = list(free)[:count]
            self.most = min(free[node] for node in chosen)
            self._members: dict[str, list[RemoteProcess]] = {node: [] for node in chosen}
            self._address = _address()
            self._reached: set[str] = set()
            stack.callback(self._end)
            self._have(1)
            self._stack = stack.pop_all()

    def team(self, each: int, endpoint: Endpoint) -> list[list[Member]]:
        self._have(each)
        if endpoint.base_url not in self._reached:
            for first, *_ in self._members.values():
                _check_reaches(first, endpoint)
            self._reached.add(endpoint.base_url)
        return [[*members[:each]] for members in self._members.values()]

    def close(self) -> None:
        self._stack.close()

    def _have(self, each: int) -> None:
        """So many processes on each machine."""
        new: list[RemoteProcess] = []
        for node, members in self._members.items():
            while len(members) < each:
                members.append(RemoteProcess(node, nodes.label(node), self._address))
                new.append(members[-1])
        for member in new:
            member.wait()

    def _end(self) -> None:
        members = [member for each in self._members.values() for member in each]
        for member in members:
            member.dismiss()
        for member in members:
            member.close()


def join(worker: LoadWorker, machines: int) -> None:
    """Have as many machines, the worker's own among them, hold its loads for several; they leave with it.

    Raises InputError where there is no cluster, LoadError where too few of its machines are free.
    """
    if worker.others is None or worker.others.count < machines - 1:
        worker.part_with_others()
        worker.others = Machines(machines - 1)


def check(machines: int) -> None:
    """InputError unless the cluster this machine belongs to has so many."""
    try:
        with connect.connected():
            there = len(_others())
    except InputError as error:
        why = str(error).removeprefix("--ray auto: ").removeprefix("--ray ").partition("; ")[0]
        raise InputError(
            f"load.machines = {machines} takes a Ray cluster: {why}; start one with `ray start --head` here "
            f"and `ray start --address=HOST:6379` on the others, or leave load.machines at 1"
        ) from None
    if there < machines - 1:
        raise InputError(
            f"load.machines = {machines}: the Ray cluster has {there + 1} with a CPU to give, this one among "
            f"them; join more to it (`ray start --address=HOST:6379` there) or lower it"
        )


def _check_reaches(member: RemoteProcess, endpoint: Endpoint) -> None:
    try:
        member.ask(endpoint, ASK_S)
    except InputError as error:
        raise LoadError(f"{member.machine}, which is to send a part of the load, says: {error}") from None


def _here() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _address() -> str:
    """By which the others reach this machine."""
    return str(nodes.alive()[_here()]["NodeManagerAddress"])


def _others() -> dict[str, dict[str, Any]]:
    """Ray's entries of the machines beside this one that have a CPU to give."""
    here = _here()
    return {
        node: entry
        for node, entry in nodes.alive().items()
        if node != here and entry["Resources"].get("CPU", 0) >= 1
    }


def _free() -> dict[str, int]:
    """How many CPUs of them are free: those first that have no GPUs an engine may want, then the largest."""
    from ray._private.state import available_resources_per_node

    free = {node: int(each.get("CPU", 0)) for node, each in available_resources_per_node().items()}
    found = {node: entry for node, entry in _others().items() if free.get(node, 0) >= 1}
    order = sorted(found, key=lambda node: (found[node]["Resources"].get("GPU", 0), -free[node], node))
    return {node: free[node] for node in order}
