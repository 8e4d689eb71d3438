"""The error tree.  Each class carries the exit code the command line ends with.

- ProfilerError
  - InputError ................ 2   the user asked for something impossible or misspelt
    - DamagedError ............ 2   a run folder is not what was written
  - MeasurementError .......... 4   the measurement failed, not one request of it
    - EngineError ............. 4   an engine did not start, or died
    - LoadError ............... 4   the load generator itself failed
    - StoreError .............. 4   a run folder cannot be written or read

A failed request is data (``RequestRecord.outcome``), never an exception.
Exit codes 1 (a gate or claim failed), 3 (undecided) and 130 (interrupted) are results, not errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LONGEST_LINE = 3000  # characters; what a file holds may be repeated in it, and be of any length
RESTORE = "restore what is damaged from a copy, or measure anew"


class ProfilerError(Exception):
    """Base of all errors raised on purpose; its text is one line: what, where, what to do."""

    exit_code = 4

    def __str__(self) -> str:
        return _readable(super().__str__())


class InputError(ProfilerError):
    """The request cannot be carried out as written; nothing was started or written."""

    exit_code = 2


class DamagedError(InputError):
    """Run folders are not what was written: no figure is made of them.  ``faults``: folder, what is wrong."""

    def __init__(self, *faults: tuple[str, str]) -> None:
        super().__init__(*faults)
        self.faults = faults

    def __str__(self) -> str:
        folders = {folder for folder, _ in self.faults}
        if len(self.faults) == 1:
            return _readable("{} is damaged: {}".format(*self.faults[0]) + f"; {RESTORE}")
        few = "a run folder is" if len(folders) == 1 else f"{len(folders)} run folders are"
        each = "".join(f"\n  {name}: {why}" for name, why in self.faults)
        return _readable(f"{few} damaged; {RESTORE}{each}")


class MeasurementError(ProfilerError):
    """The measurement failed; what was finished before is kept."""


class EngineError(MeasurementError):
    """An engine did not start or died.  ``log_lines`` are the telling lines of its log."""

    def __init__(self, message: str, log_lines: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.log_lines = tuple(log_lines)


class LoadError(MeasurementError):
    """The load generator failed (not a request: the generator)."""


class StoreError(MeasurementError):
    """A run folder cannot be written or read."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: `` (did you mean 'x'?)``, or the valid names when none is near."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in names], n=1, cutoff=0.5)
    if close:
        match = next(name for name in names if name.lower() == close[0])
        return f" (did you mean {match!r}?)"
    return f" (known: {', '.join(names[:12])}{', …' if len(names) > 12 else ''})" if names else ""


def _readable(text: str) -> str:
    """Lines as long as somebody reads: the beginning says where and what, the end what to do."""
    head, tail = LONGEST_LINE * 2 // 3, LONGEST_LINE // 3
    return "\n".join(
        line if len(line) <= LONGEST_LINE else f"{line[:head]} … {line[-tail:]}" for line in text.split("\n")
    )


def damaged(folder: object, fault: str) -> DamagedError:
    """Of one folder."""
    return DamagedError((str(folder), fault))


def together(errors: Sequence[InputError]) -> InputError:
    """One error that says all of them."""
    if len(errors) == 1:
        return errors[0]
    damaged = [each for each in errors if isinstance(each, DamagedError)]
    if len(damaged) < len(errors):
        return InputError("\n".join(map(str, errors)))
    return DamagedError(*(fault for each in damaged for fault in each.faults))


def describe(error: BaseException) -> tuple[str, str]:
    """Status and reason a folder gets when a run ends by ``error``."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted by the user"
    lines = error.log_lines if isinstance(error, EngineError) else ()
    return "failed", "\n".join([f"{error}" or type(error).__name__, *lines])
