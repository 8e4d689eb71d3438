"""Holding a trial: block by block and look by look, as planned.

    for each block, as long as the budget lasts:
        for each leg, in the order drawn: one fresh engine start, all batches, sealed before the next
        at a planned look: judge what was held so far → go on, or end

Whatever happens is in the ledger before anything else happens.  A run is dropped, by name and reason, and its
leg held anew where something cut it short or disturbed it from outside (the load generator had no time,
others used the GPUs); nothing is ever left out for what it measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace

from profiler import comparison, figures, manifest, store
from profiler.claims import evidence, judge, ledger, making
from profiler.claims.law import FEWEST_STARTS
from profiler.claims.ledger import Block, Dropped, Held, Leg, Look, Trial
from profiler.claims.nouns import Case, Ruling
from profiler.errors import InputError, describe
from profiler.measure import Show, execute
from profiler.nvml.holding import TakenError, kept
from profiler.pace import took_s
from profiler.prepare import afresh
from profiler.progress.part import Part
from profiler.trials import lots, pace
from profiler.trials.asking import Outline
from profiler.trials.decide import decide

Event = Literal["block", "held", "dropped", "look"]
DISTURBED = "disturbed: "
# What an answer takes is made of what its tokens take.
OF_ANSWERS = {
    "usd_per_answer": "usd_per_m_output_tokens",
    "energy_j_per_answer": "energy_j_per_output_token",
}
MOST_AGAIN = 2  # times that a disturbed leg is held anew; what disturbs it still belongs to the machine


# Who is told what has happened, after it is in the ledger; the trial says the rest.
Tell = Callable[[Event, Trial], None]


def hold(outline: Outline, show: Show, tell: Tell) -> Trial:
    """Hold the trial to its end and return it; one that has ended is returned as it is.

    What was held before an error or Ctrl-C stays, and the same words go on from there.  Raises InputError
    where another process holds it or measures on a board of its, EngineError, LoadError, StoreError;
    KeyboardInterrupt.
    """
    if outline.trial.status == "ended":
        return outline.trial
    with ledger.locked(outline.results, outline.trial), kept():
        _check_unchanged(outline)
        book = _Book(outline, tell)
        book.recover()
        while book.trial.status == "open":
            if book.trial.starts == book.trial.next_look:
                _look(book)
            elif not _is_paid_for(book.trial):
                _last_look(book)
                break
            else:
                _hold_next(book, show)
                _check_told(book)
        return book.trial


def ruling(results: Path, trial: Trial) -> Ruling:
    """The claim judged by what the last look saw, and no more."""
    runs = [store.load(results / name) for name in trial.counted]
    found = evidence.cases(trial.claim, runs) if runs else [_unseen(results, trial)]
    case = max(found, key=lambda each: len(each.evidence), default=Case(claim=trial.claim))
    return judge.ruling(replace(case, looks=trial.fractions or None))


def _unseen(results: Path, trial: Trial) -> Case:
    """Of a trial that ended, or stopped, before its first look."""
    first = trial.looks_at[0]
    why = trial.reason or f"{trial.starts} of the {first} starts a side are held that its first look takes"
    goes_on = () if trial.status == "ended" else (making.resumed(trial, results),)
    return Case(claim=trial.claim, missing=(f"trial {trial.id}: {why}", *goes_on))


def _check_unchanged(outline: Outline) -> None:
    """Raises InputError where another process went on with the trial between the reading of its ledger and
    the lock: what is written next would undo that."""
    path = ledger.path_of(outline.results, outline.trial)
    if outline.is_new or not path.exists():
        return
    asked = {name: getattr(outline.trial, name) for name in ("budget", "usd_per_hour")}
    if replace(ledger.read(path), **asked) != outline.trial:
        raise InputError(f"{path}: another process went on with this trial just now; say the same again")


class _Book:
    """The ledger as it is on disk, and what changes it."""

    def __init__(self, outline: Outline, tell: Tell) -> None:
        self.outline = outline
        self.tell = tell
        self.trial = outline.trial
        self.write()

    @property
    def results(self) -> Path:
        return self.outline.results

    def write(self, **changes: Any) -> None:
        self.trial = replace(self.trial, **changes)
        ledger.write(self.results, self.trial)

    def open_block(self) -> int:
        """The number of the block that has legs left, drawn now if there is none."""
        blocks = self.trial.blocks
        if blocks and blocks[-1].left:
            return len(blocks) - 1
        drawn = lots.block(lots.pairs(self.trial.claim), self.trial.seed, len(blocks))
        self.write(blocks=(*blocks, drawn))
        self.tell("block", self.trial)
        return len(blocks)

    def held(self, leg: Leg, run: str, took_s: float) -> None:
        *before, last = self.trial.blocks
        block = Block(order=last.order, held=(*last.held, Held(leg=leg, run=run, took_s=took_s)))
        self.write(blocks=(*before, block), under_way=None, spent_s=self.trial.spent_s + took_s)

    def dropped(self, leg: Leg, run: str | None, why: str, took_s: float) -> None:
        gone = Dropped(block=len(self.trial.blocks) - 1, leg=leg, run=run, why=why)
        spent_s = self.trial.spent_s + took_s
        self.write(dropped=(*self.trial.dropped, gone), under_way=None, spent_s=spent_s)
        self.tell("dropped", self.trial)

    def looked(self, look: Look) -> None:
        """The look that was begun has its outcome."""
        ended = look.decision not in ("go on", "budget")
        looks = (*self.trial.looks[:-1], look)
        self.write(looks=looks, status="ended" if ended else "open")
        self.tell("look", self.trial)

    def recover(self) -> None:
        """What a crash left behind: a run that was sealed counts, one that was not is dropped.

        Raises DamagedError for one that cannot be told: it may count.
        """
        if self.trial.looks and not self.trial.looks[-1].why:
            _judge(self)
        group = self.trial.under_way
        if group is None:
            return
        leg = self.trial.blocks[-1].left[0]
        own = manifest.own_hash(replace(self.outline.plans[leg], group=group), 0)
        for folder in self.results.glob(f"*-{own}"):
            if store.is_run(folder):
                store.load(folder)
        left = store.group(self.results, group)
        if left and left[0].manifest.status == "complete":
            self.held(leg, left[0].folder.name, took_s(left[0].manifest))
        else:
            name = left[0].folder.name if left else None
            self.dropped(leg, name, "it was cut short", took_s(left[0].manifest) if left else 0.0)


# ---------------------------------------------------------------------------------------------- a leg


def _hold_next(book: _Book, show: Show) -> None:
    """The next leg: in a run folder of its own, sealed when this returns."""
    number = book.open_block()
    leg = book.trial.blocks[number].left[0]
    plan = afresh(book.outline.plans[leg])
    book.write(under_way=plan.group)
    with _timed() as so_far_s:
        try:
            folder = execute(plan, _part(show, book.trial, number))[0]
        except TakenError:  # nothing was begun
            book.write(under_way=None)
            raise
        except BaseException as error:
            found = store.group(book.results, plan.group)
            book.dropped(leg, found[0].folder.name if found else None, describe(error)[1], so_far_s())
            raise
    why = figures.disturbed(figures.of_runs([store.load(folder)]))
    if why and _times_disturbed(book.trial, number, leg) < MOST_AGAIN:
        book.dropped(leg, folder.name, DISTURBED + why, so_far_s())
    else:
        book.held(leg, folder.name, so_far_s())
        book.tell("held", book.trial)


def _part(show: Show, trial: Trial, number: int) -> Part:
    """The windows of one leg, shown as part of its trial."""
    last = trial.blocks[-1]
    after = (trial.most - number - 1) * len(last.order)
    return Part(show, f"block {number + 1} of {trial.most}", len(last.left) - 1 + after)


def _times_disturbed(trial: Trial, number: int, leg: Leg) -> int:
    return sum(
        each.block == number and each.leg == leg and each.why.startswith(DISTURBED) for each in trial.dropped
    )


@contextmanager
def _timed() -> Iterator[Any]:
    began_ns = time.perf_counter_ns()
    yield lambda: (time.perf_counter_ns() - began_ns) / 1e9


# --------------------------------------------------------------------------------------------- a look


def _look(book: _Book, budget_ends: bool = False) -> None:
    """Begin a look, then judge: one that something ended counts as one that was taken."""
    starts = book.trial.starts
    frac = starts / book.trial.most
    begun = Look(starts=starts, frac=frac, verdict="undecided", why="", decision="go on")
    book.write(looks=(*book.trial.looks, begun))
    _judge(book, budget_ends)


def _judge(book: _Book, budget_ends: bool = False) -> None:
    """The look that was begun gets its verdict, and what follows from it."""
    look, found = book.trial.looks[-1], ruling(book.results, book.trial)
    decision = decide(found, look.starts, book.trial.looks_at)
    if decision == "go on" and budget_ends:
        decision = "budget"
    book.looked(replace(look, verdict=found.verdict, why=found.why or found.verdict, decision=decision))


def _is_paid_for(trial: Trial) -> bool:
    """Whether the budget lasts for the block that is next, or for the rest of the one that is begun."""
    block = trial.blocks[-1] if trial.blocks else None
    share = len(block.left) / len(block.order) if block and block.left else 1.0
    seconds = trial.spent_s + pace.left_s(trial, 1) * share
    usd = None if trial.usd_per_hour is None else seconds * trial.usd_per_hour / 3600
    return trial.budget.pays(seconds, usd)


def _last_look(book: _Book) -> None:
    """The budget ends before the next planned look: what is held since the last one is looked at.  The trial
    stays open: a larger budget goes on with it, and with the error this look has spent."""
    seen = book.trial.looks[-1].starts if book.trial.looks else 0
    if book.trial.starts > max(seen, FEWEST_STARTS - 1):
        _look(book, budget_ends=True)


def _check_told(book: _Book) -> None:
    """A metric that the first engine start does not tell at any load, no other will: the trial ends."""
    metric, names = book.trial.claim.metric, book.trial.runs()
    if len(names) != 1:
        return
    told = OF_ANSWERS.get(metric, metric)
    rows = comparison.rows([store.load(book.results / names[0])])
    if all(row.get(told) is None for row in rows):
        why = next(
            (row["energy_trouble"] for row in rows if "energy" in metric and row["energy_trouble"]), ""
        )
        book.write(status="ended", reason=f"{metric} cannot be told here{': ' if why else ''}{why}")
