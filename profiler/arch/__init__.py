"""What a model's config implies: parameters, active parameters, cache bytes.  Closed form, no torch.

A decoder is an embedding, a stack of layers, a final norm and a head.  Each layer is an attention block
(or a recurrent one) and a feed-forward block (dense, or a router over experts).  ``shape`` is the one
account of them; ``model_facts`` adds it up, ``work`` says what a step of it costs.

Counts are those of the modules in transformers (5.x, ``modeling_<family>.py``), which the tests build on
the meta device and compare exactly.  Buffers (DeepSeek's ``e_score_correction_bias``), extra prediction
layers (MTP) and vision towers are not counted.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from profiler.arch.families import FAMILIES, usual
from profiler.arch.family import Family
from profiler.arch.keys import (
    Config,
    UnsupportedArchitectureError,
    architecture,
    flag,
    optional,
    short,
    text_config,
    whole,
    wrong,
)
from profiler.arch.layers import layers as _layers
from profiler.arch.layers import left_out
from profiler.arch.parallel import Sizes, expert_obstacle, parallel_sizes, refusal, tensor_obstacle
from profiler.arch.shape import Feed, LayerKind, Mixer, Shape
from profiler.errors import InputError, nearest
from profiler.schema import ModelFacts

__all__ = [
    "Feed",
    "LayerKind",
    "Mixer",
    "Shape",
    "Sizes",
    "UnsupportedArchitectureError",
    "expert_obstacle",
    "layers",
    "model_facts",
    "parallel_sizes",
    "refusal",
    "shape",
    "tensor_obstacle",
    "text_config",
]


def shape(config: Config) -> Shape:
    """The language model that ``config`` (a Hugging Face config) describes.

    An architecture that is not known is counted as a usual decoder, and ``missing`` says so.  Raises
    InputError, naming the key that is missing or of the wrong kind, and what it should be;
    UnsupportedArchitectureError where that is so of an architecture that is not known either.
    """
    try:
        return _remembered(msgspec.json.encode(config))
    except RecursionError:
        raise InputError("its lists and objects are too deep for the config of a model") from None


@lru_cache(maxsize=256)
def _remembered(encoded: bytes) -> Shape:
    """A plan asks for the shape of the same model over and over."""
    config = msgspec.json.decode(encoded, type=dict[str, Any])
    text, family = text_config(config), _family(config)
    if family is not None:
        return _shape(text, family, left_out(text, family))
    try:
        return _shape(text, usual(text), (_guessed(config), *left_out(text, usual(text))))
    except InputError as error:
        raise UnsupportedArchitectureError(
            f"{_unknown(config)}, nor is it a usual decoder: {error}"
        ) from None


def _shape(text: Config, family: Family, missing: tuple[str, ...]) -> Shape:
    hidden, vocab = whole(text, "hidden_size"), whole(text, "vocab_size")
    alike = Counter(_layers(text, family))
    kinds = tuple(replace(kind, count=count) for kind, count in alike.items())
    return Shape(
        layers=kinds,
        hidden=hidden,
        vocab=vocab,
        input_embedding_params=vocab * hidden,
        head_params=vocab * hidden + (vocab if flag(text, "lm_head_bias") else 0),
        tied=flag(text, "tie_word_embeddings", family.tied),
        final_norm_params=hidden * (2 if family.norm_bias else 1),
        heads=whole(text, "num_attention_heads"),
        kv_heads=min((k.mixer.kv_heads for k in kinds if k.mixer.cache_bytes), default=1),
        max_context_tokens=optional(text, "max_position_embeddings"),
        missing=missing,
    )


def layers(config: Config) -> tuple[LayerKind, ...]:
    """The account of every decoder layer, first to last."""
    text, family = text_config(config), _family(config)
    return _layers(text, family or usual(text))


def model_facts(config: Config, source: str) -> ModelFacts:
    """The sums of :func:`shape`, which says what it raises."""
    found = shape(config)
    kinds = found.layers
    window = next((kind.mixer.window_tokens for kind in kinds if kind.mixer.window_tokens), None)
    moe = next((kind.feed for kind in kinds if kind.feed.experts), None)
    return ModelFacts(
        architecture=architecture(config),
        kind="moe" if moe else "dense",
        total_params=found.total_params,
        active_params=found.active_params,
        routed_expert_params=found.routed_params,
        kv_bytes_per_token=sum(k.count * k.mixer.cache_bytes for k in kinds if k.mixer.kind != "window"),
        kv_windowed_bytes_per_token=sum(
            k.count * k.mixer.cache_bytes for k in kinds if k.mixer.kind == "window"
        ),
        attention_window_tokens=window,
        kv_state_bytes_per_sequence=sum(k.count * k.mixer.state_bytes for k in kinds),
        vocab_size=found.vocab,
        layers=sum(kind.count for kind in kinds),
        experts=moe.experts if moe else None,
        experts_per_token=moe.per_token if moe else None,
        max_context_tokens=found.max_context_tokens,
        attention_heads=found.heads,
        kv_heads=found.kv_heads,
        shared_expert_params=found.shared_params,
        embedding_params=found.embedding_params,
        missing=found.missing,
        source=source,
    )


def _family(config: Config) -> Family | None:
    """The family of the model or, where a wrapper's name is not known, of the language model inside it."""
    names = [config.get("model_type"), text_config(config).get("model_type")]
    for name in names:
        if not isinstance(name, str):
            raise wrong(config, "model_type", "a string")
        family = FAMILIES.get(name) or FAMILIES.get(name.removesuffix("_text"))
        if family is not None:
            return family
    return None


def _unknown(config: Config) -> str:
    kind = str(config["model_type"])
    close = nearest(kind, FAMILIES)
    hint = close if "mean" in close else ""
    return f"architecture {architecture(config)} (model_type {short(kind)}) is not known here{hint}"


def _guessed(config: Config) -> str:
    return f"what sets its layers apart from a usual decoder's: {_unknown(config)}"
