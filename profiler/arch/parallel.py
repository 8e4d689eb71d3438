"""Over how many GPUs a model can be spread, and what stands in the way of other numbers.

Tensor parallelism cuts every layer into equal parts, so it must divide the heads of attention (or of a
recurrent block) and the widths of the feed-forward blocks; heads of keys and values are divided too, or
else repeated evenly.  Expert parallelism gives every GPU as many whole experts.  (vLLM's rules:
``model_executor/layers/linear.py``, ``fused_moe/layer.py``.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from profiler.arch.shape import LayerKind, Shape
from profiler.errors import InputError


class Sizes(Struct, frozen=True, kw_only=True):
    """The numbers of GPUs that are possible, and in words what limits them."""

    tensor: tuple[int, ...]
    expert: tuple[int, ...]
    reasons: tuple[str, ...]


def parallel_sizes(shape: Shape, most: int, *, block: int = 1) -> Sizes:
    """Of 1 to ``most`` GPUs.  ``block``: weights a quantised format keeps together, which no cut may part."""
    tensor = [size for size in range(1, most + 1) if tensor_obstacle(shape, size, block=block) is None]
    expert = [size for size in range(1, most + 1) if expert_obstacle(shape, size) is None]
    reasons = dict.fromkeys(what for kind in shape.layers for _, what in _divided(kind))
    experts = dict.fromkeys(f"{kind.feed.experts} experts" for kind in shape.layers if kind.feed.experts)
    return Sizes(tensor=tuple(tensor), expert=tuple(expert), reasons=(*reasons, *experts))


def tensor_obstacle(shape: Shape, size: int, *, block: int = 1) -> str | None:
    """What ``size`` GPUs cannot divide, as words after "its"; None where nothing is in the way."""
    for kind in shape.layers:
        for count, what in _divided(kind):
            if count % size:
                return what
        heads = kind.mixer.kv_heads
        if kind.mixer.cache_bytes and heads % size and size % heads:
            return f"{heads} key-value heads (a multiple would do too)"
        for width in _widths(kind):
            if width // size % block:
                return f"feed-forward width of {width} into whole blocks of {block} quantised weights"
    return None


def expert_obstacle(shape: Shape, size: int) -> str | None:
    """The same of ``size`` GPUs that share out the experts; a dense model has none to share."""
    counts = [kind.feed.experts for kind in shape.layers if kind.feed.experts]
    if size > 1 and not counts:
        return "experts: it has none"
    return next((f"{count} experts" for count in counts if count % size), None)


def refusal(asked: str, name: str, obstacle: str, possible: Iterable[int]) -> InputError:
    """``asked`` is what the user wrote, ``obstacle`` what one of the above says, ``possible`` the sizes that
    would do."""
    listed = ", ".join(str(size) for size in possible) or "none"
    return InputError(f"{asked} does not divide {name}'s {obstacle}; possible: {listed}")


def _divided(kind: LayerKind) -> Iterator[tuple[int, str]]:
    mixer = kind.mixer
    if mixer.params:
        yield mixer.heads, f"{mixer.heads} {'attention' if mixer.kind != 'linear' else 'recurrent'} heads"
        if mixer.kind == "linear":
            yield mixer.kv_heads, f"{mixer.kv_heads} recurrent key heads"
    for width in _widths(kind):
        yield width, f"feed-forward width of {width}"


def _widths(kind: LayerKind) -> tuple[int, ...]:
    feed = kind.feed
    return tuple(width for width in (feed.dense_width, feed.shared_width, feed.expert_width) if width)
