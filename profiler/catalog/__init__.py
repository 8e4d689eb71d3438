"""Data with sources: published models, GPUs, prices, grids, and the built-in tiny models.

``models.json`` (64 published models), ``gpus.csv`` (specifications) and the price sheets are rebuilt by
``tools/build_catalog.py``; ``more_models.json``, ``same_shapes.toml`` and ``grids.csv`` are kept by hand.
Every row names its source.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal

import msgspec
from msgspec import Struct

from profiler.catalog.boards import (
    FOLDER,
    SHEET_VARIABLE,
    GpuSpec,
    find_gpus,
    gpus,
    match_gpu,
    nearest_gpus,
    own,
    shipped,
)
from profiler.catalog.emissions import grid, grids
from profiler.catalog.entries import CURRENCIES, ApiOffer, Capex, Grid, PriceOffer
from profiler.catalog.gpu_offers import default_price, gpu_prices, offers
from profiler.catalog.hardware import capex, capex_rows, named
from profiler.catalog.rows import age_days
from profiler.catalog.token_prices import api_offers, api_prices

__all__ = [
    "CURRENCIES",
    "SHEET_VARIABLE",
    "ApiOffer",
    "Capex",
    "GpuSpec",
    "Grid",
    "PriceOffer",
    "age_days",
    "api_offers",
    "api_prices",
    "capex",
    "capex_rows",
    "default_price",
    "find_gpus",
    "gpu_prices",
    "gpus",
    "grid",
    "grids",
    "match_gpu",
    "named",
    "nearest_gpus",
    "offers",
    "own",
    "shipped",
]

# Endings that name a training stage, file format or date, never another shape.
_STAGE = re.compile(r"-(instruct|chat|base|it|pt|thinking|sft|hf|\d{4})(?=-|$)")

# Endings that name the number format of a checkpoint, and what such checkpoints' configs say; the makers'
# usual group of 128 weights (Qwen's model cards; FP8 in blocks of 128 × 128 as DeepSeek-V3's).
FORMATS: dict[str, dict[str, Any]] = {
    "-fp8": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "-awq": {"quant_method": "awq", "bits": 4, "group_size": 128},
    "-gptq-int4": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "-gptq-int8": {"quant_method": "gptq", "bits": 8, "group_size": 128},
}


class KvBytes(Struct, frozen=True):
    """Cache bytes per token at 2 bytes a number: layers that keep all, layers that keep ``window`` tokens;
    and the state of linear-attention layers, per sequence."""

    full: int
    windowed: int
    window: int | None
    state_bytes_per_seq: int


class CatalogModel(Struct, frozen=True, kw_only=True):
    """A published model.  ``computed_*`` were counted from ``config`` in two independent ways
    (``verified_by``); ``published_*`` are the maker's own rounded figures, in 10⁹ parameters."""

    id: str
    kind: Literal["moe", "dense"]
    release: str
    license: str
    config: dict[str, Any]
    source: str
    computed_total_params: int
    computed_text_params: int
    computed_vision_params: int
    computed_active_params: int
    computed_routed_expert_params: int
    kv_cache_bytes_per_token_bf16: KvBytes
    computed_mtp_params: int = 0
    published_total_params_b: float | None = None
    published_active_params_b: float | None = None
    published_source: str | None = None
    checkpoint_quantization: Literal["fp8", "mxfp4"] | None = None
    hub_id: str | None = None
    variants: str | None = None
    total_scope: str | None = None
    active_convention: str | None = None
    verified_by: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def hub(self) -> str:
        """Where the weights lie on the Hub."""
        return self.hub_id or self.id


class _OtherModel(Struct, frozen=True, kw_only=True):
    """A model of the shapes of one in ``models.json``; ``config`` holds the keys in which it differs."""

    id: str
    shapes_of: str
    source: str
    config: dict[str, Any] = {}


@cache
def models() -> dict[str, CatalogModel]:
    """The published models by id, in catalog order."""
    files = (FOLDER / "models.json", FOLDER / "more_models.json")
    lists = [msgspec.json.decode(file.read_bytes(), type=list[CatalogModel]) for file in files]
    return {entry.id: entry for entries in lists for entry in entries}


def find(name: str) -> CatalogModel | None:
    """The catalog entry with the shapes of ``name``: its id in any case, with or without the organisation, a
    variant that only differs in training (``Qwen2.5-72B-Instruct``), a model known to have the same shapes
    (``same_shapes.toml``), or one of these in another number format (``…-FP8``), as its config then says."""
    base, number_format = _number_format(name)
    found = _listed(name) or _same_shapes(name)
    if found or number_format is None:
        return found
    plain = _listed(base) or _same_shapes(base)
    return plain and msgspec.structs.replace(
        plain, config={**plain.config, "quantization_config": number_format}, checkpoint_quantization=None
    )


def _number_format(name: str) -> tuple[str, dict[str, Any] | None]:
    """``Qwen3-32B-FP8`` → ``Qwen3-32B`` and what its config would say of the format."""
    for ending, found in FORMATS.items():
        if name.lower().endswith(ending):
            return name[: -len(ending)], found
    return name, None


def _same_shapes(name: str) -> CatalogModel | None:
    for other in _others():
        entry = models()[other.shapes_of]
        known = {_stem(other.id), _stem(other.id).rpartition("/")[2]}
        if _stem(name) in known:
            config = {**entry.config, **other.config}
            return msgspec.structs.replace(entry, config=config, source=other.source)
    return None


@cache
def _others() -> tuple[_OtherModel, ...]:
    text = (FOLDER / "same_shapes.toml").read_bytes()
    return tuple(msgspec.toml.decode(text, type=dict[str, list[_OtherModel]])["model"])


def _listed(name: str) -> CatalogModel | None:
    wanted = name.lower()
    entries = models().values()
    for spelling in (str.lower, _stem):
        for entry in entries:
            known = {spelling(entry.id), spelling(entry.hub)}
            if "/" not in wanted:
                known = {each.rsplit("/", 1)[-1] for each in known}
            if spelling(wanted) in known:
                return entry
    return None


def _stem(name: str) -> str:
    """``meta-llama/Llama-3.1-8B-Instruct`` and ``meta-llama/Meta-Llama-3.1-8B`` have the same stem."""
    organisation, slash, base = name.lower().rpartition("/")
    return organisation + slash + _STAGE.sub("", base.removeprefix("meta-"))


def kinship(one: str, other: str) -> int:
    """2 for the same family (``Qwen/Qwen2.5-…``), 1 for the same maker, else 0."""
    (maker, _, base), (other_maker, _, other_base) = one.lower().partition("/"), other.lower().partition("/")
    same_family = base.split("-", 1)[0] == other_base.split("-", 1)[0]
    return (1 + same_family) if maker == other_maker else 0


@cache
def tiny_models() -> dict[str, dict[str, Any]]:
    """The built-in tiny models: name → Hugging Face config."""
    files = sorted((FOLDER / "tiny").glob("*.json"))
    return {path.stem: msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) for path in files}
