"""One target under libFuzzer: ``python -m tests.fuzz.child TARGET STATE [libFuzzer options] CORPUS …``.

An input that breaks the target is kept under ``found`` and the fuzzing goes on, one input a fault (told by
the exception and the line of the product it left from), the shortest seen.  What libFuzzer does not count is
in the file STATE: the faults, and the longest call.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
import traceback
from pathlib import Path

import atheris
import msgspec

from tests.fuzz.mutate import mutate
from tests.fuzz.nouns import FOUND, Target

with atheris.instrument_imports(include=["profiler", "tomllib"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

    for _seed in TARGETS[sys.argv[1]].seeds():
        with contextlib.suppress(Exception):
            TARGETS[sys.argv[1]].run(_seed)  # what is imported inside functions is instrumented too


class State(msgspec.Struct):
    """``faults``: signature → how often; ``slowest_s``: the longest single call."""

    faults: dict[str, int]
    slowest_s: float = 0.0


class Watched:
    """A target whose faults are noted instead of ending the process."""

    def __init__(self, target: Target, path: Path) -> None:
        self._target = target
        self._path = path
        self._state = State(faults={})
        self._shortest: dict[str, int] = {}

    def __call__(self, data: bytes) -> None:
        begun = time.perf_counter()
        try:
            self._target.run(data)
        except Exception as error:
            self._note(error, data)
        took = time.perf_counter() - begun
        if took > 1.1 * self._state.slowest_s:
            self._state.slowest_s = took
            self._save()

    def _note(self, error: Exception, data: bytes) -> None:
        signature = signature_of(error)
        self._state.faults[signature] = self._state.faults.get(signature, 0) + 1
        if len(data) < self._shortest.get(signature, 1 << 62):
            if signature not in self._shortest:
                print(f"FAULT {self._target.name} {signature}: {error!s:.300}", file=sys.stderr, flush=True)
                traceback.print_exception(error, limit=-6)
            self._shortest[signature] = len(data)
            folder = FOUND / self._target.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / hashlib.sha256(signature.encode()).hexdigest()[:12]).write_bytes(data)
            self._save()

    def _save(self) -> None:
        self._path.write_bytes(msgspec.json.encode(self._state))


def signature_of(error: BaseException) -> str:
    """The exception's name, and the last function of the product (else of anybody) that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames if "/profiler/" in each.filename] or frames
    last = ours[-1]
    return f"{type(error).__name__} in {last.filename.rpartition('/profiler/')[2]}:{last.name}"


def main() -> None:
    target = TARGETS[sys.argv[1]]
    watched = Watched(target, Path(sys.argv[2]))

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        return mutate(target, data, most, seed, atheris.Mutate)

    own = {} if target.form == "bytes" else {"custom_mutator": mutator}
    atheris.Setup([sys.argv[0], *sys.argv[3:]], watched, **own)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
