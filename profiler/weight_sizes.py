"""How many bytes a model's weights take, by what they are for, and how many of its experts' are used."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from profiler import arch, catalog, quantization
from profiler.arch.work import Widths, weight_parts
from profiler.errors import InputError
from profiler.quantization import PLAIN_BYTES
from profiler.schema import Model, ModelFacts

_BY_METHOD: dict[str, dict[str, Any]] = {  # where a published config was kept without its quantization
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "mxfp4": {"quant_method": "mxfp4"},
}
DTYPE_BYTES = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0}


class WeightSizes(Struct, frozen=True):
    """Bytes of each part; the dense one holds attention, dense feed-forward, router and norms."""

    dense: float
    routed: float
    shared: float
    embedding: float

    @property
    def total(self) -> float:
        return self.dense + self.routed + self.shared + self.embedding


def weight_sizes(model: Model, facts: ModelFacts, dtype: str) -> WeightSizes:
    """As an engine will hold them: in a quantized checkpoint's own formats, else in ``dtype``, as random ones
    are drawn.  Where there is no config, and ``facts`` are too old to know the parts, all but the routed is
    dense."""
    held = widths(model, dtype)
    if model.config is not None:
        return WeightSizes(**weight_parts(arch.shape(model.config), held))
    shared, embedding = facts.shared_expert_params or 0, facts.embedding_params or 0
    dense = facts.total_params - facts.routed_expert_params - shared - embedding
    return WeightSizes(
        dense=dense * held.other,
        routed=facts.routed_expert_params * held.routed,
        shared=shared * held.other,
        embedding=embedding * held.embedding,
    )


def weight_bytes_each(model: Model, dtype: str) -> float:
    """Mean bytes of a weight."""
    if model.facts is None:
        return DTYPE_BYTES[dtype]
    return weight_sizes(model, model.facts, dtype).total / model.facts.total_params


def widths(model: Model, dtype: str) -> Widths:
    """Bytes of each kind of number as an engine will hold them; see :func:`weight_sizes`."""
    plain, found = DTYPE_BYTES[dtype], _quantization(model)
    if found is None:
        return Widths(
            routed=plain,
            other=plain,
            embedding=plain,
            cache=plain,
            activation=plain,
            compute="fp32" if plain == 4 else "bf16",
        )
    layers = model.facts.layers if model.facts else 1
    held = quantization.read(found, layers)
    return Widths(
        routed=held.routed,
        other=held.other,
        attention=held.attention,
        embedding=PLAIN_BYTES,
        cache=plain if held.cache_bytes is None else held.cache_bytes,
        activation=plain,
        compute="fp8" if held.eight_bit else "bf16",
    )


def block(model: Model) -> int:
    """Weights of a row that a quantized checkpoint keeps together: no tensor-parallel cut may part them."""
    found = _quantization(model)
    return quantization.block(found) if found else 1


def _quantization(model: Model) -> dict[str, Any] | None:
    """What says how the checkpoint is quantized, None where plain numbers are loaded or drawn."""
    if model.weights not in ("hub", "local"):
        return None
    entry = catalog.find(model.name)
    for config in (model.config or {}, entry.config if entry else {}):
        found = config.get("quantization_config")
        if isinstance(found, dict) and found.get("quant_method"):
            return found
    method = entry.checkpoint_quantization if entry else None
    return _BY_METHOD[method] if method else None


def vision_bytes(model: Model, dtype: str) -> float:
    """An engine loads a published checkpoint's vision tower too, though only text is asked of it."""
    entry = catalog.find(model.name) if model.weights == "hub" else None
    return entry.computed_vision_params * DTYPE_BYTES[dtype] if entry else 0.0


def unused_expert_bytes(routed_bytes: int | None, coverage_frac: float | None) -> int | None:
    """What experts without a token hold, where a share ``coverage_frac`` of a layer's experts had one; None
    where either is not known.

    Raises InputError for a share outside 0…1.
    """
    if routed_bytes is None or coverage_frac is None:
        return None
    if not 0 <= coverage_frac <= 1:
        raise InputError(f"coverage of experts is {coverage_frac}; it is a share between 0 and 1")
    return round(routed_bytes * (1 - coverage_frac))
