"""One simulated board: a true power curve, and what its sensors and counters make of it.

A real board tells less than the truth, each kind in its own way (measured by Yang et al., "Part-time power
measurements", arXiv 2312.02741; the counter's period from ML.ENERGY and from NVIDIA's open kernel modules,
``nvrm_registry.h``, which has 100 ms for data-centre boards and 500 ms for others)::

    energy counter      the truth, as of its last update; every 20 ms (Volta), 100 ms, 500 ms (GeForce)
    power, instant      mean over the ``window_s`` before its last update: 10 of every 20 ms (Volta), 25 of
                        every 100 ms (A100, Hopper, Blackwell), 100 of 100 ms (others)
    power, average      mean over the last second, updated every 100 ms; not on GA100 and before

Times are seconds of the clock the library is given (CLOCK_MONOTONIC unless a test moves it).
"""

from __future__ import annotations

import math
import random
import uuid
from dataclasses import dataclass, field

from profiler.nvml.curves import Curve

MIB = 1 << 20
AMBIENT_C, LOADED_C, HOT_C, SLOWDOWN_C = 30.0, 68.0, 95.0, 85.0
WARM_S = 20.0
IDLE_SM_CLOCK_MHZ = 345


@dataclass(frozen=True)
class Sensor:
    """Shows the mean of the last ``window_s`` and is renewed every ``period_s``."""

    window_s: float
    period_s: float


SECOND = Sensor(1.0, 0.1)
QUARTER = Sensor(0.025, 0.1)
TENTH = Sensor(0.1, 0.1)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What all boards of a kind have in common; powers in W are typical, not any board's."""

    name: str
    memory_bytes: int
    architecture: int
    limit_w: float
    idle_w: float
    context_w: float
    loaded_w: float
    counter_period_s: float = 0.1
    instant: Sensor = QUARTER
    average: Sensor | None = SECOND
    sm_clock_mhz: int = 1980
    memory_clock_mhz: int = 2619
    pcie_generation: int = 5
    has_ecc: bool = True
    has_mig: bool = False


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What is wrong with a board, or peculiar; times are seconds of the clock, not after a start.

    ``missing``: readings that are NOT_SUPPORTED.  ``reset_s``: the counter begins anew at 0.  ``step_s``: it
    falls by ``step_j``.  ``sensor_fed``: it adds up the instantaneous sensor's readings, not the truth.
    ``gain``: what counter and sensors show over the truth.  ``foreign``: processes of others, each with
    ``foreign_bytes``.  ``unexplained_bytes``: memory that no listed process holds.  ``elsewhere``: process
    numbers are another namespace's.  ``mig_slices``: 0, or the board is in MIG mode.  ``hot``: badly cooled.
    ``unloaded_s``: the driver is gone.  ``held_back``: further reasons for which the clocks are lowered.
    """

    missing: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    lost_s: float = math.inf
    reset_s: float = math.inf
    step_s: float = math.inf
    step_j: float = 0.0
    sensor_fed: bool = False
    gain: float = 1.0
    foreign: int = 0
    foreign_bytes: int = 4096 * MIB
    unexplained_bytes: int = 0
    elsewhere: bool = False
    mig_slices: int = 0
    hot: bool = False
    unloaded_s: float = math.inf
    held_back: int = 0


@dataclass
class SimulatedBoard:
    """``power_w`` and ``energy_j`` are the truth; all else is what the board shows of it.

    ``phase_s``: when its counter and sensors tick.  ``born_s``: when it was first looked at, cold.
    """

    kind: Kind
    curve: Curve
    number: int = 0
    faults: Faults = field(default_factory=Faults)
    phase_s: float | None = None
    born_s: float = 0.0

    def __post_init__(self) -> None:
        if self.phase_s is None:
            self.phase_s = random.Random(self.number).random() * 0.1  # noqa: S311 (reproducible)
        self._tick = -1
        self._shown_mj = 0
        self._fed = (-1, 0.0)
        self._temperature = (self.born_s, self.curve.energy_j(self.born_s), self._steady_c(self.kind.idle_w))

    @property
    def uuid(self) -> str:
        return f"GPU-{uuid.uuid5(uuid.NAMESPACE_OID, f'{self.kind.name} {self.number}')}"

    def power_w(self, t_s: float) -> float:
        """The true power."""
        return self.curve.power_w(t_s)

    def energy_j(self, t_s: float) -> float:
        """The true energy since time 0."""
        return self.curve.energy_j(t_s)

    def counter(self, t_s: float) -> tuple[int, float]:
        """Millijoules as the counter shows them, and the time of its last update."""
        tick, ticked_s = self._last_tick(t_s, self.kind.counter_period_s)
        if tick != self._tick:  # between two updates it stands still, whatever is learnt meanwhile
            self._tick = tick
            joules = self._fed_j(tick) if self.faults.sensor_fed else self.energy_j(ticked_s)
            self._shown_mj = int((joules * self.faults.gain - self._set_back_j(ticked_s)) * 1000)
        return self._shown_mj, ticked_s

    def shown_w(self, sensor: Sensor, t_s: float) -> tuple[float, float]:
        """Power in W as a sensor shows it, and the time of its last update."""
        _, ticked_s = self._last_tick(t_s, sensor.period_s)
        return self._mean_w(ticked_s, sensor.window_s) * self.faults.gain, ticked_s

    def temperature_c(self, t_s: float) -> float:
        """Nears what the mean power since the last look leads to, with time constant ``WARM_S``."""
        then_s, then_j, then_c = self._temperature
        if t_s > then_s:
            now_j = self.energy_j(t_s)
            steady_c = self._steady_c((now_j - then_j) / (t_s - then_s))
            now_c = steady_c + (then_c - steady_c) * math.exp(-(t_s - then_s) / WARM_S)
            self._temperature = t_s, now_j, now_c
        return self._temperature[2]

    def busy_frac(self, t_s: float) -> float:
        """Where the power of the last tenth of a second lies between a context's and full load."""
        span_w = self.kind.loaded_w - self.kind.context_w
        return min(1.0, max(0.0, (self._mean_w(t_s, 0.1) - self.kind.context_w) / span_w))

    def reasons(self, t_s: float) -> int:
        """Clock event reasons: idle 0x1, software power cap 0x4, software thermal slowdown 0x20 (nvml.h)."""
        idle = 0x1 if self.busy_frac(t_s) == 0 else 0
        capped = 0x4 if self._mean_w(t_s, 0.1) >= 0.98 * self.kind.limit_w else 0
        return idle | capped | self.faults.held_back | (0x20 if self.temperature_c(t_s) >= SLOWDOWN_C else 0)

    def sm_clock_mhz(self, t_s: float) -> int:
        """Full clock under load; the hotter above the slowdown temperature, the lower."""
        if self.busy_frac(t_s) == 0:
            return IDLE_SM_CLOCK_MHZ
        over_c = max(0.0, self.temperature_c(t_s) - SLOWDOWN_C)
        return round(self.kind.sm_clock_mhz * max(0.5, 1 - 0.05 * over_c))

    def is_lost(self, t_s: float) -> bool:
        return t_s >= self.faults.lost_s

    def _last_tick(self, t_s: float, period_s: float) -> tuple[int, float]:
        phase_s = (self.phase_s or 0.0) % period_s
        tick = math.floor((t_s - phase_s) / period_s + 1e-6)
        return tick, tick * period_s + phase_s

    def _mean_w(self, end_s: float, window_s: float) -> float:
        return (self.energy_j(end_s) - self.energy_j(end_s - window_s)) / window_s

    def _fed_j(self, tick: int) -> float:
        """The sum of sensor readings, each taken to hold for a period; begun at the first look."""
        period_s, last = self.kind.counter_period_s, self._fed
        at = (self.phase_s or 0.0) % period_s
        joules = last[1] if last[0] >= 0 else self.energy_j(tick * period_s + at)
        for each in range(last[0] + 1 if last[0] >= 0 else tick + 1, tick + 1):
            joules += self._mean_w(each * period_s + at, self.kind.instant.window_s) * period_s
        self._fed = tick, joules
        return joules

    def _set_back_j(self, t_s: float) -> float:
        faults = self.faults
        stepped_j = faults.step_j if t_s >= faults.step_s else 0.0
        return stepped_j + (self.energy_j(faults.reset_s) * faults.gain if t_s >= faults.reset_s else 0.0)

    def _steady_c(self, watts: float) -> float:
        top_c = HOT_C if self.faults.hot else LOADED_C
        return AMBIENT_C + (top_c - AMBIENT_C) * watts / self.kind.loaded_w
