"""What the machines of a cluster are: resources as Ray counts them, and facts each collects of itself."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from profiler import __version__, host
from profiler.errors import InputError
from profiler.schema import Host

ACCELERATOR = "accelerator_type:"
ANSWER_S = 60.0  # a worker that Ray starts for the question imports what it needs from a cold disk


class Node(Struct, frozen=True, kw_only=True):
    """A machine that is up.  ``cpus`` and ``gpus``: what Ray may give away there; ``accelerator``: the kind
    of its GPUs as Ray names it (``H100``), None where it names none."""

    id: str
    name: str
    cpus: int
    gpus: int
    accelerator: str | None
    host: Host


class Self(Struct, frozen=True, kw_only=True):
    """What a node says of itself."""

    profiler: str
    python: str
    host: Host


def alive() -> dict[str, dict[str, Any]]:
    """Ray's entry of each machine that is up, by its id."""
    import ray

    return {each["NodeID"]: each for each in ray.nodes() if each["Alive"]}


def collect() -> tuple[Node, ...]:
    """The machines that are up, each asked for its facts, in the order of their names.  One with no CPU to
    give (``--num-cpus=0``, as heads of clusters often have) is where the others meet, and left out.

    Raises InputError that names a machine without this version of the profiler, or that gives no answer.
    """
    entries = {node: each for node, each in alive().items() if each["Resources"].get("CPU", 0) >= 1}
    if not entries:
        raise InputError("no node of the Ray cluster has a CPU to give: all are there with --num-cpus=0")
    answers = ask_each(entries, describe_self)
    _check_alike({_name(entries[node]): msgspec.json.decode(each, type=Self) for node, each in answers})
    nodes = [_node(entries[node], msgspec.json.decode(each, type=Self)) for node, each in answers]
    return tuple(sorted(nodes, key=lambda each: (each.name, each.id)))


def describe_self() -> bytes:
    """Runs on a node; JSON of :class:`Self`."""
    restore_priority()
    return msgspec.json.encode(
        Self(profiler=__version__, python=platform.python_version(), host=host.collect())
    )


def restore_priority() -> None:
    """This process, a worker, has the CPU when the node's other programs have it.  Ray puts its workers 15
    steps behind them, and an engine that it starts would wait for any daemon.

    Takes root or CAP_SYS_NICE; without, ``RAY_worker_niceness=0`` at the node's ``ray start`` does the same.
    """
    node = os.getpriority(os.PRIO_PROCESS, os.getppid())
    tasks = os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else ["0"]
    for task in tasks:  # on Linux each thread has its own, and what it starts inherits that
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(task), node)


def ask_each(
    nodes: Iterable[str], question: Callable[..., Any], *arguments: Any, timeout_s: float = ANSWER_S
) -> list[tuple[str, Any]]:
    """What a function of ours gives on each of these machines, all at once, outside what they have to give.

    Raises InputError that names the first machine which cannot say.
    """
    import ray

    asked = [(node, on(node, question).remote(*arguments)) for node in nodes]
    ray.wait([ref for _, ref in asked], num_returns=len(asked), timeout=timeout_s)
    return [(node, _answer(node, ref)) for node, ref in asked]


def on(node: str, function: Any, **options: Any) -> Any:
    """A function or class of ours as Ray runs it on this machine; it takes nothing of its CPUs and GPUs
    unless the options say so."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(node, soft=False)
    retries = {} if isinstance(function, type) else {"max_retries": 0}
    return ray.remote(function).options(**{"num_cpus": 0, "scheduling_strategy": place, **retries, **options})


def _answer(node: str, ref: Any) -> Any:
    import ray

    try:
        return ray.get(ref, timeout=0.1)
    except ray.exceptions.GetTimeoutError:
        raise InputError(f"node {label(node)} gave no answer within {ANSWER_S:g} s") from None
    except ray.exceptions.RayError as error:
        raise InputError(f"node {label(node)}: {trouble(error)}") from None


def trouble(error: BaseException) -> str:
    """What went wrong over there, in one line."""
    text = str(error)
    if "No module named 'profiler" in text:
        return f"the profiler is not installed there: pip install moe-profiler=={__version__}"
    if "worker process has died" in text:
        return "its process was killed, or found no memory"
    cause = getattr(error, "cause", None)
    lines = [line.strip() for line in str(cause or error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def label(node: str) -> str:
    """How messages name a machine: what Ray calls it, else the beginning of its id."""
    import ray

    return next((_name(each) for each in ray.nodes() if each["NodeID"] == node), node[:8])


def _name(entry: dict[str, Any]) -> str:
    """Several nodes may be on one machine."""
    return f"{entry['NodeName'] or entry['NodeManagerHostname']} ({entry['NodeID'][:6]})"


def _node(entry: dict[str, Any], said: Self) -> Node:
    resources = entry["Resources"]
    kinds = [each.removeprefix(ACCELERATOR) for each in resources if each.startswith(ACCELERATOR)]
    return Node(
        id=entry["NodeID"],
        name=_name(entry),
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        accelerator=kinds[0] if kinds else None,
        host=said.host,
    )


def _check_alike(said: dict[str, Self]) -> None:
    for name, each in said.items():
        if each.profiler != __version__:
            raise InputError(
                f"node {name} has profiler {each.profiler}, this is {__version__}: install the same on all"
            )
