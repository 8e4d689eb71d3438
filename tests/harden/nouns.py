"""What the matrix is made of: faults, the phases in which they strike, and what is to come of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

if TYPE_CHECKING:
    from tests.harden.cell import Live

Phase = Literal["start", "warm-up", "window", "shutdown"]
PHASES: tuple[Phase, ...] = ("start", "warm-up", "window", "shutdown")
Group = Literal["server", "wire", "engine", "GPU", "machine", "disk", "user", "real vLLM"]
Status = Literal["complete", "interrupted", "failed", "running"]

SIMULATED = (
    *("--engine", "simulated", "--set", "engine.args.ttft_s=0.02", "--set", "engine.args.itl_s=0.005"),
    *("--set", "engine.args.start_s=0.8", "--set", "engine.args.faults_file=faults.json"),
)


class Expect(Struct, frozen=True, kw_only=True):
    """What must come of a run that was struck.

    ``code``: its exit code, negative for the signal that killed it; several where chance decides.
    ``says``: a regular expression that its stderr matches, None where it must have nothing to say.
    ``status``: of the run folder, None where none may be left.  ``windows``: finished ones, at least.
    ``outcomes``: what its requests ended with, all of these and "ok" or "cancelled" but nothing else; None
    where that is not looked at.  ``within_s``: from the blow to the end of the process.
    ``resumes``: `profile resume` completes it, once the fault is over.
    ``litter``: patterns of file names in the results that may stay behind, of a run that could not clean up.
    ``last_event``: whether the events end with how it ended; a run that was killed cannot say.
    """

    code: int | tuple[int, ...]
    says: str | None
    status: Status | tuple[Status, ...] | None
    windows: int = 0
    outcomes: frozenset[str] | None = None
    within_s: float = 30.0
    resumes: bool = False
    litter: tuple[str, ...] = ()
    last_event: bool = True


class Case(Struct, frozen=True, kw_only=True):
    """One fault in one phase.  ``engine``: the words that choose it; ``words`` are added to the command,
    ``env`` to its environment (a value None takes the variable away).  ``through``: what stands before it.

    ``prepare`` runs before the command is started, ``strike`` when the phase has come, ``mend`` before the
    run is resumed, ``look`` last, for what is special to the case: it raises AssertionError.
    ``queues``: one of these at a time.  ``comes_s``: how long the phase may take to come.
    """

    expect: Expect
    words: tuple[str, ...] = ()
    engine: tuple[str, ...] = SIMULATED
    env: dict[str, str | None] = field(default_factory=dict)
    through: tuple[str, ...] = ()
    prepare: Callable[[Live], None] | None = None
    strike: Callable[[Live], None] | None = None
    mend: Callable[[Live], None] | None = None
    look: Callable[[Live], None] | None = None
    queues: bool = False
    comes_s: float = 90.0


class Fault(Struct, frozen=True, kw_only=True):
    """A row: what goes wrong, and the case of each phase, or in words why it has none there.

    ``needs``: why this machine cannot try it, None where it can.
    """

    name: str
    group: Group
    does: str
    cases: dict[Phase, Case | str]
    needs: Callable[[], str | None] = lambda: None


class Result(Struct, frozen=True, kw_only=True):
    """What came of a cell.  ``failures`` is empty where everything held; ``skipped`` says why it was not run.

    ``said``: the line of stderr that told the user, ``kept``: what the folder held, in words; ``utc``: when.
    """

    fault: str
    phase: Phase
    code: int | None = None
    said: str = ""
    kept: str = ""
    took_s: float | None = None
    failures: tuple[str, ...] = ()
    skipped: str | None = None
    utc: str | None = None

    @property
    def passed(self) -> bool:
        return not self.failures and self.skipped is None
