"""A replica under a steady load: how its steps mix prompts with decoding, and what a request sees of it.

Continuous batching.  Each of B places starts a new request every n output tokens, so that a step meets
B/n prompts on average: with probability (1 − 1/n)^B none at all, else more, at most ``step_tokens`` tokens.
A request's own time between tokens is that of the steps that the B − 1 others mix.
"""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct

from profiler.arch.work import Batch
from profiler.errors import InputError
from profiler.predict.demand import Demand, demand
from profiler.predict.nouns import Deployment, Load
from profiler.predict.pace import Coefficients, Pace, pace, power_w
from profiler.roofline import bytes_per_s, flops_per_s

# Prompts are unequal: half of the steps meet fewer prompt tokens than this share of what the median number of
# arrivals would bring at the mean length.
MEDIAN_PROMPT_FRAC = 0.5


class Mix(Struct, frozen=True, kw_only=True):
    """The kinds of step that a load is made of, by name: ``plain`` decodes only, ``mixed`` holds prompts too
    (a share ``mixed_frac`` of all), as ``seen`` does by a request that is decoding (``seen_frac``);
    ``median``; and ``own``, which holds a request's own prompt, or one of its ``chunks``.

    ``active`` sequences are worked on at once.  What a step has to do is worked out when first asked for.
    """

    what: Deployment
    cv: float
    load: Load
    active: Any
    mixed_frac: Any
    seen_frac: Any
    chunks: Any
    batches: dict[str, Batch]
    known: dict[str, Demand]

    def demand(self, name: str) -> Demand:
        if name not in self.known:
            self.known[name] = demand(self.what, self.batches[name], self.cv)
        return self.known[name]

    def pace(self, name: str, c: Coefficients) -> Pace:
        return pace(self.what, self.demand(name), c)


class Steady(Struct, frozen=True, kw_only=True):
    """Figures of one replica: all its GPUs for power and tokens."""

    tpot_s: Any
    itl_s_p50: Any
    ttft_s: Any
    output_tokens_per_s: Any
    power_w_mean: Any
    energy_j_per_output_token: Any
    plain: Pace


def mix(what: Deployment, load: Load, cv: float) -> Mix:
    """Raises InputError for fewer than one sequence or token."""
    import numpy as np

    concurrency, prompt, answer = np.broadcast_arrays(
        *(np.asarray(each, float) for each in (load.concurrency, load.input_tokens, load.output_tokens))
    )
    for name, values in (("concurrency", concurrency), ("input tokens", prompt), ("output tokens", answer)):
        if not np.all(values >= 1):
            raise InputError(f"{name} of {np.nanmin(values):g}: nothing can be predicted below 1")
    # A step of at most step_tokens: the prompts that answers make room for must fit beside the decoding.
    active = np.minimum(concurrency, np.maximum(1.0, what.step_tokens / (1 + prompt / answer)))
    context = prompt + (answer - 1) / 2 * (1 + load.output_cv**2)

    def step(places: Any, prompts: Any) -> Batch:
        return Batch(
            prefill_sequences=prompts,
            prefill_tokens=prompt,
            decode_sequences=np.maximum(0.0, places - prompts),
            decode_context=context,
        )

    mixed_frac, prompts = _prompts(active, prompt, answer, what.step_tokens)
    others = np.maximum(active - 1, 0.0)
    seen_frac, seen = _prompts(others, prompt, answer, what.step_tokens)
    chunks = np.maximum(1.0, prompt / what.step_tokens)
    arriving = np.maximum(0.0, active / answer - math.log(2)) * MEDIAN_PROMPT_FRAC
    return Mix(
        what=what,
        cv=cv,
        load=load,
        active=active,
        mixed_frac=mixed_frac,
        seen_frac=seen_frac,
        chunks=chunks,
        batches={
            "plain": step(active, 0.0 * active),
            "mixed": step(active, prompts),
            "seen": step(active, seen),
            "median": step(active, np.minimum(arriving, seen)),
            "own": step(np.maximum(active, 1 / chunks), 1 / chunks + others / answer),
        },
        known={},
    )


def _prompts(places: Any, prompt: Any, answer: Any, step_tokens: int) -> tuple[Any, Any]:
    """Chance that one of ``places`` starts a prompt in a step, and how many prompts such a step holds."""
    import numpy as np

    mean = places / answer
    some = np.maximum(1 - (1 - 1 / answer) ** places, mean * prompt / step_tokens)
    some = np.clip(some, 1e-12, 1.0)
    return np.where(places > 0, some, 0.0), mean / some


def between_s(steps: Mix, c: Coefficients) -> Any:
    """Mean time between a request's tokens."""
    plain, seen = steps.pace("plain", c).total_s, steps.pace("seen", c).total_s
    return (1 - steps.seen_frac) * plain + steps.seen_frac * seen


def steady(steps: Mix, c: Coefficients) -> Steady:
    """The figures at these coefficients; power and energy are None without a TDP."""
    import numpy as np

    load, answer = steps.load, np.asarray(steps.load.output_tokens, float)
    plain, mixed, own = (steps.pace(name, c) for name in ("plain", "mixed", "own"))
    tpot = between_s(steps, c)
    mean = (1 - steps.mixed_frac) * plain.total_s + steps.mixed_frac * mixed.total_s
    # A request that comes when an answer has reached its client finds a step under way; alone, it finds none.
    waits = np.where(steps.active > 1, 0.5, 0.0) * tpot
    served = waits + steps.chunks * own.total_s + c.request_s
    cycle = answer * mean if load.backlog else np.maximum(answer * mean, served + (answer - 1) * tpot)
    tokens_per_s = steps.active * answer / cycle
    # Those the steps have no room for wait in line (Little): all B are somewhere.
    queue = (np.asarray(load.concurrency) - steps.active) * answer / tokens_per_s
    busy = np.minimum(1.0, answer * mean / cycle)
    power = _power(steps, mean, busy, c)
    return Steady(
        tpot_s=tpot,
        itl_s_p50=np.minimum(steps.pace("median", c).total_s, np.maximum(tpot, plain.total_s)),
        ttft_s=served + queue,
        output_tokens_per_s=tokens_per_s,
        power_w_mean=power,
        energy_j_per_output_token=None if power is None else power / tokens_per_s,
        plain=plain,
    )


def _power(steps: Mix, mean_s: Any, busy: Any, c: Coefficients) -> Any:
    """Mean over the steps, of all GPUs; between steps they idle."""
    what, share = steps.what, steps.mixed_frac
    plain, mixed = steps.demand("plain"), steps.demand("mixed")
    moved = (1 - share) * _moved(plain, c) + share * _moved(mixed, c)
    flops = (1 - share) * plain.flops + share * mixed.flops
    bandwidth = moved / (mean_s * bytes_per_s(what.gpu)) * busy
    rate = flops / (mean_s * flops_per_s(what.gpu, what.widths.compute)) * busy
    each = power_w(what, bandwidth, rate, c)
    return None if each is None else each * what.split.gpus


def _moved(work: Demand, c: Coefficients) -> Any:
    return work.moved_bytes + work.logits * c.logit_bytes
