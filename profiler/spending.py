"""What measuring may take: a budget of time, of money or of both."""

from __future__ import annotations

import math

from msgspec import Struct

from profiler import toml_tables
from profiler.errors import InputError

UNITS = tuple(toml_tables.SECONDS_PER_UNIT)
OVERRUN = 2  # times what was announced, after which what has no budget of its own stops


class Budget(Struct, frozen=True, kw_only=True):
    """The most that may be spent; None: no limit.  ``given``: whether by the user."""

    seconds: float | None = None
    usd: float | None = None
    given: bool = True

    def pays(self, seconds: float, usd: float | None) -> bool:
        """Whether so much, all told, is within it; what has no price costs nothing."""
        in_time = self.seconds is None or seconds <= self.seconds
        return in_time and (self.usd is None or usd is None or usd <= self.usd)


def read(text: str | None, usd_per_s: float | None, where: str = "--budget") -> Budget | None:
    """``90min``, ``5usd`` or both, ``2h,5usd``; messages say that it stands at ``where``.

    Raises InputError, also for money where nothing is known to cost any.
    """
    if text is None:
        return None
    seconds = usd = None
    for word in text.split(","):
        plain = word.strip().lower()
        is_money = plain.endswith("usd") or plain.startswith("$")
        if is_money and usd is None:
            usd = _usd(plain, f"{where} {word.strip()}")
        elif plain.endswith(UNITS) and not is_money and seconds is None:
            seconds = toml_tables.seconds(plain, where)
        else:
            raise InputError(f"{where} {text}: expected a time or a sum, such as 90min, 5usd or 2h,5usd")
    if usd is not None and usd_per_s is None:
        raise InputError(f"{where} in USD needs a price of an hour: --price USD or a price sheet")
    if 0 in (seconds, usd):
        raise InputError(f"{where} {text}: nothing can be held for nothing")
    return Budget(seconds=seconds, usd=usd)


def unasked(spent_s: float, expected_s: float) -> Budget:
    """What holds where nobody gave a budget: what was announced may have been wrong, not without end."""
    return Budget(seconds=spent_s + OVERRUN * expected_s, given=False)


def _usd(plain: str, what: str) -> float:
    try:
        found = float(plain.removesuffix("usd").removeprefix("$"))
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise InputError(f"{what}: expected a sum of money such as 5usd")
    return found
