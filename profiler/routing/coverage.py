"""Distinct experts of a step, from recorded tokens.

A decode step holds a token each of B requests.  Its expected number of distinct experts is the mean over all
steps that can be made of the recording: any B of its requests, any generated token of each.  That mean needs
no drawing: a step leaves an expert out with the product of its requests' shares of tokens elsewhere, and the
mean of such products over all B of n requests is an elementary symmetric mean, found by recursion (a
U-statistic: what it estimates does not depend on how many requests were recorded).

Its interval is over requests, by the first term of its Hoeffding decomposition: B/sqrt(n) times the standard
deviation over requests of the mean step that holds the request (Hoeffding, Ann. Math. Statist. 19, 1948).
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from profiler import experts, stats
from profiler.routing import loads
from profiler.routing.nouns import Coverage
from profiler.schema import Estimate

if TYPE_CHECKING:
    from profiler.routing.recording import Floats, Ints, Recording

DECODE_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PREFILL_TOKENS = (1, 4, 16, 32, 64, 128, 256, 512, 1024)


class _Steps:
    """Steps of several sizes, collected layer by layer."""

    def __init__(self, recorded: Recording, places: Ints) -> None:
        self.experts, self.per_token = recorded.experts, recorded.per_token
        self.places, self.request = places, recorded.request[places]
        self.sizes: tuple[int, ...] = ()
        self.by_layer: list[list[float]] = []
        self._independent: list[Floats] = []

    def _keep(self, distinct: list[float], counts: Ints) -> None:
        """A layer's distinct experts by size, and its experts' tokens."""
        share = counts * (self.per_token / counts.sum())
        self.by_layer.append(distinct)
        self._independent.append(experts.distinct_of(share, self.sizes))

    def measured(self) -> list[Estimate]:
        """Distinct experts, mean over layers, for every size."""
        raise NotImplementedError

    def repeats(self, _tokens: int) -> bool:
        """Whether tokens of one request share a step of others'."""
        return False

    def coverages(self, cv: float | None) -> tuple[Coverage, ...]:
        """Every size beside the closed forms, the skewed one at ``cv``."""
        count, k = self.experts, self.per_token
        return tuple(
            Coverage(
                tokens=tokens,
                measured=measured,
                lowest=min(distinct),
                highest=max(distinct),
                uniform=experts.distinct_uniform(count, k, float(tokens)),
                skewed=None if cv is None else experts.distinct_skewed(count, k, float(tokens), cv),
                by_marginals=fmean(independent),
                repeats=self.repeats(tokens),
            )
            for tokens, measured, distinct, independent in zip(
                self.sizes,
                self.measured(),
                zip(*self.by_layer, strict=True),
                zip(*self._independent, strict=True),
                strict=True,
            )
        )


class Decode(_Steps):
    """Decode steps.  One of more tokens than there are requests takes several different tokens of each, as
    evenly as can be."""

    def __init__(self, recorded: Recording) -> None:
        import numpy as np

        super().__init__(recorded, np.flatnonzero(recorded.is_output))
        held = np.bincount(self.request, minlength=recorded.requests)
        self._holders = np.flatnonzero(held)
        self._held = held[self._holders]
        self.requests = len(self._holders)
        most = self.requests * int(self._held.min()) if self.requests else 0
        self.sizes = tuple(tokens for tokens in DECODE_TOKENS if tokens <= most)
        self._given = np.zeros((len(self.sizes), self.requests))
        self.excesses: list[float] = []

    def add(self, chosen: Ints) -> None:
        """The next layer's experts of every recorded token."""
        if not self.sizes:
            return
        counts = loads.by_request(self.request, chosen[self.places], self.experts)[self._holders]
        if (excess := loads.excess(counts)) is not None:
            self.excesses.append(excess)
        self._keep(self._distinct(counts), counts.sum(axis=0))

    def _distinct(self, counts: Ints) -> list[float]:
        import numpy as np

        once = misses(counts, self._held, 1)
        most = max(tokens for tokens in self.sizes if not self.repeats(tokens))
        means = symmetric_means(np.ones_like(once), once, most)
        found = []
        for place, tokens in enumerate(self.sizes):
            if self.repeats(tokens):
                each, rest = divmod(tokens, self.requests)
                fewer, more = misses(counts, self._held, each), misses(counts, self._held, each + 1)
                left_out = symmetric_means(fewer, more, rest)[rest]
            else:
                left_out = means[tokens]
                self._given[place] += self.experts - once @ means[tokens - 1]
            found.append(self.experts - float(left_out.sum()))
        return found

    def repeats(self, tokens: int) -> bool:
        return tokens > self.requests

    def fitted_cv(self) -> float | None:
        """The skew whose closed form is nearest to the measured steps; None where none is measured."""
        means = zip(self.sizes, self.measured(), strict=True)
        told = [(tokens, each.value) for tokens, each in means if tokens > 1 and not self.repeats(tokens)]
        return experts.fit_cv(self.experts, self.per_token, *zip(*told, strict=True)) if told else None

    def measured(self) -> list[Estimate]:
        """With an interval over requests, as far as these do not repeat."""
        return [
            self._estimate(tokens, fmean(distinct), of_request / len(self.by_layer))
            for tokens, distinct, of_request in zip(
                self.sizes, zip(*self.by_layer, strict=True), self._given, strict=True
            )
        ]

    def _estimate(self, tokens: int, value: float, given: Floats) -> Estimate:
        n = self.requests
        if n < 2 or self.repeats(tokens):
            return Estimate(value, n=n, over="requests")
        half = stats.t_quantile(n - 1) * tokens * float(given.std(ddof=1)) / math.sqrt(n)
        low, high = max(value - half, self.per_token), min(value + half, self.experts)
        return Estimate(value, min(low, value), max(high, value), n, "requests")


class Prefill(_Steps):
    """Prompts of so many tokens: the first ones of the recorded prompts, whose routing no later token can
    change."""

    def __init__(self, recorded: Recording) -> None:
        import numpy as np

        super().__init__(recorded, np.flatnonzero(~recorded.is_output))
        lengths = np.bincount(self.request, minlength=recorded.requests)
        self._position = np.arange(len(self.request)) - (np.cumsum(lengths) - lengths)[self.request]
        self.sizes = tuple(tokens for tokens in PREFILL_TOKENS if tokens <= lengths.max())
        self._long_enough = np.array(self.sizes)[:, None] <= lengths
        self._seen = np.zeros((len(self.sizes), recorded.requests))

    def add(self, chosen: Ints) -> None:
        """The next layer's experts of every recorded token."""
        import numpy as np

        if not self.sizes:
            return
        chosen = chosen[self.places]
        first = np.full((self._seen.shape[1], self.experts), len(self.places))
        cells = self.request[:, None] * self.experts + chosen
        np.minimum.at(first.reshape(-1), cells.ravel(), np.repeat(self._position, self.per_token))
        seen = np.array([(first < tokens).sum(axis=1) for tokens in self.sizes], float)
        self._seen += seen
        distinct = [float(row[use].mean()) for row, use in zip(seen, self._long_enough, strict=True)]
        self._keep(distinct, np.bincount(chosen.ravel(), minlength=self.experts))

    def measured(self) -> list[Estimate]:
        """With an interval over the requests that are long enough."""
        means = self._seen / max(1, len(self.by_layer))
        return [
            stats.of_sample(row[use], "requests") for row, use in zip(means, self._long_enough, strict=True)
        ]


def misses(counts: Ints, held: Ints, drawn: int) -> Floats:
    """The chance that ``drawn`` different tokens of a request all miss an expert (hypergeometric), where
    ``counts`` of its ``held`` tokens went to it; [requests, experts]."""
    import numpy as np

    chance = np.ones(counts.shape)
    for taken in range(drawn):
        left = np.maximum(held - taken, 1)[:, None]
        chance *= np.clip((left - counts) / left, 0, 1)
    return chance


def symmetric_means(out: Floats, taken: Floats, most: int) -> Floats:
    """Rows 0 … ``most``: for every expert the mean, over all ways to take that many of the requests, of the
    product of ``taken`` of those and ``out`` of the others.

    All terms are between 0 and 1, so nothing is lost.
    """
    import numpy as np

    sizes = np.arange(most + 1)[:, None]
    means = np.zeros((most + 1, out.shape[1]))
    means[0] = 1
    for number, (without, within) in enumerate(zip(out, taken, strict=True), start=1):
        before = means[:-1] * within
        means *= without * np.maximum(1 - sizes / number, 0)
        means[1:] += before * (sizes[1:] / number)
    return means
