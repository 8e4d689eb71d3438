"""What starts can be held on: this machine or nodes of a cluster, and how an engine would lie on them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from profiler import catalog, fit, host, models, prepare
from profiler.catalog import GpuSpec
from profiler.errors import InputError
from profiler.prepare import LAUNCHED, Plan
from profiler.schema import Endpoint, Gpu, Host, Model
from profiler.settings import EngineSettings, Scenario
from profiler.sweep import one
from profiler.sweep.nouns import Job, Start

MOST_GPUS = 64  # as many as a model is looked at for before it is said to fit nowhere
IMAGINED_GPUS = 8
PIPELINE = "pipeline_parallel_size"
BACKEND = "distributed_executor_backend"


class Machine(Struct, frozen=True, kw_only=True):
    """``node``: what its cluster calls it, None of this machine.  ``gpu``: its boards as their driver, the
    cluster or the catalog names them, ``gpus`` of them.  ``is_imagined``: nobody has one; a plan is made for
    it all the same."""

    host: Host
    node: str | None = None
    gpu: str | None = None
    gpus: int = 0
    is_imagined: bool = False

    @property
    def specs(self) -> tuple[GpuSpec, ...]:
        """What the boards may be, the likeliest first."""
        if self.gpu is None:
            return ()
        board = self.host.gpus[0] if self.host.gpus else None
        known = catalog.named(board.name, board.memory_bytes) if board else None
        return (known,) if known else catalog.find_gpus(self.gpu)

    @property
    def cards(self) -> tuple[Gpu, ...]:
        """Those of the host, else as the catalog has them."""
        if len(self.host.gpus) == self.gpus:
            return self.host.gpus
        spec = next(iter(self.specs), None)
        name, size = (spec.gpu, spec.memory_bytes) if spec else (self.gpu or "GPU", None)
        return tuple(Gpu(uuid=f"{place}", name=name, memory_bytes=size) for place in range(self.gpus))

    @property
    def name(self) -> str:
        return "this machine" if self.node is None else self.node

    @property
    def boards(self) -> str:
        """``2 × H100 SXM 80GB``."""
        return f"{self.gpus} × {self.cards[0].name}" if self.gpus else "no GPU"


def here() -> Machine:
    found = host.collect()
    return Machine(host=found, gpu=found.gpus[0].name if found.gpus else None, gpus=len(found.gpus))


def imagined(gpu: str) -> Machine:
    """One with boards that nobody has here, and vLLM, for a plan of what it would take."""
    spec = catalog.find_gpus(gpu)[0]
    bare = replace(host.collect(), gpus=(), driver=None, packages={"vllm": ""})
    return Machine(host=bare, gpu=spec.gpu, gpus=IMAGINED_GPUS, is_imagined=True)


def is_of(machine: Machine, gpu: str | None) -> bool:
    """Whether its boards are what a sweep calls ``gpu``; None is content with any."""
    if gpu is None:
        return True
    is_named = machine.gpu is not None and machine.gpu.lower() == gpu.lower()
    return is_named or not {each.gpu for each in machine.specs}.isdisjoint(
        each.gpu for each in catalog.find_gpus(gpu)
    )


def spans(engine: EngineSettings) -> bool:
    """Whether the engine places itself on the nodes of a cluster, several of them if need be."""
    args = {name.replace("-", "_"): value for name, value in engine.args.items()}
    return int(args.get(PIPELINE, 1)) > 1 or args.get(BACKEND) == "ray"


# ------------------------------------------------------------------------------------- how a start lies


class Fitted(Struct, frozen=True):
    """A start as it would be held on a machine: a plan for each run folder, on ``gpus`` boards."""

    machine: Machine
    plans: list[Plan]
    gpus: int


Resolve = Callable[[str, str], Model]


def fitted(
    start: Start, machine: Machine, price: str | None, resolve: Resolve, ask: Callable[..., Endpoint]
) -> Fitted:
    """Raises InputError, of several lines, for what this machine cannot hold."""
    if machine.node is None and not machine.is_imagined:
        plans = one.plans(start, Job(name="", price=price), Path(tempfile.gettempdir()), "", ask)
    else:
        plans = [_plan(start, what, machine, price, resolve) for what in _scenarios(start)]
    return Fitted(machine, plans[: len(start.asked)], _gpus(start, plans))


def _scenarios(start: Start) -> Iterator[Scenario]:
    yield from (each.scenario for each in start.asked)
    yield from start.sized_for


def _gpus(start: Start, plans: list[Plan]) -> int:
    if start.gpus is not None:
        return start.gpus
    sizes = [plan.settings[0].tensor_parallel or 1 for plan in plans if plan.host.gpus]
    return max(sizes, default=0)


def _plan(start: Start, what: Scenario, machine: Machine, price: str | None, resolve: Resolve) -> Plan:
    """As that machine itself will make it, from what is known of it here."""
    settings = what.engine
    if settings.kind == "auto":
        has_vllm = machine.cards and "vllm" in machine.host.packages
        settings = replace(settings, kind="vllm" if has_vllm else "transformers")
    is_launched = settings.kind in LAUNCHED
    model = resolve(start.model, start.weights) if is_launched else models.remote(start.model)
    if is_launched and not spans(settings):
        memory = machine.host.memory_bytes or 1 << 62
        settings = fit.check_fit(model, settings, what.workload, what.load, machine.cards, memory)
    return Plan(
        scenario=what,
        models=(model,),
        settings=(settings,),
        host=replace(machine.host, gpus=machine.cards),
        out=Path(),
        exclusive=True,
        price=prepare.price_of(price, machine.cards if is_launched else ()),
    )


def least_gpus(start: Start, machine: Machine, resolve: Resolve) -> int | None:
    """How many boards of the machine's kind hold the start, if it had as many; None where 64 do not."""
    for count in fit.powers(MOST_GPUS):
        larger = replace(machine, gpus=count, host=replace(machine.host, gpus=()), node="larger")
        try:
            for what in _scenarios(start):
                _plan(start, what, larger, None, resolve)
        except InputError:
            continue
        return count
    return None
