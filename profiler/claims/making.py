"""How to make the evidence there is none of: places in words, commands to type."""

from __future__ import annotations

import shlex
from pathlib import Path

from msgspec.structs import replace

from profiler.claims import law, reading
from profiler.claims.ledger import Trial
from profiler.claims.nouns import Cell, Claim, Models

OUT = Path("results")  # where runs go unless told otherwise


def place(cell: Cell) -> str:
    """``batch 8, 1,000 + 256 tokens``; a cell without a place is ``any load``."""
    lengths = [f"{each:,}" if each is not None else "any" for each in (cell.input_tokens, cell.output_tokens)]
    told = [f"batch {cell.batch}"] if cell.batch is not None else []
    told += [f"{' + '.join(lengths)} tokens"] if lengths != ["any", "any"] else []
    return ", ".join(told) or "any load"


def who(side: Models) -> str:
    """A side in words: ``Qwen/Qwen3-14B``, ``any dense model``."""
    return " or ".join(side.names) or (f"any {side.kind} model" if side.kind else "any model")


def command(claim: Claim, subject: str | None = None, baseline: str | None = None) -> str:
    """What holds a trial of the claim.  Where a side is no single model by its own words, both are named."""
    return shlex.join(_words(claim, subject, baseline))


def resumed(trial: Trial, home: Path) -> str:
    """What goes on with a trial whose runs lie in ``home``."""
    claim = trial.claim
    words = _words(claim, trial.subject, trial.baseline)
    words += ["--engine", trial.engine] if claim.conditions.engine is None else []
    words += ["--weights", trial.weights] if trial.weights != "auto" else []
    words += [part for each in trial.overrides for part in ("--set", each)]
    words += ["--out", str(home)] if home.absolute() != OUT.absolute() else []
    return shlex.join(words)


def _words(claim: Claim, subject: str | None, baseline: str | None) -> list[str]:
    words = ["profile", "claims", "run", claim.id if _is_shipped(claim) else f"{claim.id}.toml"]
    if all(len(side.names) == 1 for side in (claim.subject, claim.baseline)):
        return words
    for given, side in ((subject, claim.subject), (baseline, claim.baseline)):
        words += ["--model", given or any_of(side)]
    return words


def _is_shipped(claim: Claim) -> bool:
    """Whether its id means it: a file of the user's may have that of another."""
    known = next((each for each in reading.shipped() if each.id == claim.id), None)
    return known is not None and known == replace(claim, subject=known.subject, baseline=known.baseline)


def any_of(side: Models) -> str:
    """A model of a side as a word to type: the only one, else what is to be named in its place."""
    if len(side.names) == 1:
        return side.names[0]
    return f"A-{side.kind.upper()}-MODEL" if side.kind else "A-MODEL"


def more_starts(held: int, of: str, fewest: int = law.FEWEST_STARTS) -> list[str]:
    """That ``held`` engine starts are too few for a verdict; nothing where they are enough."""
    return [f"more engine starts of {of}: {held} of at least {fewest}"] if held < fewest else []
