"""gCO2e per million output tokens: measured energy × the grid's intensity where the machine stands.

Location-based (GHG Protocol Scope 2 Guidance, ch. 4): what the grid emits on average, whatever was bought.
Made from measured energy only, and only for a grid that the user names.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from profiler import catalog, stats
from profiler.cost.electricity import Energy
from profiler.cost.terms import Terms
from profiler.schema import Estimate


class Intensity(NamedTuple):
    """gCO2e per kWh, and whose word it is."""

    g_per_kwh: float
    words: str


def intensity(terms: Terms) -> Intensity | None:
    """Of the user's grid; None where none was named.  Raises InputError for a name that is not known."""
    return None if terms.grid is None else _named(terms.grid)


@lru_cache(maxsize=64)
def _named(text: str) -> Intensity:
    try:
        return Intensity(float(text), f"{float(text):g} gCO2e/kWh, given")
    except ValueError:
        found = catalog.grid(text)
    return Intensity(
        found.g_co2e_per_kwh,
        f"{found.g_co2e_per_kwh:g} gCO2e/kWh: {found.name} {found.year}, {found.scope} ({found.source})",
    )


def g_per_m_output_tokens(used: Energy, g_per_kwh: float) -> Estimate:
    """Of the boundary that ``used`` names."""
    return stats.scaled(used.kwh_per_m_output_tokens, g_per_kwh)
