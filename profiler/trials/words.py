"""A leg of a trial → the words of a run: what the claim says of load, lengths and engine, as scenario
fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from profiler import prepare
from profiler.claims.ledger import SIDES, Leg
from profiler.claims.nouns import Claim
from profiler.errors import InputError, nearest
from profiler.prepare import Plan
from profiler.trials import lots

if TYPE_CHECKING:
    from profiler.trials.asking import Asked

# Requests whose lengths the claim leaves open have this scenario's.
BASE = "chat"
DTYPES = ("bfloat16", "float16", "float32")
ENGINES = ("vllm", "transformers", "simulated")
# What the claim has fixed before anything was measured.
FIXED = ("name", "about", "load", "search", "measure.residency", "engine.kind")
# Metrics that idle baselines go into.
OVER_IDLE = ("_idle_", "_net_", "_marginal_")
LENGTHS = ("workload.input_tokens", "workload.output_tokens")


def plan(asked: Asked, leg: Leg, pair: tuple[str, str], *more: str) -> Plan:
    """How this leg is held: one model, one engine start, every batch of the claim once.

    Raises InputError.
    """
    return prepare.prepare(
        prepare.Request(
            models=[pair[SIDES.index(leg.side)]],
            scenario=BASE,
            overrides=[*_of_claim(asked.claim, leg), *more, *_of_user(asked, leg)],
            engine=_engine(asked),
            weights=asked.weights,
            price=asked.price,
            out=Path(asked.out),
        )
    )


def says(asked: Asked, field: str) -> bool:
    """Whether the claim or the user gives this scenario field, of either side."""
    keys = [_split(word)[1].partition("=")[0].strip() for word in (*_planned(asked.claim), *asked.overrides)]
    return field in keys or (
        field == "engine.tensor_parallel" and asked.claim.conditions.gpu_count is not None
    )


def _engine(asked: Asked) -> str | None:
    claim, said = asked.claim, asked.claim.conditions.engine
    own = None if asked.engine == "auto" else asked.engine
    if said is not None and own not in (None, said):
        raise InputError(f"--engine {own}: claim {claim.id} is of {said}")
    if said is not None and said not in ENGINES:
        raise InputError(
            f"claim {claim.id} is of engine {said}, and a trial starts its engines itself: profile run --url "
            f"measures a server that runs already, then profile claims --claim {claim.id}"
        )
    if own is not None and own not in ENGINES:
        hint = nearest(own, ENGINES)
        raise InputError(f"--engine {own}: a trial starts its engines itself, each time afresh{hint}")
    return own or said


def _of_claim(claim: Claim, leg: Leg) -> Iterator[str]:
    """Idle baselines are held where the metric leaves idle power out; else a token's energy is all that was
    drawn."""
    yield f"name=trial-{claim.id}"
    yield f"about={_toml(claim.text)}"
    for name, tokens in zip(LENGTHS, (leg.input_tokens, leg.output_tokens), strict=True):
        if tokens is not None:
            yield f"{name}={tokens}"
    yield f"load.concurrency={list(lots.batches(claim, leg))}"
    yield from ("measure.repeats=1", "measure.residency=exclusive")
    yield "routing.record=off"
    if not any(word in claim.metric for word in OVER_IDLE):
        yield "telemetry.idle_s=0"
    conditions = claim.conditions
    if conditions.precision in DTYPES:
        yield f"engine.dtype={conditions.precision}"
    if conditions.gpu_count is not None:
        yield f"engine.tensor_parallel={conditions.gpu_count}"


def _of_user(asked: Asked, leg: Leg) -> Iterator[str]:
    """First what the claim's plan sets, then the user's own words, both of all sides or of this one."""
    for where, words in (("plan.set", _planned(asked.claim)), ("--set", list(asked.overrides))):
        for word in words:
            side, rest = _split(word)
            _check(rest, where, asked.claim)
            if side in (None, leg.side):
                yield rest


def _planned(claim: Claim) -> list[str]:
    return [f"{key}={_toml(value)}" for key, value in claim.plan.set.items()]


def _toml(value: Any) -> str:
    """As ``--set`` reads it."""
    return msgspec.json.encode(value).decode()


def _split(word: str) -> tuple[str | None, str]:
    """``subject.engine.args.x=1`` is of one side."""
    side, _, rest = word.strip().partition(".")
    return (side, rest) if side in SIDES else (None, word)


def _check(word: str, where: str, claim: Claim) -> None:
    key = word.partition("=")[0].strip()
    for name in (*FIXED, *(("engine.dtype",) if claim.conditions.precision else ())):
        if key == name or key.startswith(f"{name}."):
            raise InputError(
                f"{where} {word}: {key} is what claim {claim.id} itself says; another file may say otherwise"
            )
    if key in LENGTHS:
        raise InputError(f"{where} {word}: the lengths of claim {claim.id} are in its cells")
