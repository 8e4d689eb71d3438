"""Which two models a trial is of, and whether what will be measured of them can bear on the claim at all:
asked of the law that evidence is later judged by, before anything is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec.structs import replace

from profiler import host, manifest
from profiler.claims import comparable, metrics, sides
from profiler.claims.ledger import SIDES, Leg
from profiler.claims.nouns import Claim, Models
from profiler.claims.sides import Pair, Start
from profiler.errors import InputError
from profiler.prepare import Plan
from profiler.schema import Manifest
from profiler.store import RunResult

OWN_FILE = "the same of what is here is another claim: copy it to a file of your own and say so there"


def pair(claim: Claim, named: Sequence[str]) -> tuple[str, str]:
    """Subject and baseline: the two that are ``named``, else the claim's own.  Raises InputError where
    neither says which."""
    if len(named) == len(SIDES):
        return named[0], named[1]
    if metrics.of(claim.metric).kind == "answers":  # of one model that answers at two lengths
        one = named[0] if named else _only(claim, claim.subject, "model", "--model NAME")
        return one, one
    if named:
        raise InputError(
            f"--model: name both, the subject of claim {claim.id} and then its baseline; got {len(named)}"
        )
    both = "--model SUBJECT --model BASELINE"
    return _only(claim, claim.subject, "subject", both), _only(claim, claim.baseline, "baseline", both)


def _only(claim: Claim, models: Models, side: str, mend: str) -> str:
    if len(models.names) == 1:
        return models.names[0]
    known = " or ".join(models.names) or " ".join(filter(None, ("any", models.kind, "model")))
    raise InputError(f"claim {claim.id}: its {side} is {known}; say which: {mend}")


def check_machine(claim: Claim) -> None:
    """Raises InputError where this machine has none of the GPUs that the claim is of: asked first, for what
    does not fit here anyway."""
    if claim.conditions.engine == "simulated":
        return
    if why := sides.unmet_boards(claim.conditions, host.collect().gpus):
        what = why.partition(", the run")[0]
        raise InputError(f"claim {claim.id}: {what}, and this machine has none; {OWN_FILE}")


def check(claim: Claim, plans: dict[Leg, Plan]) -> None:
    """Raises InputError where no verdict could come of what is planned: other models than the claim's,
    another machine, random weights, sides that may not be compared."""
    for leg, plan in plans.items():
        _check_leg(claim, leg, _to_be(plan))
    for why in _doubts(claim, plans):
        raise InputError(f"claim {claim.id} could not be judged by this trial: {why}; {OWN_FILE}")


def _check_leg(claim: Claim, leg: Leg, run: Manifest) -> None:
    models = claim.subject if leg.side == "subject" else claim.baseline
    if not sides.is_of(models, run):
        what = " or ".join(models.names) or f"{models.kind}"
        raise InputError(
            f"--model {run.model.name}: the {leg.side} of claim {claim.id} is {what}; the same of other "
            "models is another claim, in a file of your own"
        )
    if why := sides.unmet(claim.conditions, run):
        raise InputError(f"claim {claim.id}: {why}: nothing measured so would bear on it; {OWN_FILE}")


def _doubts(claim: Claim, plans: dict[Leg, Plan]) -> Iterator[str]:
    starts = [Start(RunResult(plan.out, _to_be(plan)), []) for plan in plans.values()]
    is_one_model = metrics.of(claim.metric).kind == "answers"
    alone = [Pair(group, group, ()) for group in sides.groups(starts, set())]
    for each in alone if is_one_model else sides.pairs(claim, starts):
        yield from comparable.doubts(claim, each)


def _to_be(plan: Plan) -> Manifest:
    """What its run folder will say, as far as that is known before the start; the engine is the same on both
    sides, whatever its version."""
    found, settings = manifest.of(plan, 0), plan.settings[0]
    here = plan.host.gpus if settings.kind in ("vllm", "transformers") else ()
    gpus = tuple(gpu.uuid for gpu in here)[: settings.tensor_parallel or 1]
    device: Literal["cuda", "cpu"] = "cuda" if gpus else "cpu"
    return replace(found, engine=replace(found.engine, version="as installed", device=device, gpus=gpus))
