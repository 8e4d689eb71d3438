"""``PROFILER_SIMULATED_NVML``: which simulated boards there are, and what is the matter with them.

    KIND[:COUNT][?KEY=VALUE&…]        h100    a100:2    h100?mig=2&lost_after_s=20    v100?no=energy

=====================  ===============================================================================
power_w                constant; without it power follows the simulated engine's load
wave, hz, depth        ``square`` or ``sine``: modulates power_w by ±depth, hz times a second
no                     readings the boards do not offer, separated by commas (``energy,power,memory``)
lost_after_s           they fall off the bus so long after the library was loaded, in each process
reset_after_s          the energy counter begins anew at 0
step_after_s, step_j   the energy counter falls by step_j
counter                ``sensor``: it adds up the sensor's readings
gain                   what counter and sensors show over the truth
foreign, foreign_gib   processes of others, and the memory of each
unexplained_gib        memory that no process holds
mig                    slices in MIG mode
hot                    1: badly cooled, they slow down when warm
container              1: process numbers are those of the host, not ours
permission             ``denied``: the driver may not be talked to; ``processes``: nor may they be listed
driver                 ``mismatch``, ``absent``: the driver is not the library's, or not loaded
unloaded_after_s       the driver is unloaded while they are read
held_back              reasons for which the clocks are lowered, as nvml.h's bits: 8, hardware slowdown
later                  a file: once it is there, what stands in it (KEY=VALUE&…) is the matter instead, times
                       counted from then
=====================  ===============================================================================
"""

from __future__ import annotations

import math
import os
import time
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Struct

from profiler import catalog
from profiler.errors import InputError, nearest
from profiler.nvml.board import MIB, TENTH, Faults, Kind, Sensor, SimulatedBoard
from profiler.nvml.curves import Constant, Curve, Following, Sine, Square
from profiler.nvml.load import Load
from profiler.nvml.simulated import SimulatedNvml

GIB = 1024 * MIB
READINGS = {"energy", "power", "average", "clocks", "temperature", "reasons", "utilisation", "memory"}
READINGS |= {"processes", "limit", "architecture", "ecc", "pcie", "persistence", "mig"}
Amount = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


def _kind(name: str, powers: tuple[float, float, float], **rest: Any) -> Kind:
    """Memory and power limit are the catalog's; idle, context and loaded power typical ones (a CUDA context
    adds 26–50 W on boards with HBM, 66 W on an L40S: arXiv 2605.23918)."""
    spec = catalog.match_gpu(name)
    assert spec is not None
    assert spec.tdp_w is not None
    idle_w, context_w, loaded_w = powers
    facts: dict[str, Any] = {"memory_bytes": spec.memory_bytes, "limit_w": spec.tdp_w} | rest
    return Kind(name=name, idle_w=idle_w, context_w=context_w, loaded_w=loaded_w, **facts)


def kinds() -> dict[str, Kind]:
    """The kinds by the name they are asked for; architecture numbers are ``nvmlDeviceArchitecture_t``'s."""
    rtx: dict[str, Any] = {"counter_period_s": 0.5, "instant": TENTH, "has_ecc": False, "pcie_generation": 4}
    return {
        "v100": Kind(
            name="Tesla V100-SXM2-32GB",
            memory_bytes=32 * GIB,
            architecture=5,
            limit_w=300,
            idle_w=40,
            context_w=62,
            loaded_w=280,
            counter_period_s=0.02,
            instant=Sensor(0.01, 0.02),
            average=None,
            sm_clock_mhz=1530,
            memory_clock_mhz=877,
            pcie_generation=3,
        ),
        "t4": _kind("Tesla T4", (10, 27, 68), architecture=6, instant=TENTH, average=None, pcie_generation=3),
        "a100": _kind(
            "NVIDIA A100-SXM4-80GB", (58, 88, 385), architecture=7, average=None, has_mig=True,
            sm_clock_mhz=1410, memory_clock_mhz=1593, pcie_generation=4,
        ),
        "l40s": _kind("NVIDIA L40S", (35, 100, 335), architecture=8, instant=TENTH, pcie_generation=4),
        "geforce": _kind("NVIDIA GeForce RTX 4090", (22, 55, 430), architecture=8, **rtx),
        "h100": _kind("NVIDIA H100 80GB HBM3", (70, 112, 660), architecture=9, has_mig=True),
        "h200": _kind("NVIDIA H200", (76, 118, 665), architecture=9, has_mig=True, memory_clock_mhz=3201),
        "b200": _kind("NVIDIA B200", (140, 190, 950), architecture=10, has_mig=True, memory_clock_mhz=3996),
    }  # fmt: skip


class Wanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may stand behind ``?``; see the table above."""

    power_w: Amount | None = None
    wave: Literal["square", "sine"] | None = None
    hz: Amount = 7.0
    depth: Amount = 0.2
    no: str = ""
    lost_after_s: Amount = math.inf
    reset_after_s: Amount = math.inf
    step_after_s: Amount = math.inf
    step_j: Amount = 1000.0
    counter: Literal["truth", "sensor"] = "truth"
    gain: Amount = 1.0
    foreign: Count = 0
    foreign_gib: Amount = 4.0
    unexplained_gib: Amount = 0.0
    mig: Count = 0
    hot: Count = 0
    container: Count = 0
    permission: Literal["denied", "processes"] | None = None
    driver: Literal["mismatch", "absent"] | None = None
    unloaded_after_s: Amount = math.inf
    held_back: Count = 0
    later: str | None = None


def library(description: str, load_path: str | None = None) -> SimulatedNvml:
    """The library with the boards of ``description``, which follow the load in the file at ``load_path``.

    Raises InputError where the description cannot be read.
    """
    head, _, query = description.partition("?")
    name, _, count = head.partition(":")
    known = kinds()
    if name not in known:
        raise _bad(description, f"no such boards{nearest(name, known)}")
    if not (count or "1").isdigit():
        raise _bad(description, f"{count!r} is no number of boards")
    wanted = _wanted(description, query)
    load = Load(load_path)
    born_s = time.perf_counter_ns() / 1e9
    faults, curve = _faults(wanted, born_s), _curve(wanted, known[name], load)
    boards = [
        SimulatedBoard(known[name], curve, number, faults, born_s=born_s) for number in range(int(count or 1))
    ]
    later = _Later(description, wanted.later)
    return SimulatedNvml(boards, load=load, init_error=_init_error(wanted), later=later.look)


class _Later:
    """Waits for the file that says what goes wrong later, and reads it once."""

    def __init__(self, description: str, path: str | None) -> None:
        self._description, self._path = description, path

    def look(self, now_s: float) -> Faults | None:
        """What is wrong from now on, the first time that the file is there."""
        if self._path is None or not os.path.exists(self._path):
            return None
        with open(self._path, encoding="utf-8") as file:
            words = file.read().strip()
        self._path = None
        return _faults(_wanted(self._description, words), now_s)


def _wanted(description: str, query: str) -> Wanted:
    values = dict(parse_qsl(query, keep_blank_values=True))
    for key in values.keys() - set(Wanted.__struct_fields__):
        raise _bad(description, f"{key}: no such key{nearest(key, Wanted.__struct_fields__)}")
    try:
        wanted = msgspec.convert(values, Wanted, strict=False)
    except msgspec.ValidationError as error:
        raise _bad(description, str(error)) from None
    for word in _missing(wanted) - READINGS:
        raise _bad(description, f"no={word}: no such reading{nearest(word, READINGS)}")
    return wanted


def _missing(wanted: Wanted) -> frozenset[str]:
    return frozenset(wanted.no.split(",")) - {""}


def _faults(wanted: Wanted, born_s: float) -> Faults:
    return Faults(
        missing=_missing(wanted),
        denied=frozenset({"processes"} if wanted.permission == "processes" else ()),
        lost_s=born_s + wanted.lost_after_s,
        reset_s=born_s + wanted.reset_after_s,
        step_s=born_s + wanted.step_after_s,
        step_j=wanted.step_j,
        sensor_fed=wanted.counter == "sensor",
        gain=wanted.gain,
        foreign=wanted.foreign,
        foreign_bytes=int(wanted.foreign_gib * GIB),
        unexplained_bytes=int(wanted.unexplained_gib * GIB),
        elsewhere=wanted.container > 0,
        mig_slices=wanted.mig,
        hot=wanted.hot > 0,
        unloaded_s=born_s + wanted.unloaded_after_s,
        held_back=wanted.held_back,
    )


def _curve(wanted: Wanted, kind: Kind, load: Load) -> Curve:
    if wanted.wave is not None:
        wave = Square if wanted.wave == "square" else Sine
        return wave(wanted.power_w or kind.loaded_w, wanted.depth, wanted.hz)
    if wanted.power_w is not None:
        return Constant(wanted.power_w)
    return Following(load, kind.idle_w, kind.context_w, kind.loaded_w)


def _init_error(wanted: Wanted) -> int | None:
    """The code with which the library does not start."""
    import pynvml

    codes: dict[str, int] = {
        "denied": pynvml.NVML_ERROR_NO_PERMISSION,
        "mismatch": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        "absent": pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    }
    return codes.get(wanted.driver or wanted.permission or "")


def _bad(description: str, why: str) -> InputError:
    return InputError(f"PROFILER_SIMULATED_NVML={description}: {why}")
