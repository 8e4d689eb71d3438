"""Where the processes of one load wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter_ns

from profiler.loadgen.job import Meet, Met


class Alone:
    """One process has nobody to wait for."""

    def meet(self, stage: str, value: float) -> asyncio.Future[Met]:
        """A future of when, and with which values, all are at this stage."""
        answer: asyncio.Future[Met] = asyncio.get_running_loop().create_future()
        answer.set_result(Met(stage, perf_counter_ns(), [value]))
        return answer


class Meeting(Alone):
    """One of several: says through the parent that it is there, and is told when all are."""

    def __init__(self, say: Callable[[Meet], None]) -> None:
        self._say = say
        self._stage = ""
        self._answer: asyncio.Future[Met] | None = None

    def meet(self, stage: str, value: float) -> asyncio.Future[Met]:
        self._stage = stage
        self._answer = asyncio.get_running_loop().create_future()
        self._say(Meet(stage, value))
        return self._answer

    def answer(self, met: Met) -> None:
        """What the parent said; of a stage that nobody waits at any more, nothing."""
        if self._answer is not None and self._stage == met.stage and not self._answer.done():
            self._answer.set_result(met)
