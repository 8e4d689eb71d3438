"""Which kind each layer of a stack is, and the account of it."""

from __future__ import annotations

from profiler.arch.attention import grouped
from profiler.arch.family import Family
from profiler.arch.feed import dense, feed, routed
from profiler.arch.keys import Config, has, listed, optional, short, whole, window, wrong
from profiler.arch.shape import Feed, LayerKind, Mixer

MOST_LAYERS = 10_000  # a typing error beyond this would be counted for minutes
_KINDS = {
    "full_attention": "full",
    "attention": "full",
    "indexed_attention": "full",
    "deepseek_sparse_attention": "full",
    "sliding_attention": "window",
    "chunked_attention": "window",
    "linear_attention": "linear",
    "mamba": "linear",
    "conv": "linear",
    "moe": "moe",
    "mlp": "mlp",
}
_LETTERS = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}
NO_MIXER = Mixer(kind="full", params=0, heads=0, kv_heads=0)


def layers(c: Config, family: Family) -> tuple[LayerKind, ...]:
    """The account of every decoder layer, first to last."""
    return tuple(_layer(c, family, i, kind) for i, kind in enumerate(layer_types(c, family)))


def left_out(c: Config, family: Family) -> tuple[str, ...]:
    """What :func:`layers` does not count, in words."""
    types = layer_types(c, family)
    unknown = [kind for kind in dict.fromkeys(types) if not _counted(kind, family)]
    lines = [f"the mixers of {types.count(kind)} layers of type {short(kind)}" for kind in unknown]
    if whole(c, "hidden_size_per_layer_input", 0, least=0):
        lines.append("the embeddings that every layer adds to its input")
    return tuple(lines)


def layer_types(c: Config, family: Family) -> list[str]:
    """The type of every layer, in transformers' words: from whatever the config says it by, else by the
    family's rule."""
    given = _given(c)
    count = whole(c, "num_hidden_layers", len(given) or None, most=MOST_LAYERS)
    return [given[i] if i < len(given) else _ruled(c, family, i) for i in range(count)]


def _given(c: Config) -> list[str]:
    """Layer types as makers write them: by name, by letters, by marks, or by the places of one kind."""
    names = listed(c, "layer_types", str) or listed(c, "layers_block_type", str)
    if names:
        return names
    letters = c.get("hybrid_override_pattern")
    if letters is not None:
        if not isinstance(letters, str) or set(letters) - set(_LETTERS):
            raise wrong(c, "hybrid_override_pattern", f"a string of {' '.join(_LETTERS)}")
        return [_LETTERS[letter] for letter in letters]
    for key, zero, one in (
        ("attn_type_list", "linear_attention", "full_attention"),
        ("hybrid_layer_pattern", "full_attention", "sliding_attention"),
    ):
        if marks := listed(c, key, int):
            return [one if mark else zero for mark in marks]
    places = _attention_places(c)
    if places is None:
        return []
    return ["full_attention" if i in places else "linear_attention" for i in range(_count(c))]


def _attention_places(c: Config) -> set[int] | None:
    """Where a hybrid stack has attention, counted from 0."""
    kimi = c.get("linear_attn_config")
    if isinstance(kimi, dict):
        return {place - 1 for place in listed(kimi, "full_attn_layers", int) or ()}
    for key in ("full_attn_idxs", "attn_layer_indices"):
        if (places := listed(c, key, int)) is not None:
            return set(places)
    if has(c, "attn_layer_period"):
        first, period = whole(c, "attn_layer_offset", 0, least=0), whole(c, "attn_layer_period")
        return set(range(first, _count(c), period))
    return None


def _count(c: Config) -> int:
    return whole(c, "num_hidden_layers", most=MOST_LAYERS)


def _ruled(c: Config, family: Family, i: int) -> str:
    interval = optional(c, "full_attention_interval")
    if interval and has(c, "linear_num_value_heads"):
        return "full_attention" if (i + 1) % interval == 0 else "linear_attention"
    return "sliding_attention" if family.windowed(c, i) else "full_attention"


def _counted(kind: str, family: Family) -> bool:
    known = _KINDS.get(kind)
    return (
        known in ("full", "window")
        or (known == "linear" and family.linear is not None)
        or (known in ("moe", "mlp") and family.alone)
    )


def _layer(c: Config, family: Family, i: int, kind: str) -> LayerKind:
    norms = family.norms_per_layer * whole(c, "hidden_size") * (2 if family.norm_bias else 1)
    return LayerKind(
        count=1, mixer=_mixer(c, family, i, kind), feed=_feed(c, family, i, kind), norm_params=norms
    )


def _feed(c: Config, family: Family, i: int, kind: str) -> Feed:
    if family.alone:
        return routed(c, family) if kind == "moe" else dense(c, family) if kind == "mlp" else Feed()
    return (family.feed or feed)(c, family, i)


def _mixer(c: Config, family: Family, i: int, kind: str) -> Mixer:
    known, reach = _KINDS.get(kind), _reach(c)
    if known == "linear" and family.linear:
        return family.linear(c)
    if known not in ("full", "window"):
        return NO_MIXER
    return (family.attention or grouped)(c, family, i, reach if known == "window" else None)


def _reach(c: Config) -> int | None:
    """Tokens a layer with a window sees, None where the window is as wide as the longest context."""
    seen = window(c)
    return seen if seen and seen < (optional(c, "max_position_embeddings") or seen + 1) else None
