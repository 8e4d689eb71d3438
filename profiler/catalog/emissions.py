"""Mean emissions of a few grids: ``grids.csv``, kept by hand, every row with its year and source.

Location-based yearly averages, not what the plant emits that another kilowatt-hour would start.  Ember
counts the life cycle of plants and fuels, the EPA (eGRID, total output rates) what leaves the plants: compare
figures of one ``scope`` only.
"""

from __future__ import annotations

from functools import cache

import msgspec

from profiler.catalog import rows
from profiler.catalog.boards import FOLDER
from profiler.catalog.entries import Grid
from profiler.errors import InputError, nearest


@cache
def grids() -> tuple[Grid, ...]:
    """All shipped grids."""
    found = []
    for where, row in rows.from_csv(FOLDER / "grids.csv"):
        rows.text(row, "source", where)
        rows.positive(row.get("g_co2e_per_kwh"), "g_co2e_per_kwh", where)
        found.append(msgspec.convert({"aliases": "", **row}, Grid, strict=False))
    return tuple(found)


def grid(name: str) -> Grid:
    """The grid of a name or one of its aliases (``Germany``, ``DE``) in any case.

    Raises InputError with the nearest names.
    """
    known = {}
    for each in grids():
        for word in (each.name, *each.aliases.split("|")):
            known[word.casefold()] = each
    found = known.get(name.strip().casefold())
    if found is None:
        names = [each.name for each in grids()]
        raise InputError(f"no grid {name!r} in the catalog{nearest(name, names)}; or give gCO2e per kWh")
    return found
