"""What buying GPUs costs: ``gpu_capex.csv``, rebuilt by ``tools/build_catalog.py``."""

from __future__ import annotations

from functools import cache

import msgspec

from profiler.catalog import boards, checks, gpu_offers, rows
from profiler.catalog.boards import FOLDER, GpuSpec
from profiler.catalog.entries import Capex


@cache
def capex_rows() -> tuple[Capex, ...]:
    """All shipped prices of hardware, the doubtful ones marked."""
    found = []
    for where, row in rows.from_csv(FOLDER / "gpu_capex.csv"):
        for key in ("item", "gpu", "source"):
            rows.text(row, key, where)
        rows.dated(row, where)
        rows.positive(row.get("usd"), "usd", where)
        found.append(_checked(msgspec.convert(row, Capex, strict=False)))
    return tuple(found)


def capex(gpu: str) -> tuple[Capex, ...]:
    """What buying ``gpu`` (as its driver or the catalog names it) costs, believed, whole machines first, the
    newest first; empty where no source says.  A ``card`` still needs a server around it."""
    spec = named(gpu)
    found = [each for each in capex_rows() if spec and each.gpu == spec.gpu and each.doubtful is None]
    return tuple(sorted(found, key=lambda each: (each.scope != "card", each.date), reverse=True))


def named(gpu: str, memory_bytes: int | None = None) -> GpuSpec | None:
    """The kind of GPU that the catalog or a driver calls so."""
    exact = next((spec for spec in boards.gpus() if spec.gpu == gpu), None)
    return exact or boards.match_gpu(gpu, memory_bytes)


def _checked(bought: Capex) -> Capex:
    spec = next(spec for spec in boards.shipped() if spec.gpu == bought.gpu)
    price = gpu_offers.default_price(spec)
    doubt = checks.capex_doubt(bought, price.usd_per_hour if price else None)
    return msgspec.structs.replace(bought, doubtful=doubt)
