"""What a claim may speak of: each metric, what kind of evidence it takes and on what it depends."""

from __future__ import annotations

from functools import cache
from typing import Literal

from msgspec import Struct

from profiler.claims.nouns import Claim
from profiler.comparison.columns import ESTIMATES, HIGHER_IS_BETTER
from profiler.errors import InputError, nearest
from profiler.gate.limits import WITHOUT_DIRECTION

# runs: sealed runs of both sides; architecture: what a config implies; fit: weights and cache against boards;
# tokens: parallel texts; answers: runs of one model answering at two lengths.
Kind = Literal["runs", "architecture", "fit", "tokens", "answers"]
Axis = Literal["batch", "input_tokens", "output_tokens"]
AXES: tuple[Axis, ...] = ("batch", "input_tokens", "output_tokens")

# Practical margins: differences below them decide nothing.  5 % of energy and money because sensors are off
# by as much (NVML, ± 5 %) and prices move by more.
MARGIN_FRAC = 0.03
DEAR_MARGIN_FRAC = 0.05
_DEAR = ("energy", "power", "usd", "electricity", "gco2e", "idle")
# The slope over all loads of a run: a figure of none of them.
_OF_NO_LOAD = {"energy_marginal_j_per_output_token"}
_WHOLE = ("usd_per_m_output_tokens", "usd_per_request")
# Memory an engine was given or a model takes does not depend on what it is asked.
_WITHOUT_LOAD = ("memory_weights_bytes", "memory_kv_bytes")


class Metric(Struct, frozen=True, kw_only=True):
    """One metric.  ``axes`` are the parts of a cell it depends on: others may not be given, and of these
    ``needs`` must be.  ``more_is_better`` None where neither is."""

    name: str
    kind: Kind
    unit: str
    words: str
    default_margin_frac: float
    axes: tuple[Axis, ...] = ()
    needs: tuple[Axis, ...] = ()
    more_is_better: bool | None = False


_COMPUTED = (
    Metric(
        name="flops_per_token",
        kind="architecture",
        unit="FLOP/token",
        words="operations to generate one token behind a context of input_tokens",
        default_margin_frac=MARGIN_FRAC,
        axes=("input_tokens",),
        needs=("input_tokens",),
    ),
    Metric(
        name="active_params",
        kind="architecture",
        unit="parameters",
        words="parameters that a token's forward pass uses, embeddings included",
        default_margin_frac=MARGIN_FRAC,
    ),
    Metric(
        name="active_params_no_embedding",
        kind="architecture",
        unit="parameters",
        words="the same without embeddings and head, as many makers count",
        default_margin_frac=MARGIN_FRAC,
    ),
    Metric(
        name="total_params",
        kind="architecture",
        unit="parameters",
        words="all parameters of the language model",
        default_margin_frac=MARGIN_FRAC,
    ),
    Metric(
        name="kv_bytes_per_token",
        kind="architecture",
        unit="bytes/token",
        words="KV cache of one more token, 2-byte numbers",
        default_margin_frac=MARGIN_FRAC,
    ),
    Metric(
        name="weights_bytes",
        kind="architecture",
        unit="bytes",
        words="weights in the checkpoint's own format, or the precision of the conditions",
        default_margin_frac=MARGIN_FRAC,
    ),
    Metric(
        name="smallest_gpu_bytes",
        kind="fit",
        unit="bytes",
        words="memory of the smallest single GPU that holds weights, overhead and the cell's cache",
        default_margin_frac=0.0,
        axes=AXES,
        needs=("input_tokens",),
    ),
    Metric(
        name="gpus_needed",
        kind="fit",
        unit="GPUs",
        words="GPUs of the conditions' kind that hold weights, overhead and the cell's cache",
        default_margin_frac=0.0,
        axes=AXES,
        needs=("input_tokens",),
    ),
    Metric(
        name="tokens_per_text",
        kind="tokens",
        unit="tokens",
        words="tokens of the same texts, by language",
        default_margin_frac=MARGIN_FRAC,
    ),
    Metric(
        name="usd_per_answer",
        kind="answers",
        unit="USD/answer",
        words="cost of one answer, whatever was thought before it included",
        default_margin_frac=DEAR_MARGIN_FRAC,
        axes=("batch", "input_tokens"),
        needs=("batch",),
    ),
    Metric(
        name="energy_j_per_answer",
        kind="answers",
        unit="J/answer",
        words="energy of one answer, whatever was thought before it included",
        default_margin_frac=DEAR_MARGIN_FRAC,
        axes=("batch", "input_tokens"),
        needs=("batch",),
    ),
)


@cache
def known() -> dict[str, Metric]:
    """Every metric a claim may name, by name: those of runs are columns of the table (docs/metrics.md)."""
    names = [name for name in ESTIMATES if name not in WITHOUT_DIRECTION | _OF_NO_LOAD]
    return {each.name: each for each in (*map(_of_runs, names), *_COMPUTED)}


def of(name: str) -> Metric:
    """Raises InputError."""
    found = known().get(name)
    if found is None:
        raise InputError(f"no such metric {name!r}{nearest(name, known())}")
    return found


def margin_frac(claim: Claim) -> float:
    """The practical margin of a claim: its own, else its metric's."""
    return of(claim.metric).default_margin_frac if claim.margin_frac is None else claim.margin_frac


def api_priced(claim: Claim) -> bool:
    """Whether a side is a price list's, so that runs cannot be on both sides."""
    return claim.subject.api is not None or claim.baseline.api is not None


def places(claim: Claim) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """The parts of a cell that the claim's metric may have, and those it must have.  Two price lists know no
    load, and lengths only where a whole request is priced."""
    metric = of(claim.metric)
    if claim.subject.api is None or claim.baseline.api is None:
        return metric.axes, metric.needs
    lengths: tuple[Axis, ...] = ("input_tokens", "output_tokens") if metric.name in _WHOLE else ()
    return lengths, lengths


def _of_runs(name: str) -> Metric:
    loaded = name not in _WITHOUT_LOAD
    return Metric(
        name=name,
        kind="runs",
        unit=_unit(name),
        words="a column of the table of runs",
        default_margin_frac=DEAR_MARGIN_FRAC if name.startswith(_DEAR) else MARGIN_FRAC,
        axes=AXES if loaded else (),
        needs=("batch",) if loaded else (),
        more_is_better=name in HIGHER_IS_BETTER,
    )


# The first ending that fits; of what is no rate, the first letters say it.
_UNITS = {
    "usd_per_m_output_tokens": "USD per 10⁶ output tokens",
    "usd_per_m_input_tokens": "USD per 10⁶ input tokens",
    "usd_per_m_blended_tokens": "USD per 10⁶ tokens",
    "usd_per_m_output_tokens_apart": "USD per 10⁶ output tokens",
    "electricity_usd_per_m_output_tokens": "USD per 10⁶ output tokens",
    "gco2e_per_m_output_tokens": "gCO2e per 10⁶ output tokens",
    "usd_per_request": "USD/request",
}


def _unit(name: str) -> str:
    if name in _UNITS:
        return _UNITS[name]
    if name.endswith("_per_s"):
        return f"{name.removesuffix('_per_s').rpartition('_')[2]}/s"
    for part, unit in (("_j_per_", "J/token"), ("_w_", "W"), ("_bytes", "bytes"), ("_frac", "share")):
        if part in f"{name}_":
            return unit
    return "s"
