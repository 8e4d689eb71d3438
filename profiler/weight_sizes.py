"""How many bytes a model's weights take, by what they are for, and how many of its experts' are used."""

from __future__ import annotations

from msgspec import Struct

from profiler import catalog
from profiler.errors import InputError
from profiler.schema import Model, ModelFacts

DTYPE_BYTES = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0}
MXFP4_BYTES = 4.25 / 8  # 4 bits and an 8-bit scale for every 32 weights (OCP MX v1.0)
QUANTIZED_BYTES = {"fp8": 1.0, "compressed-tensors": 1.0, "gptq": 0.56, "awq": 0.56}


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
    are drawn.  Where ``facts`` are too old to know the parts, all but the routed is dense."""
    shared, embedding = facts.shared_expert_params or 0, facts.embedding_params or 0
    dense = facts.total_params - facts.routed_expert_params - shared - embedding
    routed_each, other_each, embedding_each = _bytes_each(model, dtype)
    return WeightSizes(
        dense=dense * other_each,
        routed=facts.routed_expert_params * routed_each,
        shared=shared * other_each,
        embedding=embedding * embedding_each,
    )


def weight_bytes_each(model: Model, dtype: str) -> float:
    """Mean bytes of a weight."""
    if model.facts is None:
        return DTYPE_BYTES[dtype]
    return weight_sizes(model, model.facts, dtype).total / model.facts.total_params


def _bytes_each(model: Model, dtype: str) -> tuple[float, float, float]:
    """Of a routed expert's weight, of one of the other layers', of the embeddings'."""
    entry = catalog.find(model.name)
    method = ((model.config or {}).get("quantization_config") or {}).get("quant_method")
    method = method or (entry.checkpoint_quantization if entry else None)
    if model.weights not in ("hub", "local") or method is None:
        plain = DTYPE_BYTES[dtype]
        return plain, plain, plain
    if method == "mxfp4":  # gpt-oss: the experts; attention, router and embeddings stay in 2 bytes
        return MXFP4_BYTES, 2.0, 2.0
    each = QUANTIZED_BYTES.get(method, 1.0)
    return each, each, 2.0


def vision_bytes(model: Model, dtype: str) -> float:
    """An engine loads a published checkpoint's vision tower too, though only text is asked of it."""
    entry = catalog.find(model.name) if model.weights == "hub" else None
    return entry.computed_vision_params * DTYPE_BYTES[dtype] if entry else 0.0


def unused_expert_bytes(routed_bytes: int, coverage_frac: float) -> int:
    """What experts without a token hold, where a share ``coverage_frac`` of a layer's experts had one.

    Raises InputError for a share outside 0…1.
    """
    if not 0 <= coverage_frac <= 1:
        raise InputError(f"coverage of experts is {coverage_frac}; it is a share between 0 and 1")
    return round(routed_bytes * (1 - coverage_frac))


def uniform_coverage_frac(experts: int, per_token: int, tokens: float) -> float:
    """Expected share of a layer's N experts that B tokens of k experts each touch where every expert is as
    likely as any other and tokens are independent: 1 − (1 − k/N)^B (MoE-CAP, arXiv 2412.07067, counts the
    same experts).  Any skew touches fewer, since (1 − p)^B is convex in p."""
    return float(1 - (1 - per_token / experts) ** tokens)
