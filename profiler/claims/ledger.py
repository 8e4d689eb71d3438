"""The record of a trial: what was planned before anything was measured, what was held, what each look saw.

One file a trial, ``<results>/trials/<claim>-<utc>-<hash>.json``, beside the run folders it names.  It is
written anew after every start and every look, so that whatever ends a trial, nothing held is lost and no
look forgotten.  Looks that nobody counts make a level of 5 % a fiction.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from profiler.claims.nouns import Claim, Verdict
from profiler.errors import InputError
from profiler.spending import Budget
from profiler.store import write_json

FOLDER = "trials"
VERSION = 1
PUT_ASIDE = "restore it, or move it and the runs of its trial out of the results"
SideName = Literal["subject", "baseline"]
SIDES: tuple[SideName, SideName] = ("subject", "baseline")
Decision = Literal["go on", "decided", "futile", "not comparable", "budget", "plan ended"]


class Leg(Struct, frozen=True, kw_only=True):
    """One engine start to be: a side, under all batches of a claim at these lengths; None: as the scenario
    has them."""

    side: SideName
    input_tokens: int | None = None
    output_tokens: int | None = None


class Held(Struct, frozen=True, kw_only=True):
    """A leg that was held and sealed: the name of its run folder, and how long all of it took."""

    leg: Leg
    run: str
    took_s: float


class Dropped(Struct, frozen=True, kw_only=True):
    """A run that was begun and does not count, with the reason: what ended it.  It is never chosen by what it
    measured."""

    block: int
    leg: Leg
    why: str
    run: str | None = None


class Block(Struct, frozen=True, kw_only=True):
    """One fresh engine start of every leg, in an order drawn by lot."""

    order: tuple[Leg, ...]
    held: tuple[Held, ...] = ()

    @property
    def left(self) -> tuple[Leg, ...]:
        done = {each.leg for each in self.held}
        return tuple(leg for leg in self.order if leg not in done)


class Look(Struct, frozen=True, kw_only=True):
    """What was seen after so many ``starts`` a side, ``frac`` of those planned, and what was done about it.
    Without a ``why`` it was begun and something ended it: it counts all the same, and is repeated."""

    starts: int
    frac: float
    verdict: Verdict
    why: str
    decision: Decision


class Takes(Struct, frozen=True, kw_only=True):
    """What a trial is expected to take if it goes to its end: ``starts`` of engines on both sides together.
    ``usd`` is None without a price.

    ``grounds``: what the expectation rests on, in words.  ``power``: the chance that a cell is decided whose
    ratio lies a share ``beyond`` its bar, if starts scatter as the plan says; for "equal", that equal sides
    are found to be.
    """

    starts: int
    seconds: float
    usd: float | None = None
    start_s: float = 0.0
    windows_s: float = 0.0
    grounds: tuple[str, ...] = ()
    beyond: float | None = None
    power: float | None = None


class Trial(Struct, frozen=True, kw_only=True):
    """``looks_at``: planned looks, in starts a side; the last is the most that are held.  ``machine`` is what
    runs are compared by (``host_facts.facts``); a trial goes on only where it began.  ``before``: trials of
    the same claim in the same setting that there were when this one began.  ``under_way``: the group of the
    run that is being held, by which it is found again after a crash.
    ``reason``: why it ended, where no look says so.
    """

    version: int = VERSION
    id: str
    claim: Claim
    digest: str
    subject: str
    baseline: str
    engine: str
    overrides: tuple[str, ...]
    weights: str
    seed: int
    looks_at: tuple[int, ...]
    takes: Takes
    machine: dict[str, str]
    budget: Budget = Budget()
    usd_per_hour: float | None = None
    before: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    looks: tuple[Look, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    under_way: str | None = None
    spent_s: float = 0.0
    status: Literal["open", "ended"] = "open"
    reason: str | None = None

    @property
    def utc(self) -> str:
        """When it was planned."""
        return self.id.rsplit("-", 2)[-2]

    @property
    def most(self) -> int:
        """The most starts a side."""
        return self.looks_at[-1]

    @property
    def starts(self) -> int:
        """How many starts a side there are in whole blocks."""
        return sum(not block.left for block in self.blocks)

    @property
    def fractions(self) -> tuple[float, ...]:
        """The shares of the planned starts at which it was looked at, in order; for ``Case.looks``."""
        return tuple(look.frac for look in self.looks)

    @property
    def next_look(self) -> int | None:
        """At how many starts a side the next planned look is; None where none is left."""
        seen = self.looks[-1].starts if self.looks else 0
        return next((n for n in self.looks_at if n > seen), None) if self.status == "open" else None

    def runs(self, starts: int | None = None) -> tuple[str, ...]:
        """The run folders of the first ``starts`` blocks; None: of all that is held."""
        return tuple(held.run for block in self.blocks[:starts] for held in block.held)

    @property
    def counted(self) -> tuple[str, ...]:
        """The run folders that the last look saw: what a verdict may rest on.  Those held since wait for the
        next planned look; none before the first."""
        return self.runs(self.looks[-1].starts) if self.looks else ()


def digest(claim: Claim) -> str:
    """SHA-256 (64 hex digits) of all of a claim that shapes its verdict: wording, source and tags do not."""
    plain = msgspec.to_builtins(claim, order="sorted")
    for name in ("text", "source", "tags", "not_comparable"):
        plain.pop(name, None)
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


def path_of(results: Path, trial: Trial) -> Path:
    return results / FOLDER / f"{trial.id}.json"


def write(results: Path, trial: Trial) -> None:
    """Whole or not at all.  Raises StoreError."""
    path = path_of(results, trial)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, trial)


def read(path: Path) -> Trial:
    """Raises InputError where it cannot be read or is of a newer version."""
    try:
        raw = path.read_bytes()
        version = msgspec.json.decode(raw).get("version")
        if not isinstance(version, int) or version > VERSION:
            raise InputError(f"{path} has version {version}, this profiler reads up to {VERSION}: update it")
        found = msgspec.json.decode(raw, type=Trial)
    except (OSError, msgspec.MsgspecError, AttributeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: this record of a trial cannot be read ({error}); {PUT_ASIDE}") from None
    for why in _contradictions(found):
        raise InputError(f"{path}: {why}: this record of a trial was changed by hand; {PUT_ASIDE}")
    return found


def _contradictions(trial: Trial) -> Iterator[str]:
    """What nothing that writes a record does: how sure a verdict is hangs on every one of its looks."""
    seen = [look.starts for look in trial.looks]
    runs = trial.runs()
    if not trial.looks_at or list(trial.looks_at) != sorted({*trial.looks_at}) or trial.looks_at[0] < 1:
        yield "its planned looks do not rise"
    elif seen != sorted(set(seen)) or any(not 1 <= n <= trial.starts for n in seen):
        yield f"its looks at {', '.join(map(str, seen))} starts are not of the {trial.starts} it holds"
    elif any(abs(look.frac - look.starts / trial.most) > 1e-9 for look in trial.looks):
        yield "the share of its starts that a look saw is not what it says"
    elif len(runs) != len(set(runs)):
        yield "a run is held twice"


def read_all(results: Path) -> list[Trial]:
    """All trials whose runs lie in ``results``, by name; none where there is no folder of them.

    Raises InputError for a file that cannot be read: without it nobody knows how often its runs were looked
    at.
    """
    folder = results / FOLDER
    return [read(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []


def holding(trials: Sequence[Trial], runs: Collection[str]) -> list[Trial]:
    """Those of the trials that held any of these run folders (by name)."""
    wanted = set(runs)
    return [trial for trial in trials if wanted & set(trial.runs())]


@contextmanager
def locked(results: Path, trial: Trial) -> Iterator[None]:
    """Nobody else goes on with this trial; raises InputError where somebody does."""
    path = path_of(results, trial)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path} is being held by another process; wait for it or stop it") from None
        yield
    finally:
        os.close(descriptor)
