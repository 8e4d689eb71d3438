"""Feed-forward blocks: dense ones, and a router over experts with those that every token uses."""

from __future__ import annotations

from profiler.arch.family import Family
from profiler.arch.keys import Config, flag, listed, optional, whole
from profiler.arch.shape import Feed


def feed(c: Config, family: Family, i: int) -> Feed:
    """Layer ``i``'s: gate, up and down, 3 · hidden · width (2 without a gate); or N of them of which a token
    uses k, where ``mlp_layer_types`` or the family's rule says so."""
    kinds = listed(c, "mlp_layer_types", str)
    routes = kinds[i] == "sparse" if kinds and i < len(kinds) else family.is_moe(c, i)
    return routed(c, family) if routes else dense(c, family)


def dense(c: Config, family: Family) -> Feed:
    width = _dense_width(c)
    hidden, both = whole(c, "hidden_size"), 3 if family.gated else 2
    bias = (both - 1) * width + hidden if flag(c, family.mlp_bias_key) else 0
    return Feed(
        dense_params=both * hidden * width + bias,
        vector_params=bias,
        matrices=both,
        dense_width=width,
    )


def routed(c: Config, family: Family) -> Feed:
    hidden, experts, both = whole(c, "hidden_size"), whole(c, "num_experts"), 3 if family.gated else 2
    width = optional(c, "moe_intermediate_size") or whole(c, "intermediate_size")
    entry = whole(c, "moe_latent_size", hidden)  # Nemotron 3: experts work on a narrower vector
    shared = _shared_width(c, family, width)
    bias = 2 * width + hidden if family.expert_bias else 0
    router_bias = experts if family.router_bias else 0
    return Feed(
        dense_params=2 * hidden * entry if entry != hidden else 0,
        shared_params=both * hidden * shared + (hidden if family.shared_gate else 0),
        router_params=hidden * experts + router_bias,
        experts=experts,
        per_token=whole(c, "num_experts_per_tok", most=experts),
        expert_params=both * entry * width + bias,
        vector_params=router_bias,
        expert_vector_params=bias,
        matrices=both,
        dense_width=entry if entry != hidden else 0,
        shared_width=shared,
        expert_width=width,
    )


def beside_dense(c: Config, family: Family, i: int) -> Feed:
    """Gemma 4: a dense block in every layer, with ``enable_moe_block`` experts beside it; twice as wide with
    ``use_double_wide_mlp`` in layers that share a cache."""
    sharing = whole(c, "num_kv_shared_layers", 0, least=0)
    wide = flag(c, "use_double_wide_mlp") and i >= whole(c, "num_hidden_layers") - sharing > 0
    block = dense({**c, "intermediate_size": whole(c, "intermediate_size") * (2 if wide else 1)}, family)
    if not flag(c, "enable_moe_block"):
        return block
    experts = routed(c, family)
    scales = 4 * whole(c, "hidden_size") + experts.experts  # and the three norms around the experts
    return Feed(
        dense_params=block.dense_params,
        dense_width=block.dense_width,
        router_params=experts.router_params + scales,
        experts=experts.experts,
        per_token=experts.per_token,
        expert_params=experts.expert_params,
        vector_params=scales,
        expert_width=experts.expert_width,
    )


def granite(c: Config, family: Family, _i: int) -> Feed:
    """All layers route or, where there are no experts, none: then the shared one is all there is."""
    if whole(c, "num_experts", 0, least=0):
        return routed(c, family)
    width = whole(c, "shared_expert_intermediate_size")
    return Feed(shared_params=3 * whole(c, "hidden_size") * width, shared_width=width)


def _dense_width(c: Config) -> int:
    width = optional(c, "intermediate_size_mlp") or whole(c, "intermediate_size")
    if not flag(c, "block_auto_adjust_ff_dim"):
        return width
    # LFM2 means two thirds of it, rounded up to a multiple (modeling_lfm2.py).
    factor, multiple = c.get("block_ffn_dim_multiplier"), whole(c, "block_multiple_of", 256)
    width = int(2 * width / 3)
    width = int(factor * width) if isinstance(factor, int | float) else width
    return -(-width // multiple) * multiple


def _shared_width(c: Config, family: Family, width: int) -> int:
    """Width of the experts that every token uses: one of its own size, or some of the routed ones' size."""
    own = whole(c, "shared_expert_intermediate_size", 0, least=0)
    return own or whole(c, "n_shared_experts", family.shared_experts, least=0) * width
