"""The corpus that is kept in the repository, chosen from what campaigns grew: ``python -m tests.fuzz.keep``.

Of each target at most :data:`MOST` inputs: in turn the one that runs the most lines of the product that none
before it ran, the shorter of two equals.  libFuzzer's ``-merge=1`` keeps every feature, ten times as many
files; the rest it finds again in minutes.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.campaign import WORK
from tests.fuzz.nouns import CORPUS, ROOT, Target
from tests.fuzz.targets import TARGETS

MOST, MOST_BYTES = 9, 6000
PRODUCT = f"{ROOT / 'profiler'}/"
Lines = set[tuple[str, int]]


def lines_of(target: Target, data: bytes) -> Lines:
    """The lines of the product that an input runs."""
    found: Lines = set()

    def seen(frame: FrameType, _event: str, _arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PRODUCT):
            return None
        found.add((frame.f_code.co_filename, frame.f_lineno))
        return seen

    sys.settrace(seen)
    try:
        with contextlib.suppress(Exception):
            target.run(data)
    finally:
        sys.settrace(None)
    return found


def chosen(target: Target, inputs: Sequence[bytes]) -> list[bytes]:
    """The few that run most of what all of them run."""
    left = {each: lines_of(target, each) for each in inputs}
    known: Lines = set()
    for seed in target.seeds():
        known |= lines_of(target, seed)
    kept: list[bytes] = []
    while left and len(kept) < MOST:
        best = max(left, key=lambda each: (len(left[each] - known), -len(each)))
        news = left.pop(best) - known
        if not news:
            break
        known |= news
        kept.append(best)
    return kept


def main() -> None:
    for target in TARGETS.values():
        folders = (WORK / "corpus" / target.name, CORPUS / target.name)
        paths: list[Path] = [each for folder in folders if folder.is_dir() for each in folder.iterdir()]
        inputs = {path.read_bytes() for path in paths if path.stat().st_size <= MOST_BYTES}
        kept = chosen(target, sorted(inputs))
        shutil.rmtree(CORPUS / target.name, ignore_errors=True)
        if kept:
            (CORPUS / target.name).mkdir(parents=True)
        for data in kept:
            (CORPUS / target.name / sha256(data).hexdigest()[:16]).write_bytes(data)
        print(f"{target.name}: {len(kept)} of {len(inputs)}, {sum(map(len, kept)):,} bytes", flush=True)


if __name__ == "__main__":
    main()
