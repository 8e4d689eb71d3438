"""Other ways to count the experts a step touches, in place of ours and with everything else equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from profiler.arch.shape import Feed, Shape
from profiler.experts import distinct_uniform
from profiler.predict import demand
from profiler.predict.nouns import Point

Rule = Callable[[Feed, Any, float], Any]
OURS = "skewed, CV of trained routers"
ACTIVE = "active parameters only"
RULES: dict[str, Rule | None] = {
    OURS: None,
    "uniform": lambda feed, tokens, _cv: distinct_uniform(feed.experts, feed.per_token, tokens),
    "k only (GenZ)": lambda feed, tokens, _cv: feed.per_token + 0.0 * tokens,
    "min(B·k, E) (vLLM)": lambda feed, tokens, _cv: np.minimum(feed.per_token * tokens, feed.experts),
    "all experts (BLIS)": lambda feed, tokens, _cv: feed.experts + 0.0 * tokens,
    ACTIVE: None,
}


@contextmanager
def in_force(name: str) -> Iterator[None]:
    """The rule, wherever experts are counted."""
    rule = RULES[name]
    if rule is None:
        yield
    else:
        with mock.patch.object(demand, "touched", rule):
            yield


def seen_by(name: str, point: Point) -> Point:
    """The point as the rule's user describes it: by active parameters a MoE is a dense model of that size."""
    if name != ACTIVE or not point.what.routes:
        return point
    what = msgspec.structs.replace(point.what, shape=dense(point.what.shape), expert=1)
    return msgspec.structs.replace(point, what=what)


def dense(shape: Shape) -> Shape:
    """With the experts of one token for a feed-forward part."""

    def plain(feed: Feed) -> Feed:
        if not feed.experts:
            return feed
        width = feed.per_token * feed.expert_width + feed.shared_width
        return Feed(dense_params=feed.per_token * feed.expert_params + feed.shared_params, dense_width=width)

    kinds = tuple(msgspec.structs.replace(kind, feed=plain(kind.feed)) for kind in shape.layers)
    return msgspec.structs.replace(shape, layers=kinds)
