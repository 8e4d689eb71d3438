"""Power curves of simulated boards, each with its energy in closed form: the truth that tests compare with.

``power_w(t)`` at time t in seconds, ``energy_j(t)`` its integral from time 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from profiler.nvml.load import Load


class Curve(Protocol):
    """A board's true power, and its integral."""

    def power_w(self, t_s: float) -> float: ...
    def energy_j(self, t_s: float) -> float: ...


@dataclass(frozen=True)
class Constant:
    watts: float

    def power_w(self, t_s: float) -> float:
        del t_s
        return self.watts

    def energy_j(self, t_s: float) -> float:
        return self.watts * t_s


@dataclass(frozen=True)
class Square:
    """``mean_w``·(1 + ``depth``) in the first half of each of ``hz`` periods a second, ·(1 − depth) then."""

    mean_w: float
    depth: float
    hz: float

    def power_w(self, t_s: float) -> float:
        return self.mean_w * (1 + (self.depth if (t_s * self.hz) % 1 < 0.5 else -self.depth))

    def energy_j(self, t_s: float) -> float:
        phase = (t_s * self.hz) % 1
        return self.mean_w * (t_s + self.depth * min(phase, 1 - phase) / self.hz)


@dataclass(frozen=True)
class Sine:
    """``mean_w``·(1 + ``depth``·sin(2π·``hz``·t))."""

    mean_w: float
    depth: float
    hz: float

    def power_w(self, t_s: float) -> float:
        return self.mean_w * (1 + self.depth * math.sin(2 * math.pi * self.hz * t_s))

    def energy_j(self, t_s: float) -> float:
        turn = 2 * math.pi * self.hz
        return self.mean_w * (t_s + self.depth * (1 - math.cos(turn * t_s)) / turn)


@dataclass(frozen=True)
class Stretch:
    """``inside`` from ``start_s`` to ``end_s``, ``outside`` before and after: a load that comes and goes."""

    inside: Curve
    outside: Curve
    start_s: float
    end_s: float

    def power_w(self, t_s: float) -> float:
        return (self.inside if self.start_s <= t_s < self.end_s else self.outside).power_w(t_s)

    def energy_j(self, t_s: float) -> float:
        upto_s = min(max(t_s, self.start_s), self.end_s)
        extra = _between(self.inside, self.start_s, upto_s) - _between(self.outside, self.start_s, upto_s)
        return self.outside.energy_j(t_s) + extra


@dataclass(frozen=True)
class Given:
    """Any curve, from its two functions."""

    power: Callable[[float], float]
    energy: Callable[[float], float]

    def power_w(self, t_s: float) -> float:
        return self.power(t_s)

    def energy_j(self, t_s: float) -> float:
        return self.energy(t_s)


@dataclass(frozen=True)
class Following:
    """Follows a simulated engine: ``idle_w`` until a process holds a context, then ``context_w``, and from
    there to ``loaded_w`` in proportion to how busy the engine says it is."""

    load: Load
    idle_w: float
    context_w: float
    loaded_w: float

    def power_w(self, t_s: float) -> float:
        busy = self.load.busy_frac(t_s)
        return self.idle_w if busy is None else self.context_w + (self.loaded_w - self.context_w) * busy

    def energy_j(self, t_s: float) -> float:
        held = self.load.held(t_s)
        context_j = (self.context_w - self.idle_w) * held.context_s
        return self.idle_w * t_s + context_j + (self.loaded_w - self.context_w) * held.busy_s


def _between(curve: Curve, t0_s: float, t1_s: float) -> float:
    return curve.energy_j(t1_s) - curve.energy_j(t0_s)
