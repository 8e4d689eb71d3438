"""Expert parallelism: what placing the experts in order on several GPUs would have made each of them do.

The busiest rank sets a step's time.  A decode step is bound by the weights a rank reads, so by its distinct
experts; a prefill by the tokens it computes, so by its load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from profiler.routing.nouns import Ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiler.routing.recording import Flags, Ints, Recording

RANKS = (2, 4, 8, 16)
TOKENS = (8, 32, 64)
STEPS = 512  # drawn decode steps: the mean over them is good to a percent


class Steps(NamedTuple):
    """Steps made of recorded tokens: ``token`` is in step ``step``, of ``made``; ``tokens`` each holds, None
    for prefills."""

    tokens: int | None
    made: int
    step: Ints
    token: Ints


class RankSteps:
    """Collects, layer by layer, how unevenly steps fall on ranks."""

    def __init__(self, recorded: Recording) -> None:
        import numpy as np

        self._experts = recorded.experts
        self._steps = list(_made(recorded.request, np.asarray(recorded.is_output)))
        self._ranks = [ranks for ranks in RANKS if ranks <= recorded.experts]
        self._found: dict[tuple[int, int | None], list[list[float]]] = {}

    def add(self, chosen: Ints) -> None:
        """The next layer's experts of every recorded token."""
        for steps in self._steps:
            loads = _loads(steps, chosen, self._experts)
            for ranks in self._ranks:
                self._found.setdefault((ranks, steps.tokens), []).append(imbalance(loads, ranks))

    def figures(self) -> Iterator[Ranks]:
        """Median and 90th percentile over layers."""
        import numpy as np

        for (ranks, tokens), layers in sorted(self._found.items(), key=lambda item: item[0][0]):
            (load, distinct), (load_p90, distinct_p90) = np.quantile(layers, [0.5, 0.9], axis=0).tolist()
            yield Ranks(
                ranks=ranks,
                tokens=tokens,
                load_median=load,
                load_p90=load_p90,
                distinct_median=distinct,
                distinct_p90=distinct_p90,
            )


def _made(request: Ints, is_output: Flags) -> Iterator[Steps]:
    import numpy as np

    generated, prompt = np.flatnonzero(is_output), np.flatnonzero(~is_output)
    holders = len(np.unique(request[generated]))
    yield from (decode_steps(request, generated, tokens) for tokens in TOKENS if tokens <= holders)
    if len(prompt):
        owners, step = np.unique(request[prompt], return_inverse=True)
        yield Steps(None, len(owners), step, prompt)


def decode_steps(request: Ints, generated: Ints, tokens: int) -> Steps:
    """Steps of one generated token each of ``tokens`` different requests, drawn alike in every run.

    ``generated``: places of the generated tokens; ``request``: whose token is at each place, in order.
    """
    import numpy as np

    random = np.random.default_rng(0)
    holders, starts, counts = np.unique(request[generated], return_index=True, return_counts=True)
    drawn = np.array([random.permutation(len(holders))[:tokens] for _ in range(STEPS)])
    places = generated[starts[drawn] + random.integers(counts[drawn])]
    return Steps(tokens, STEPS, np.repeat(np.arange(STEPS), tokens), places.ravel())


def _loads(steps: Steps, chosen: Ints, experts: int) -> Ints:
    """How often each step went to each expert, [steps, experts]."""
    import numpy as np

    cells = (steps.step[:, None] * experts + chosen[steps.token]).ravel()
    return np.bincount(cells, minlength=steps.made * experts).reshape(steps.made, experts)


def starts_of(experts: int, ranks: int) -> list[int]:
    """The first expert of each rank: contiguous, the first ranks hold one more where they cannot be equal."""
    each, more = divmod(experts, ranks)
    return [rank * each + min(rank, more) for rank in range(ranks)]


def imbalance(loads: Ints, ranks: int) -> list[float]:
    """The busiest rank over the mean one, by load and by distinct experts, mean over steps."""
    import numpy as np

    starts = starts_of(loads.shape[1], ranks)
    found = []
    for each in (loads, (loads > 0).astype(np.int64)):
        sums = np.add.reduceat(each, starts, axis=1)
        found.append(float((sums.max(axis=1) / sums.mean(axis=1)).mean()))
    return found
