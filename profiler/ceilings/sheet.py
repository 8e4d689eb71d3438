"""Measured ceilings as rows of a GPU sheet (``PROFILER_GPUS``): one a kind of GPU and one for the CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from profiler.ceilings import BANDWIDTHS, Measured, Rate, best
from profiler.errors import InputError
from profiler.schema import Host

FIRST_LINE = "# measured by `profile doctor --measure`; read where PROFILER_GPUS names this file"
# Column of the sheet → what was measured for it.
RATES = {"dense_bf16_tflops": "bf16", "fp8_tflops": "fp8", "dense_fp32_tflops": "fp32"}


def rows(found: Measured, host: Host, date: str) -> list[dict[str, Any]]:
    """Only what was measured is in a row: where the catalog knows the GPU, the rest is the catalog's."""
    table = []
    for name, rates in found.of_gpus().items():
        sizes = [gpu.memory_bytes for gpu in host.gpus if gpu.name == name and gpu.memory_bytes]
        held = {"mem_gb": round(min(sizes) / 2**30, 1)} if sizes else {}
        table.append({"gpu": name, **held, **_ceilings(rates, found.others, date)})
    if rates := found.of_cpu():
        cpu = {"gpu": host.cpu, "kind": "cpu", "cores": host.cores}
        memory = {"mem_gb": round(host.memory_bytes / 2**30, 1)} if host.memory_bytes else {}
        table.append({**cpu, **memory, **_ceilings(rates, found.others, date)})
    return table


def _ceilings(rates: Sequence[Rate], others: Sequence[str], date: str) -> dict[str, Any]:
    fastest = {"mem_bw_gbs": best(rates, *BANDWIDTHS)}
    fastest |= {column: best(rates, kind) for column, kind in RATES.items()}
    known = {column: rate for column, rate in fastest.items() if rate is not None}
    row: dict[str, Any] = {
        column: _digits(rate.best_per_s / (1e9 if column == "mem_bw_gbs" else 1e12))
        for column, rate in known.items()
    }
    how = [f"{rate.what} {rate.size} best of {len(rate.per_s)}" for rate in known.values()]
    source = f"profile doctor --measure {date}: {', '.join(how)}"
    return row | {"measured": True, "source": "; ".join([source, *others])}


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def toml(table: Sequence[dict[str, Any]]) -> str:
    """A sheet; JSON's spelling of texts, numbers and truth values is TOML's too."""
    return "\n".join([FIRST_LINE, *(line for row in table for line in _lines(row))]) + "\n"


def _lines(row: dict[str, Any]) -> Iterator[str]:
    yield "\n[[gpu]]"
    yield from (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in row.items())


def check_target(path: Path) -> None:
    """Raises InputError where a sheet cannot be written, or would replace one that somebody wrote."""
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise InputError(f"--out {path}: that is a folder; name a file")
    if path.exists() and not path.read_text(errors="replace").startswith(FIRST_LINE):
        raise InputError(f"--out {path}: that file was not written by this command; choose another")
