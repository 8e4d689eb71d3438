"""How evenly a layer's experts were used, and how much of the unevenness is chance.

The unit of replication is the request: tokens of one request resemble each other, so what chance alone would
show is taken from how requests differ, not from a count of tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from profiler.routing.nouns import Load

if TYPE_CHECKING:
    from profiler.routing.recording import Floats, Ints

ALIKE_TOKENS = 4000
UNEVEN_FROM = 0.95  # confidence with which loads must differ from even ones to be called uneven


def by_request(request: Ints, chosen: Ints, experts: int) -> Ints:
    """Tokens of each request that went to each expert, [requests, experts]; rows may be empty."""
    import numpy as np

    requests = int(request.max()) + 1
    cells = request[:, None] * experts + chosen
    return np.bincount(cells.ravel(), minlength=requests * experts).reshape(requests, experts)


def load(layer: int, counts: Ints, per_token: int, same_frac: float) -> Load:
    """The figures of one layer from ``by_request``."""
    import numpy as np

    total = counts.sum(axis=0)
    experts, tokens = len(total), int(total.sum()) // per_token
    share = total / total.sum()
    cv = float(total.std() / total.mean())
    used = share[total > 0]
    entropy = float(-(used * np.log(used)).sum())
    noise = cv_noise(counts)
    return Load(
        layer=layer,
        cv=cv,
        cv_noise=noise,
        cv_noise_tokens=math.sqrt((1 - per_token / experts) * experts / (per_token * tokens)),
        cv_excess=cv_excess(cv, noise, experts),
        max_over_mean=float(total.max() / total.mean()),
        gini=_gini(share),
        entropy_frac=entropy / math.log(experts) if experts > 1 else 1.0,
        effective_experts=math.exp(entropy),
        dead_frac=float((total == 0).mean()),
        same_frac=same_frac,
    )


def excess(counts: Ints) -> float | None:
    """``cv_excess`` of counts by request."""
    total = counts.sum(axis=0)
    return cv_excess(float(total.std() / total.mean()), cv_noise(counts), len(total))


def cv_noise(counts: Ints) -> float | None:
    """The CV that this many requests would show if all experts were alike: the error of each expert's load,
    by the spread of the requests about their common shares (a ratio estimate's, since requests differ in
    length).  For independent tokens it is sqrt((1 − k/E)·E/(k·T)).  None for a single request.
    """
    lengths = counts.sum(axis=1, keepdims=True)
    requests = int((lengths > 0).sum())
    if requests < 2:
        return None
    total = counts.sum(axis=0)
    off = counts - lengths * (total / total.sum())
    variance = (off**2).sum(axis=0) * requests / (requests - 1)
    return float(math.sqrt(variance.mean()) / total.mean())


def cv_excess(cv: float, noise: float | None, experts: int) -> float | None:
    """The CV less what chance put there; None where chance explains all of it: even loads would show a
    squared CV of noise²·χ²/(E − 1), with E − 1 degrees of freedom."""
    from scipy.special import chdtri

    if noise is None or experts < 2:
        return None
    reach = float(chdtri(experts - 1, 1 - UNEVEN_FROM)) / (experts - 1)
    return math.sqrt(cv**2 - noise**2) if cv**2 > noise**2 * reach else None


def _gini(share: Floats) -> float:
    """Σ_iΣ_j|f_i − f_j| / (2E²·mean): 0 for even loads, near 1 where one expert has all."""
    import numpy as np

    experts = len(share)
    ranks = np.arange(1, experts + 1)
    return float(2 * (ranks * np.sort(share)).sum() / (experts * share.sum()) - (experts + 1) / experts)


def same_set_frac(chosen: Ints) -> float:
    """The share of tokens that went to the most common set of experts."""
    import numpy as np

    random = np.random.default_rng(0).integers(1 << 62, size=int(chosen.max()) + 1)
    _, counts = np.unique(random[chosen].sum(axis=1), return_counts=True)  # a sum does not know the order
    return float(counts.max() / len(chosen))


def alike_frac(chosen: Ints, other: Ints) -> float:
    """Mean share of a token's experts that are the same in two layers, of some thousand of the tokens."""
    every = -(-len(chosen) // ALIKE_TOKENS)
    same = chosen[::every, :, None] == other[::every, None, :]
    return float(same.any(axis=2).mean())
