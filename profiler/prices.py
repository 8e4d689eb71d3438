"""What an hour of a GPU, or of a machine, costs: what the user says of it (a number or a sheet of their own)
or the catalog's offers → ``Price``.  What tokens cost is told in ``cost``.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from profiler import catalog
from profiler.errors import InputError
from profiler.schema import SIMULATED, Price


def usd_per_s(price: Price | None, gpus: int) -> float | None:
    """What a second of the whole engine costs; None without a price, or per GPU where there is none."""
    if price is None or (price.per == "gpu" and gpus < 1):
        return None
    return price.usd_per_hour * (gpus if price.per == "gpu" else 1) / 3600


class SheetPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of a user's price sheet."""

    gpu: str
    usd_per_hour: float
    date: str
    source: str


class Sheet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price sheet in TOML: ``[[price]]`` tables of gpu, usd_per_hour, date, source."""

    price: list[SheetPrice]


def parse(text: str, gpu: str | None) -> Price:
    """``--price``: a number (USD per GPU-hour, per machine-hour without a GPU) or a price sheet's path.

    Raises InputError when it is neither, not positive, or the sheet has no row for ``gpu``, which it cannot
    have for a simulated board.
    """
    per = "gpu" if gpu else "machine"
    try:
        usd = float(text)
    except ValueError:
        return _from_sheet(Path(text), gpu)
    if not 0 < usd < float("inf"):
        raise InputError(f"--price {text}: a price is a positive number of USD per {per}-hour")
    return Price(usd_per_hour=usd, per="gpu" if gpu else "machine", source="given with --price")


def _from_sheet(path: Path, gpu: str | None) -> Price:
    if not path.is_file():
        raise InputError(f"--price {path}: neither a number (USD per hour) nor a price sheet that exists")
    try:
        sheet = msgspec.toml.decode(path.read_bytes(), type=Sheet)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    if gpu is not None and gpu.endswith(SIMULATED):
        raise InputError(
            f"--price {path}: {gpu} is no real board and has no price; give USD per GPU-hour as a number"
        )
    rows = [row for row in sheet.price if _names(row.gpu, gpu)]
    if not rows:
        known = ", ".join(sorted({row.gpu for row in sheet.price}))
        raise InputError(f"{path} has no price for {gpu or 'machine'!r}; it has: {known}")
    row = max(rows, key=lambda each: (len(each.gpu), each.date))
    if not 0 < row.usd_per_hour < float("inf"):
        raise InputError(f"{path}: usd_per_hour of {row.gpu!r} is {row.usd_per_hour}; a price is positive")
    return Price(
        usd_per_hour=row.usd_per_hour,
        per="gpu" if gpu else "machine",
        source=f"{path.name}: {row.source}",
        date=row.date,
    )


def _names(written: str, gpu: str | None) -> bool:
    """Whether a sheet's name means this GPU: a whole-word part of the driver's name (``H100``, not ``A10``
    for an A100) or the catalog's name for it; ``machine`` where there is none."""
    if gpu is None:
        return written.lower() == "machine"
    spec = catalog.match_gpu(gpu)
    if spec is not None and written.lower() == spec.gpu.lower():
        return True
    return re.search(rf"(?<!\w){re.escape(written)}(?!\w)", gpu, re.IGNORECASE) is not None
