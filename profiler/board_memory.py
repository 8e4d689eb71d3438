"""How GPUs' memory was divided when most of it was in use.  From samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from profiler.samples import between, series


class Boards(Struct, frozen=True, kw_only=True):
    """GPUs at the moment of the highest use of each, summed, in bytes; None where the driver does not say.

    ``used`` by programs, of which ``foreign`` by programs that are not the engine's and ``unlisted`` by none
    that the driver lists.
    """

    total: int | None
    used: int
    reserved: int | None
    free: int | None
    foreign: int | None
    unlisted: int | None


def boards_at_peak(samples: Any, t0_ns: int, t1_ns: int, sizes: Mapping[str, int | None]) -> Boards | None:
    """The GPUs of ``sizes`` (by UUID, with their memory where it is known) between two instants; None unless
    every one was sampled."""
    inside = between(samples, t0_ns, t1_ns)
    found = [_board(inside, uuid, size) for uuid, size in sizes.items()]
    known = [each for each in found if each is not None]
    if not known or len(known) < len(found):
        return None
    return Boards(
        used=sum(each.used for each in known),
        total=_sum_known(each.total for each in known),
        reserved=_sum_known(each.reserved for each in known),
        free=_sum_known(each.free for each in known),
        foreign=_sum_known(each.foreign for each in known),
        unlisted=_sum_known(each.unlisted for each in known),
    )


def peak_bytes(samples: Any, uuid: str) -> int | None:
    """The highest use of one GPU, less what programs that are not the engine's held of it at that moment as
    far as the driver says so; None if it was never sampled."""
    times, used = series(samples, f"gpu:{uuid}", "memory_used_bytes")
    if not len(times):
        return None
    at, foreign = series(samples, f"gpu:{uuid}", "foreign_bytes")
    if len(at):
        used = used - foreign[_nearest(at, times)]
    return int(used.max())


def _board(samples: Any, uuid: str, total: int | None) -> Boards | None:
    """NVML's second memory query tells the driver's reserve apart, but not every driver leaves it out of
    ``used``: what programs use is what is neither free nor reserved."""
    import numpy as np

    times, used = series(samples, f"gpu:{uuid}", "memory_used_bytes")
    if not len(times):
        return None
    moment = times[[int(np.argmax(used))]]

    def then(name: str) -> int | None:
        at, values = series(samples, f"gpu:{uuid}", name)
        return int(values[_nearest(at, moment)][0]) if len(at) else None

    free, reserved = then("memory_free_bytes"), then("memory_reserved_bytes")
    in_use = int(used.max()) if total is None or free is None else total - free - (reserved or 0)
    return Boards(
        total=total,
        used=in_use,
        reserved=reserved,
        free=free,
        foreign=then("foreign_bytes"),
        unlisted=then("unexplained_bytes"),
    )


def _nearest(at: Any, times: Any) -> Any:
    """For each of ``times`` the place of the nearest reading: all of one round are read within milliseconds,
    in whatever order."""
    import numpy as np

    after = np.minimum(np.searchsorted(at, times), len(at) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(times - at[before] < at[after] - times, before, after)


def _sum_known(values: Iterable[int | None]) -> int | None:
    """None where one of them is not known."""
    each = list(values)
    known = [value for value in each if value is not None]
    return sum(known) if len(known) == len(each) else None
