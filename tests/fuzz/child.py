"""One target under libFuzzer: ``python -m tests.fuzz.child TARGET STATE [libFuzzer options] CORPUS …``.

An input that breaks the target is kept under ``found``, and the fuzzing goes on.  What libFuzzer does not
count is in the file STATE: the faults, and the longest call.
"""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path

import atheris

from tests.fuzz.mutate import mutate
from tests.fuzz.nouns import FOUND
from tests.fuzz.watch import Watched

with atheris.instrument_imports(include=["profiler", "tomllib"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

    for _seed in TARGETS[sys.argv[1]].seeds():
        with contextlib.suppress(Exception):
            TARGETS[sys.argv[1]].run(_seed)  # what is imported inside functions is instrumented too


def main() -> None:
    target = TARGETS[sys.argv[1]]
    watched = Watched(target, Path(sys.argv[2]), FOUND / target.name)

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        return mutate(target, data, most, random.Random(seed), atheris.Mutate)

    own = {} if target.form == "bytes" else {"custom_mutator": mutator}
    atheris.Setup([sys.argv[0], *sys.argv[3:]], watched, **own)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
