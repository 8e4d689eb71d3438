"""How the starts of a sweep lie on the machines at hand; what cannot lie on any is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cache
from types import TracebackType

from profiler import host_facts, models
from profiler.errors import InputError
from profiler.loadgen.worker import LoadWorker
from profiler.prepare import PROBE_TIMEOUT_S
from profiler.schema import Endpoint
from profiler.sweep import machines
from profiler.sweep.machines import Fitted, Machine
from profiler.sweep.nouns import Start


class Fitting:
    """Fits starts to machines; ``label`` is how messages name the sweep's file.  Models are looked up, and
    servers asked, once.  ``is_dry``: boards that nobody has here are imagined."""

    def __init__(self, label: str, at_hand: Sequence[Machine], price: str | None, is_dry: bool) -> None:
        self._label = label
        self._at_hand = at_hand
        self._price = price
        self._is_dry = is_dry
        self._kinds = unlike(at_hand)
        self._open = ExitStack()
        self._worker: LoadWorker | None = None
        self._model = cache(models.resolve)
        self._asked = cache(self._ask)
        self._imagined = cache(self._imagine)

    def __enter__(self) -> Fitting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def of(self, start: Start) -> Fitted:
        """On the first machine that holds it.  Raises InputError, in one line."""
        kinds = [each for each in self._kinds if machines.is_of(each, start.gpu)]
        if not kinds and start.gpu is not None:
            kinds = [self._imagined(start.gpu)]
        self._check_size(start, kinds)
        refused: list[InputError] = []
        for machine in kinds:
            try:
                return machines.fitted(start, machine, self._price, self._model, self._asked)
            except InputError as error:
                refused.append(error)
        raise InputError(f"{self._label}: {self._no_room(start, kinds[-1], refused[-1])}")

    def _ask(self, endpoint: Endpoint, timeout_s: float = PROBE_TIMEOUT_S) -> Endpoint:
        self._worker = self._worker or self._open.enter_context(LoadWorker())
        return self._worker.ask(endpoint, timeout_s)

    def _imagine(self, gpu: str) -> Machine:
        if self._is_dry:
            return machines.imagined(gpu)
        raise InputError(
            f"{self._label}: gpu {gpu}: no machine at hand has one (there are: {boards(self._at_hand)}); a "
            "cluster's are found with --ray ADDRESS"
        )

    def _check_size(self, start: Start, kinds: Sequence[Machine]) -> None:
        """An engine's own words of how many boards it takes, beside what there is."""
        largest, engine = kinds[-1], start.asked[0].scenario.engine
        if not start.gpus or (largest.node is None and not largest.is_imagined):
            return  # this machine is asked by what starts the engine
        if machines.spans(engine):
            at_hand = [each for each in self._at_hand if machines.is_of(each, start.gpu)] or kinds
            if start.gpus > sum(each.gpus for each in at_hand):
                raise InputError(
                    f"{self._label}: {start.model}: tensor × pipeline takes {start.gpus} GPUs, all machines "
                    f"together have {boards(at_hand)}"
                )
        elif start.gpus > largest.gpus:
            raise InputError(
                f"{self._label}: {start.model}: engine.tensor_parallel takes {start.gpus} GPUs of a machine, "
                f"and the largest has {largest.boards}; engine.args.pipeline_parallel_size may span several"
            )

    def _no_room(self, start: Start, machine: Machine, refused: InputError) -> str:
        """Only what is about memory has more than a line: then what would do is said instead."""
        first, *more = str(refused).splitlines()
        if not more:
            return first if start.model in first else f"{start.model}: {first}"
        if not machine.gpus:
            return f"{first.rstrip('.')}: {more[0].removeprefix('It ')}"
        least = machines.least_gpus(start, machine, self._model)
        name = machine.cards[0].name
        would_do = f"at least {least} × {name}" if least else f"more than {machines.MOST_GPUS} × {name}"
        return f"{start.model} needs {would_do}, and no machine has more than {machine.gpus}"


def unlike(at_hand: Iterable[Machine]) -> list[Machine]:
    """One of each kind, those with fewer boards first."""
    kinds: dict[tuple[str, str], Machine] = {}
    for each in at_hand:
        kinds.setdefault((each.boards, repr(host_facts.facts(each.host))), each)
    return sorted(kinds.values(), key=lambda each: each.gpus)


def boards(at_hand: Iterable[Machine]) -> str:
    """``3 machines with 2 × H100 SXM 80GB, 1 with no GPU``."""
    counted: dict[str, int] = {}
    for each in at_hand:
        counted[each.boards] = counted.get(each.boards, 0) + 1
    words = [f"{count} with {kind}" for kind, count in counted.items()]
    return ", ".join(words) or "none"
