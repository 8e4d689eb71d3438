"""The words of ``profile claims run`` → an Outline: everything is resolved, checked and priced before
anything is started or written."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from profiler import host_facts, prices, spending, store
from profiler.claims import law, ledger, metrics
from profiler.claims.ledger import Leg, Takes, Trial
from profiler.claims.nouns import Claim
from profiler.errors import InputError
from profiler.prepare import Plan
from profiler.spending import Budget
from profiler.stats import planning, sequential
from profiler.trials import lots, pace, who, words


class Asked(Struct, frozen=True, kw_only=True):
    """What a user asked for, word for word; ``models``: subject and baseline, where the claim leaves them
    open.  ``seed`` None: the open trial's, or one drawn now."""

    claim: Claim
    models: Sequence[str] = ()
    engine: str | None = None
    weights: str = "auto"
    overrides: Sequence[str] = ()
    price: str | None = None
    budget: str | None = None
    out: Path = Path("results")
    seed: int | None = None


class Outline(Struct, frozen=True, kw_only=True):
    """A trial that can begin, go on, or has ended; ``plans`` is how each leg is held.  ``notes``: what to
    know before it starts."""

    trial: Trial
    results: Path
    plans: dict[Leg, Plan]
    is_new: bool
    notes: tuple[str, ...] = ()

    @property
    def usd_per_s(self) -> float | None:
        return None if self.trial.usd_per_hour is None else self.trial.usd_per_hour / 3600


def outline(asked: Asked) -> Outline:
    """Nothing is started or written.  Raises InputError for a claim that no trial can test, a machine or
    models that it is not about, and a budget that pays for too little."""
    _check_claim(asked.claim)
    who.check_machine(asked.claim)
    pair = who.pair(asked.claim, asked.models)
    plans = _plans(asked, pair)
    who.check(asked.claim, plans)
    usd_per_s = _usd_per_s(plans)
    if "usd" in asked.claim.metric and usd_per_s is None:
        raise InputError(f"{asked.claim.metric} needs a price of an hour: --price USD or a price sheet")
    budget = spending.read(asked.budget, usd_per_s)
    trial = _new(asked, pair, plans, usd_per_s)
    held = ledger.read_all(asked.out)
    earlier = [each for each in held if each.digest == trial.digest]
    known = _same(earlier, trial, asked.seed)
    notes = (*dict.fromkeys(note for plan in plans.values() for note in plan.notes), *_edited(held, trial))
    if known is not None:
        _check_machine(known, trial)
        _check_kept(known, asked.out)
        budget = budget or spending.unasked(known.spent_s, pace.left_s(known, known.most - known.starts))
        known = msgspec.structs.replace(known, budget=budget, usd_per_hour=trial.usd_per_hour)
        return Outline(trial=known, results=asked.out, plans=plans, is_new=False, notes=notes)
    trial = _within(trial, budget or Budget(), asked.out, plans, usd_per_s)
    trial = msgspec.structs.replace(trial, budget=budget or spending.unasked(0.0, trial.takes.seconds))
    before = tuple(each.id for each in earlier if _setting(each) == _setting(trial))
    trial = msgspec.structs.replace(trial, before=before)
    return Outline(trial=trial, results=asked.out, plans=plans, is_new=True, notes=notes)


def _check_claim(claim: Claim) -> None:
    if claim.untestable is not None:
        raise InputError(f"claim {claim.id} cannot be tried: {claim.untestable}")
    if claim.plan.starts < law.FEWEST_STARTS:
        raise InputError(
            f"claim {claim.id}: plan.starts = {claim.plan.starts}: {law.FEWEST_STARTS} a side are the least "
            "that a verdict rests on"
        )
    if metrics.api_priced(claim):
        is_both = claim.subject.api is not None and claim.baseline.api is not None
        first = "" if is_both else "profile run the other side with a price, then "
        raise InputError(
            f"claim {claim.id} is of a price list, which needs no trial: {first}profile claims --claim "
            f"{claim.id}"
        )
    kind = metrics.of(claim.metric).kind
    if kind not in ("runs", "answers"):
        raise InputError(
            f"claim {claim.id}: {claim.metric} takes no measurement: profile claims --claim {claim.id}"
        )


# ------------------------------------------------------------------------------------------- the plans


def _plans(asked: Asked, pair: tuple[str, str]) -> dict[Leg, Plan]:
    """How each leg is held; all on the same number of GPUs, that of the model which needs most."""
    legs = [leg for both in lots.pairs(asked.claim) for leg in both]
    plans = {leg: words.plan(asked, leg, pair) for leg in legs}
    sizes = {plan.settings[0].tensor_parallel or 1 for plan in plans.values()}
    if len(sizes) > 1 and not words.says(asked, "engine.tensor_parallel"):
        size = max(sizes)
        plans = {leg: words.plan(asked, leg, pair, f"engine.tensor_parallel={size}") for leg in legs}
    return plans


def _usd_per_s(plans: dict[Leg, Plan]) -> float | None:
    """Of the dearest leg; None without a price."""
    found = [prices.usd_per_s(plan.price, plan.settings[0].tensor_parallel or 1) for plan in plans.values()]
    return max((each for each in found if each is not None), default=None)


# ------------------------------------------------------------------------------------------- the trial


def _new(asked: Asked, pair: tuple[str, str], plans: dict[Leg, Plan], usd_per_s: float | None) -> Trial:
    claim, first = asked.claim, next(iter(plans.values()))
    seed = int.from_bytes(os.urandom(4)) if asked.seed is None else asked.seed
    digest = ledger.digest(claim)
    own = hashlib.sha256(f"{digest} {seed} {os.urandom(4).hex()}".encode()).hexdigest()
    return Trial(
        id=f"{claim.id}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{own[:8]}",
        claim=claim,
        digest=digest,
        subject=pair[0],
        baseline=pair[1],
        engine=first.settings[0].kind,
        overrides=tuple(asked.overrides),
        weights=asked.weights,
        seed=seed,
        looks_at=lots.looks_at(claim.plan.starts, claim.plan.looks),
        takes=Takes(starts=0, seconds=0.0),
        machine=host_facts.facts(first.host),
        usd_per_hour=None if usd_per_s is None else usd_per_s * 3600,
    )


def _setting(trial: Trial) -> tuple[object, ...]:
    """What sets trials of one claim apart beside their seed."""
    return trial.subject, trial.baseline, trial.engine, trial.overrides, trial.weights


def _edited(held: Sequence[Trial], trial: Trial) -> list[str]:
    """What there was of the claim when it said something else: a claim that is written after a look at its
    evidence is not the one that was on trial."""
    others = [each.id for each in held if each.claim.id == trial.claim.id and each.digest != trial.digest]
    if not others:
        return []
    return [
        f"claim {trial.claim.id} said something else in {', '.join(others)}: runs of those do not count here"
    ]


def _same(earlier: Sequence[Trial], trial: Trial, seed: int | None) -> Trial | None:
    """The trial that these words mean: an open one, else the last that has ended, unless a seed of its own
    asks for another."""
    alike = [
        each for each in earlier if _setting(each) == _setting(trial) and (seed is None or each.seed == seed)
    ]
    return max(alike, key=lambda each: (each.status == "open", each.utc), default=None)


def _check_machine(known: Trial, now: Trial) -> None:
    unlike = [
        f"{what} {known.machine.get(what)} ≠ {value}"
        for what, value in now.machine.items()
        if known.machine.get(what) != value
    ]
    if unlike and known.status == "open":
        raise InputError(
            f"trial {known.id} was begun on another machine or software: {'; '.join(unlike)}; go on with it "
            "there, or begin another with --seed"
        )


def _check_kept(known: Trial, out: Path) -> None:
    """Raises InputError where runs that the trial counts on are gone: asked before further ones are held."""
    gone = [run for run in known.runs() if not (out / run / store.MANIFEST).is_file()]
    if gone:
        raise InputError(
            f"trial {known.id} held {len(known.runs())} runs, and {len(gone)} of them are not in {out} "
            f"({gone[0]}{', …' if len(gone) > 1 else ''}); bring them back, or begin another trial with "
            "--seed"
        )


def _within(
    trial: Trial, budget: Budget, out: Path, plans: dict[Leg, Plan], usd_per_s: float | None
) -> Trial:
    """The trial with as many starts as its budget pays for, and what they take."""
    plan = trial.claim.plan
    each = pace.expected(plans, 1, usd_per_s, out)
    most = plan.starts
    if budget.seconds is not None:
        most = min(most, math.floor(budget.seconds / each.seconds))
    if budget.usd is not None and each.usd is not None:
        most = min(most, math.floor(budget.usd / each.usd))
    if most < law.FEWEST_STARTS:
        raise InputError(
            f"--budget: {law.FEWEST_STARTS} engine starts a side are the least that tell anything, and take "
            f"about {_in_words(each, law.FEWEST_STARTS)} ({'; '.join(each.grounds)})"
        )
    looks = lots.looks_at(most, plan.looks)
    takes = _with_power(pace.expected(plans, most, usd_per_s, out), trial.claim, looks)
    return msgspec.structs.replace(trial, looks_at=looks, takes=takes, budget=budget)


def _in_words(each: Takes, starts: int) -> str:
    usd = "" if each.usd is None else f" and {starts * each.usd:.2f} USD"
    return f"{math.ceil(starts * each.seconds / 60)} min{usd}"


def _with_power(takes: Takes, claim: Claim, looks: Sequence[int]) -> Takes:
    """Of a ratio that lies one practical margin beyond its bar, of equal sides for "equal" and "about"; as
    the first of all cells to be decided, which is the hardest (Holm)."""
    fractions = tuple(n / looks[-1] for n in looks)
    margin, spread = metrics.margin_frac(claim), claim.plan.spread_frac
    is_equal = claim.relation in law.TWO_SIDED
    alpha = law.ALPHA_EQUAL if is_equal else law.ALPHA
    level = sequential.nominal(fractions, alpha / len(claim.grid()))[-1]
    if margin == 0:
        return takes
    power: Callable[..., float] = planning.power_equal if is_equal else planning.power
    distance = margin if is_equal else math.log1p(margin)
    return msgspec.structs.replace(takes, beyond=margin, power=power(looks[-1], spread, distance, level))
