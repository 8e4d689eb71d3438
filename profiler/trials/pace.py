"""What a trial will take, before it is begun.  After its first block its own pace is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from profiler.claims.ledger import Leg, Takes, Trial
from profiler.pace import earlier, leg_takes
from profiler.prepare import Plan


def expected(plans: Mapping[Leg, Plan], starts: int, usd_per_s: float | None, out: Path) -> Takes:
    """What ``starts`` engine starts of every leg take."""
    legs = [leg_takes(plan, earlier(plan, out)) for plan in plans.values()]
    seconds = starts * sum(leg.seconds for leg in legs)
    return Takes(
        starts=starts * len(legs),
        seconds=seconds,
        usd=None if usd_per_s is None else usd_per_s * seconds,
        start_s=starts * sum(leg.start_s for leg in legs),
        windows_s=starts * sum(leg.windows_s for leg in legs),
        grounds=tuple(dict.fromkeys(words for leg in legs for words in leg.grounds)),
    )


def block_s(trial: Trial) -> float:
    """What one more block takes: the mean of whole ones so far, else what was expected of one."""
    whole = [block for block in trial.blocks if not block.left]
    if not whole:
        return trial.takes.seconds / trial.most
    return sum(held.took_s for block in whole for held in block.held) / len(whole)


def left_s(trial: Trial, blocks: int) -> float:
    """What ``blocks`` more blocks take."""
    return blocks * block_s(trial)
