"""Estimates × Price → USD per million tokens.

Three figures, three meanings (docs/results.md):

``usd_per_m_output_tokens``  the whole bill over the output tokens; prompt work is inside.  Always known
                             when there is a price.
``usd_per_m_input_tokens``   the price of the GPU time that prompt tokens take, from a point where prefill
                             was measured apart: a prefill-only run (answers of one token), or else the
                             mean TTFT at concurrency 1, where nothing else shares the engine.
``usd_per_m_blended_tokens`` 3 : 1 input to output, with what remains of the bill on the output tokens:
                             (3·in + out)/4, so that the two kinds times their counts are the bill.

Charging the whole bill to each kind and adding them counts it twice; cutting at TTFT under load mixes
the phases.  Where prefill was never measured apart, the last two are None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from profiler import catalog, stats
from profiler.errors import InputError
from profiler.metrics import PointResult
from profiler.schema import SIMULATED, Estimate, Price

BLEND_INPUT, BLEND_OUTPUT = 3, 1


def prefill_s_per_token(points: Iterable[PointResult]) -> Estimate | None:
    """Engine seconds one prompt token takes, from points where prefill stands alone; None without one."""
    found = list(points)
    alone = [p for p in found if _answers_of_one(p) and p.estimates["input_tokens_per_s"]]
    if alone:
        fastest = max(alone, key=lambda p: _value(p, "input_tokens_per_s"))
        rate = fastest.estimates["input_tokens_per_s"]
        return stats.inverted(rate, 1.0) if rate and rate.value > 0 else None
    for point in found:
        ttft, prompt = point.estimates["ttft_s_mean"], point.estimates["input_tokens_mean"]
        if point.point.mode == "closed" and point.point.concurrency == 1 and ttft and prompt:
            return stats.scaled(ttft, 1 / prompt.value)
    return None


def _answers_of_one(point: PointResult) -> bool:
    answer = point.estimates["output_tokens_mean"]
    return answer is not None and answer.value == 1


def _value(point: PointResult, name: str) -> float:
    estimate = point.estimates[name]
    return estimate.value if estimate else float("nan")


def costs(
    point: PointResult, price: Price | None, gpus: int, prefill_s: Estimate | None
) -> dict[str, Estimate | None]:
    """The three cost columns of one load point (USD per 10⁶ tokens).

    ``gpus`` multiplies a per-GPU price; a machine price stands as it is.
    """
    rate = point.estimates["output_tokens_per_s"]
    per_s = usd_per_s(price, gpus)
    if per_s is None or rate is None or rate.value <= 0:
        return dict.fromkeys(
            ("usd_per_m_output_tokens", "usd_per_m_input_tokens", "usd_per_m_blended_tokens")
        )
    return {
        "usd_per_m_output_tokens": stats.inverted(rate, per_s * 1e6),
        **_split(point, rate, prefill_s, per_s * 1e6),
    }


def usd_per_s(price: Price | None, gpus: int) -> float | None:
    """What a second of the whole engine costs; None without a price, or per GPU where there is none."""
    if price is None or (price.per == "gpu" and gpus < 1):
        return None
    return price.usd_per_hour * (gpus if price.per == "gpu" else 1) / 3600


def _split(
    point: PointResult, output_rate: Estimate, prefill_s: Estimate | None, usd_per_m_s: float
) -> dict[str, Estimate | None]:
    """Input and blended price; None when prefill is unknown or would exceed the whole bill."""
    nothing: dict[str, Estimate | None] = dict.fromkeys(
        ("usd_per_m_input_tokens", "usd_per_m_blended_tokens")
    )
    input_rate = point.estimates["input_tokens_per_s"]
    if prefill_s is None or input_rate is None:
        return nothing
    left = 1 - input_rate.value * prefill_s.value
    if left < 0 or (left == 0 and not _answers_of_one(point)):
        return nothing
    output_s = left / output_rate.value
    blended = (BLEND_INPUT * prefill_s.value + BLEND_OUTPUT * output_s) / (BLEND_INPUT + BLEND_OUTPUT)
    return {
        "usd_per_m_input_tokens": stats.scaled(prefill_s, usd_per_m_s),
        "usd_per_m_blended_tokens": Estimate(blended * usd_per_m_s, n=output_rate.n, over=output_rate.over),
    }


class SheetPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of a user's price sheet."""

    gpu: str
    usd_per_hour: float
    date: str
    source: str


class Sheet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price sheet in TOML: ``[[price]]`` tables of gpu, usd_per_hour, date, source."""

    price: list[SheetPrice]


def parse_price(text: str, gpu: str | None) -> Price:
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
