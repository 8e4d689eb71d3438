"""A target whose faults are noted instead of ending the process."""

from __future__ import annotations

import hashlib
import re
import sys
import time
import traceback
from pathlib import Path

import msgspec

from tests.fuzz.nouns import Target


class State(msgspec.Struct):
    """``faults``: signature → how often; ``slowest_s``: the longest single call."""

    faults: dict[str, int]
    slowest_s: float = 0.0


class Watched:
    """An input that breaks the target is kept in ``found``, one a fault (see :func:`signature_of`), the
    shortest seen; what was noted is in the file ``state``."""

    def __init__(self, target: Target, state: Path, found: Path) -> None:
        self._target = target
        self._path = state
        self._found = found
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
        if len(data) >= self._shortest.get(signature, 1 << 62):
            return
        if signature not in self._shortest:
            print(f"FAULT {self._target.name} {signature}: {error!s:.300}", file=sys.stderr, flush=True)
            traceback.print_exception(error, limit=-6)
        self._shortest[signature] = len(data)
        self._found.mkdir(parents=True, exist_ok=True)
        (self._found / hashlib.sha256(signature.encode()).hexdigest()[:12]).write_bytes(data)
        self._save()

    def _save(self) -> None:
        self._path.write_bytes(msgspec.json.encode(self._state))


def signature_of(error: BaseException) -> str:
    """The exception's name, and the last function of the product (else of anybody) that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames if "/profiler/" in each.filename] or frames
    where = re.sub(r".*/(profiler|tests)/", "", ours[-1].filename)
    return f"{type(error).__name__} in {where}:{ours[-1].name}"
