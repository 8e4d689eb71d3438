"""What is known of each kind of GPU: the shipped rows, the user's own over them, and finding one by name.

A user's sheet is a TOML file of ``[[gpu]]`` tables with the fields of :class:`GpuSpec` (docs/plan.md); the
environment variable PROFILER_GPUS names the one that everything sees.  A table that means a shipped row lies
over it: what it leaves out is the shipped row's.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from profiler import toml_tables
from profiler.errors import InputError, nearest

FOLDER = Path(__file__).resolve().parent
GIB = 1 << 30
SHEET_VARIABLE = "PROFILER_GPUS"

Memory = Annotated[float, Meta(ge=0.5, le=100_000)]
Bandwidth = Annotated[float, Meta(ge=0.5, le=200_000)]
Rate = Annotated[float, Meta(ge=0.001, le=1_000_000)]
Power = Annotated[float, Meta(ge=1, le=10_000)]
Link = Annotated[float, Meta(ge=0, le=20_000)]


class GpuSpec(Struct, frozen=True, kw_only=True):
    """One kind of GPU, or the CPU of a user's sheet.  None where no source says.

    ``mem_bw_gbs`` in 10⁹ bytes/s; rates in 10¹² FLOP/s of dense matrices; ``nvlink_gbs`` of one GPU, both
    directions together, 0 where it has none.  ``driver_name`` is the pattern of its name in NVML;
    ``price_names`` its names in price lists, after ``|`` those that leave the variant open.  ``cores``: how
    many of a CPU's the row holds for.  ``measured``: the ceilings were measured, not taken from a data
    sheet; ``sheet``: the user's file the row is from.
    """

    gpu: str
    mem_gb: float
    mem_bw_gbs: float | None
    dense_bf16_tflops: float | None
    fp8_tflops: float | None
    tdp_w: float | None
    nvlink_gbs: float | None
    driver_name: str
    price_names: str
    source: str
    dense_fp32_tflops: float | None = None
    kind: Literal["gpu", "cpu"] = "gpu"
    cores: int | None = None
    measured: bool = False
    sheet: str | None = None

    @property
    def memory_bytes(self) -> int:
        """A vendor's "GB" of GPU memory is a GiB in fact: drivers report 79.6 of 80, 140.4 of 141."""
        return int(self.mem_gb * GIB)


class OwnRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ``[[gpu]]`` table of a user's sheet; the limits refuse a value in another unit (bytes/s, TB/s)."""

    gpu: str
    source: str
    mem_gb: Memory | None = None
    mem_bw_gbs: Bandwidth | None = None
    dense_bf16_tflops: Rate | None = None
    dense_fp32_tflops: Rate | None = None
    fp8_tflops: Rate | None = None
    tdp_w: Power | None = None
    nvlink_gbs: Link | None = None
    driver_name: str | None = None
    price_names: str | None = None
    kind: Literal["gpu", "cpu"] = "gpu"
    cores: Annotated[int, Meta(ge=1)] | None = None
    measured: bool = False


def gpus() -> tuple[GpuSpec, ...]:
    """The user's own rows that no shipped one stands for, then the catalog, the user's rows over it."""
    path = os.environ.get(SHEET_VARIABLE)
    return _with_own(path) if path else shipped()


@cache
def shipped() -> tuple[GpuSpec, ...]:
    """The catalog as it comes."""
    import csv

    optional = {"mem_bw_gbs", "dense_bf16_tflops", "fp8_tflops", "tdp_w", "nvlink_gbs"}
    with (FOLDER / "gpus.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            {key: None if key in optional and not value else value for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
    return tuple(msgspec.convert(row, GpuSpec, strict=False) for row in rows)


@cache
def _with_own(path: str) -> tuple[GpuSpec, ...]:
    try:
        rows = own(Path(path))
    except InputError as error:
        raise InputError(f"{SHEET_VARIABLE}: {error}") from None
    over = {row.gpu: row for row in rows}
    new = tuple(row for row in rows if row.gpu not in {each.gpu for each in shipped()})
    return (*new, *(over.get(each.gpu, each) for each in shipped()))


def match_gpu(
    driver_name: str, memory_bytes: int | None = None, cores: int | None = None, *, only_shipped: bool = False
) -> GpuSpec | None:
    """The specification for a GPU as its driver names it (``NVIDIA H100 80GB HBM3``), None when unsure.

    ``memory_bytes`` must be within −12 … +6 % of the specification: it tells variants apart (GH200 with 96 or
    141 GB, laptop GPUs, MIG slices), and a wrong match would give wrong ceilings and prices.  ``cores`` of
    a CPU must be those of its row.  ``only_shipped``: what the catalog says, without the user's own rows.
    """
    plain = _plain(driver_name)
    for spec in shipped() if only_shipped else gpus():
        same_size = memory_bytes is None or 0.88 <= memory_bytes / spec.memory_bytes <= 1.06
        same_cores = cores is None or spec.cores in (None, cores)
        if (same_size or spec.kind == "cpu") and same_cores and re.fullmatch(spec.driver_name, plain):
            return spec
    return None


def _plain(driver_name: str) -> str:
    plain = re.sub(r"\b(NVIDIA|GEFORCE)\b", " ", driver_name.upper().replace("-", " "))
    return " ".join(plain.split())


# ----------------------------------------------------------------------------------- the user's own rows


def own(path: Path) -> tuple[GpuSpec, ...]:
    """The rows of a user's sheet, each over the shipped row it means.  Raises InputError: file, row, key."""
    sheet = toml_tables.read(path, str(path))
    tables = sheet.get("gpu")
    plain = isinstance(tables, list) and tables and all(isinstance(table, dict) for table in tables)
    if set(sheet) != {"gpu"} or not plain:
        strange = next((repr(key) for key in sheet if key != "gpu"), "nothing else")
        raise InputError(f"{path}: a GPU sheet is made of [[gpu]] tables; found {strange}")
    return tuple(_own_row(table, path, place) for place, table in enumerate(sheet["gpu"], start=1))


def _own_row(table: dict[str, Any], path: Path, place: int) -> GpuSpec:
    where = f"{path}: [[gpu]] {place} ({table.get('gpu', 'unnamed')})"
    for key in table:
        if key not in OwnRow.__struct_fields__:
            raise InputError(f"{where}: unknown key {key!r}{nearest(key, OwnRow.__struct_fields__)}")
    try:
        row = msgspec.convert(table, OwnRow)
    except msgspec.ValidationError as error:
        words, _, key = str(error).partition(" - at `$.")
        found = key.removesuffix("`")
        raise InputError(f"{where}: {found}{': ' if found else ''}{words}{_units(found, table)}") from None
    _check_pattern(row, where)
    return _over(row, str(path), where)


def _units(key: str, table: dict[str, Any]) -> str:
    """What was found instead, and the unit that may have been mistaken."""
    unit = {"gb": "GiB", "gbs": "10⁹ bytes/s", "tflops": "10¹² FLOP/s", "w": "watts"}.get(
        key.rpartition("_")[2]
    )
    found = f", found {table[key]!r}" if key in table else ""
    return f"{found} ({unit})" if unit else found


def _check_pattern(row: OwnRow, where: str) -> None:
    try:
        re.compile(row.driver_name or "")
    except re.error as error:
        raise InputError(f"{where}: driver_name: not a regular expression: {error}") from None


def _over(row: OwnRow, path: str, where: str) -> GpuSpec:
    """The row as a whole one: over the shipped row of the same GPU where there is one."""
    given = {name: value for name in row.__struct_fields__ if (value := getattr(row, name)) is not None}
    below = _means(row)
    if below is not None:
        given.pop("gpu")
        return msgspec.structs.replace(below, **given, sheet=path)
    if row.mem_gb is None:
        raise InputError(f"{where}: mem_gb is missing, and the catalog has no such GPU to take it from")
    empty = dict.fromkeys(("mem_bw_gbs", "dense_bf16_tflops", "fp8_tflops", "tdp_w", "nvlink_gbs"))
    recognised = {"driver_name": re.escape(_plain(row.gpu)), "price_names": ""}
    return GpuSpec(**{**empty, **recognised, **given, "sheet": path})


def _means(row: OwnRow) -> GpuSpec | None:
    named = next((spec for spec in shipped() if spec.gpu.lower() == row.gpu.lower()), None)
    size = None if row.mem_gb is None else int(row.mem_gb * GIB)
    return named or match_gpu(row.gpu, size, only_shipped=True)


# ------------------------------------------------------------------------------------- finding by name

# Words of a name that say which variant of a chip, or nothing: they may be left out.
_LOOSE = re.compile(r"RTX|SXM\d?|PCIE|NVL\d*|\d+GB|\(PER|GPU\)|BLACKWELL|SERVER|ADA|PRO")


def find_gpus(name: str) -> tuple[GpuSpec, ...]:
    """All kinds that ``name`` may mean (``h100``, ``A100-80GB``, ``4090``), the likeliest first: modules
    (SXM) before cards, then the larger memory.  Empty where there is none."""
    exact = [spec for spec in gpus() if spec.gpu.lower() == name.strip().lower()]
    if exact:
        return tuple(exact)
    words = re.sub(r"\b(AMD|INSTINCT|TESLA)\b", " ", _plain(name))
    asked = re.sub(r"[^A-Z0-9]", "", words)
    found = [spec for spec in gpus() if asked and _written(spec, asked)]
    by_driver = match_gpu(name)
    if not found and by_driver is not None:
        return (by_driver,)
    return tuple(sorted(found, key=lambda spec: ("SXM" not in spec.gpu, -spec.mem_gb)))


def _written(spec: GpuSpec, asked: str) -> bool:
    """Whether ``asked``, without gaps, is the spec's name with some of its loose words left out."""
    parts = []
    for word in _plain(spec.gpu).split():
        plain = re.escape(re.sub(r"[^A-Z0-9]", "", word))
        plain = re.sub(r"^(SXM|NVL)(\d+)$", r"\1(?:\2)?", re.sub(r"^(\d+)GB$", r"\1(?:GB)?", plain))
        parts.append(f"(?:{plain})?" if _LOOSE.fullmatch(word) else plain)
    loose = [part for part in parts if part.endswith(")?")]
    other_order = [part for part in parts if part not in loose] + loose[::-1]
    return any(re.fullmatch("".join(order), asked) for order in (parts, other_order))


def nearest_gpus(name: str, count: int = 3) -> str:
    """A hint for a name that is none: the nearest ones."""
    from difflib import get_close_matches

    short = {
        re.sub(r"[^A-Z0-9]", "", word): spec.gpu
        for spec in gpus()[::-1]
        for word in _plain(spec.gpu).split()
        if not _LOOSE.fullmatch(word)
    }
    asked = re.sub(r"[^A-Z0-9]", "", _plain(name))
    close = list(dict.fromkeys(short[each] for each in get_close_matches(asked, short, n=count, cutoff=0.5)))
    return f" (nearest: {', '.join(close)})" if close else ""
