"""How many distinct experts of a layer a step touches, and routings made to order.

``experts`` are a layer's routed ones (E), ``per_token`` how many of them a token goes to (k), ``tokens`` how
many pass the layer in one step (B): a number, or a numpy array for which the answer is one too.  All forms
take tokens as independent; correlated ones touch fewer (``profiler.routing`` measures it).
Sources: docs/routing.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from profiler.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Experts = NDArray[np.int32]

Tokens = TypeVar("Tokens", float, "Floats")

STIRLING_FROM = 50.0  # of arguments this large the first terms of Stirling's series are exact to 1e-13
SHARES = 2**40  # probabilities are whole multiples of 1 / SHARES while experts are drawn
TOKENS_AN_ORDER = 64


# -------------------------------------------------------------------------------------- closed forms


def distinct_uniform(experts: int, per_token: int, tokens: Tokens) -> Tokens:
    """Every expert as likely as any other, a token's own k distinct: E·(1 − (1 − k/E)^B)."""
    _check(experts, per_token)
    found: Tokens = experts * (1 - (1 - per_token / experts) ** tokens)
    return found


def distinct_with_replacement(experts: int, per_token: int, tokens: Tokens) -> Tokens:
    """As ``distinct_uniform`` where a token may draw an expert twice, as vLLM's ``uniform_random`` routing
    does: E·(1 − (1 − 1/E)^(k·B))."""
    _check(experts, per_token)
    found: Tokens = experts * (1 - (1 - 1 / experts) ** (per_token * tokens))
    return found


def distinct_skewed(experts: int, per_token: int, tokens: Tokens, cv: float) -> Tokens:
    """Inclusion probabilities that are Beta distributed over the experts, mean μ = k/E, coefficient of
    variation ``cv``: E·(1 − Γ(b+B)·Γ(a+b) / (Γ(b)·Γ(a+b+B))) with ν = (1−μ)/(μ·cv²) − 1, a = μν, b = (1−μ)ν
    (the Beta-Binomial's chance of no success).

    Raises InputError for a ``cv`` outside 0 ≤ cv < sqrt((1−μ)/μ).
    """
    _check(experts, per_token, cv)
    mean, nu = per_token / experts, _nu(experts, per_token, cv)
    if math.isinf(nu):
        return distinct_uniform(experts, per_token, tokens)
    b, log_unused = (1 - mean) * nu, math.log1p(-mean)

    def distinct(count: float) -> float:
        return -experts * math.expm1(count * log_unused + _log_rising(b, count) - _log_rising(nu, count))

    return _each(distinct, tokens)


def distinct_of(marginals: Floats, tokens: float | Sequence[int] | Floats) -> Floats:
    """Σ_e (1 − (1 − p_e)^B) over the last axis of ``marginals``, the share of tokens that go to each expert.

    Of several numbers of tokens a last axis of the result.
    """
    import numpy as np

    counts = np.asarray(tokens, float)
    unused = (1 - np.asarray(marginals, float))[..., None] ** counts.reshape(-1)
    found = (1 - unused).sum(axis=-2)
    return cast("Floats", found.reshape(found.shape[:-1] + counts.shape))


def largest_cv(experts: int, per_token: int) -> float:
    """The bound of the experts' coefficient of variation: all tokens go to the same k, sqrt((1−μ)/μ)."""
    _check(experts, per_token)
    return math.sqrt(experts / per_token - 1)


def fit_cv(experts: int, per_token: int, tokens: Sequence[float], distinct: Sequence[float]) -> float:
    """The coefficient of variation at which ``distinct_skewed`` is nearest to the experts touched, by least
    squares of the relative errors; 0 where at least the uniform number was touched.

    Raises InputError where no step holds two tokens: of one token any routing touches k.
    """
    telling = [(b, d) for b, d in zip(tokens, distinct, strict=True) if b > 1]
    if not telling:
        raise InputError("a skew is fitted to the experts that two tokens or more touch, none were given")

    def misfit(cv: float) -> float:
        return sum((distinct_skewed(experts, per_token, float(b), cv) / d - 1) ** 2 for b, d in telling)

    # The number touched falls with the skew for every B, so the misfit has one minimum: golden section.
    low, high = 0.0, largest_cv(experts, per_token) * (1 - 1e-9)
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if misfit(left) <= misfit(right):
            high = right
        else:
            low = left
    found = (low + high) / 2
    return found if misfit(found) < misfit(0.0) else 0.0


def _check(experts: int, per_token: int, cv: float = 0.0) -> None:
    if not 1 <= per_token <= experts:
        raise InputError(f"{per_token} experts a token of {experts}: a token goes to at least 1, at most all")
    bound = math.sqrt(experts / per_token - 1)
    if cv and not 0 < cv < bound:
        raise InputError(
            f"a skew of CV {cv:g} is impossible with {per_token} of {experts} experts a token: "
            f"at least 0, below {bound:.4g} (every token to the same {per_token})"
        )


def _nu(experts: int, per_token: int, cv: float) -> float:
    """a + b of the Beta distribution; without skew it is infinite."""
    return (experts / per_token - 1) / cv / cv - 1 if cv else math.inf


def _log_rising(x: float, count: float) -> float:
    """ln(Γ(x + count) / (Γ(x)·x^count)).  Of a large ``x`` the difference of two logarithms of Γ would lose
    every digit, so Stirling's series is differenced term by term (Abramowitz & Stegun 6.1.41)."""
    if x < STIRLING_FROM:
        return math.lgamma(x + count) - math.lgamma(x) - count * math.log(x)
    end = x + count
    series = (1 / end - 1 / x) / 12 - (end**-3 - x**-3) / 360
    return (end - 0.5) * math.log1p(count / x) - count + series


def _each(function: Callable[[float], float], tokens: Tokens) -> Tokens:
    """``function`` of a number or of every element; a grid holds few different ones."""
    if isinstance(tokens, int | float):
        return function(tokens)
    import numpy as np

    values, places = np.unique(np.asarray(tokens, float), return_inverse=True)
    found = np.array([function(float(value)) for value in values])
    return cast("Tokens", found[places].reshape(np.shape(tokens)))


# ----------------------------------------------------------------------------------- made to order


def parse(text: str) -> Literal["model", "uniform"] | float:
    """A routing as a user writes it: ``model``, ``uniform``, or ``skew=CV``, of which the number.

    Raises InputError for anything else.
    """
    if text == "model":
        return "model"
    if text == "uniform":
        return "uniform"
    name, _, number = text.partition("=")
    try:
        cv = float(number)
    except ValueError:
        cv = math.nan
    if name != "skew" or not 0 <= cv < math.inf:
        raise InputError(f"routing {text!r}: model, uniform or skew=CV, as in skew=1.1")
    return cv


def marginals(experts: int, per_token: int, cv: float, seed: int = 0) -> Floats:
    """Probabilities that a token goes to each expert: Beta shaped, sum ``per_token``, none above 1, their
    coefficient of variation ``cv``; which expert gets which is drawn by ``seed``.

    Quantiles of the distribution, moved and stretched as logits until sum and deviation are exact.
    Raises InputError for an impossible ``cv``.
    """
    import numpy as np

    _check(experts, per_token, cv)
    mean = per_token / experts
    if not cv:
        return np.full(experts, mean)
    from scipy.special import betaincinv, logit

    nu = min(_nu(experts, per_token, cv), 1e12)  # beyond it the shape no longer changes
    places = (np.arange(experts) + 0.5) / experts
    edge = 1e-15
    scores = logit(np.clip(betaincinv(mean * nu, (1 - mean) * nu, places), edge, 1 - edge)) + places
    # 30 bits of the stretch leave the deviation exact to 1e-9.
    stretch = _root(lambda s: float(_with_sum(scores * s, per_token).std()) / mean - cv, 0.0, 64.0)
    exact = _with_sum(scores * stretch, per_token)
    return cast("Floats", np.random.default_rng((0, seed)).permutation(exact))


def _with_sum(scores: Floats, total: float) -> Floats:
    """Logistic of the scores, moved together so that it adds up to ``total``."""
    from scipy.special import expit

    reach = float(abs(scores).max()) + 50
    shift = _root(lambda s: float(expit(scores + s).sum()) - total, -reach, reach)
    return cast("Floats", expit(scores + shift))


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(rising, low, high, xtol=1e-12))


def choices(marginals: Floats, tokens: int, seed: int = 0) -> Experts:
    """k distinct experts for each of ``tokens`` independent tokens, [tokens, k], each expert with exactly its
    probability of ``marginals`` (to 1e-9), whose sum is k.

    Systematic sampling (Madow, Ann. Math. Statist. 20, 1949): the probabilities laid end to end, and a comb
    of unit steps put down at random.  In one fixed order neighbours would never be chosen together, so it is
    drawn anew every ``TOKENS_AN_ORDER`` tokens.
    """
    import numpy as np

    shares = _shares(marginals)
    per_token = int(shares.sum()) // SHARES
    random = np.random.default_rng((1, seed))  # not the numbers that placed the marginals
    teeth = random.integers(SHARES, size=(tokens, 1)) + SHARES * np.arange(per_token)
    found = np.empty((tokens, per_token), np.int32)
    for start in range(0, tokens, TOKENS_AN_ORDER):
        block = slice(start, start + TOKENS_AN_ORDER)
        order = random.permutation(len(shares))
        found[block] = order[np.cumsum(shares[order]).searchsorted(teeth[block], side="right")]
    return found


def _shares(marginals: Floats) -> NDArray[np.int64]:
    """The probabilities in whole shares that add up to a whole number, lest rounding choose one twice."""
    import numpy as np

    exact = np.asarray(marginals, float) * SHARES
    total = round(float(exact.sum()) / SHARES)
    if total < 1 or exact.min() < 0 or exact.max() > SHARES or abs(exact.sum() / SHARES - total) > 1e-9:
        raise ValueError("marginals are between 0 and 1 and add up to the number of experts a token goes to")
    shares: NDArray[np.int64] = np.rint(exact).astype(np.int64)
    # What rounding leaves is some hundred shares at most; the most middling one has room for them.
    shares[abs(exact - SHARES / 2).argmin()] += total * SHARES - shares.sum()
    return shares
