"""Files between the driver and the nodes: run folders come back, files that a sweep names go there.

They travel in pieces small enough for Ray to put into its messages: none of them ever lies in the object
store, which may be as full as it likes.  What arrives has the SHA-256 of what was sent, and is nowhere to be
seen before it is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from profiler import disk, store
from profiler.cluster import nodes
from profiler.errors import InputError, StoreError
from profiler.settings import Scenario
from profiler.storage.local import grouped, sealed
from profiler.sweep.nouns import Start

FOLDER = "profile-sweeps"
SENT = "files"
PIECE_BYTES = 64 << 10  # Ray puts up to 100 KB into a message
PIECES_AHEAD = 16
MOST_BYTES = 64 << 20  # of what a sweep names and has to be sent to every node


class FileFacts(NamedTuple):
    """``name`` is relative to its folder."""

    name: str
    size_bytes: int
    sha256: str


# ------------------------------------------------------------------------------- what a node is asked to do


def scratch(name: str) -> Path:
    """A sweep's folder on this node."""
    return Path(tempfile.gettempdir()) / FOLDER / name


def listing(folder: str) -> list[FileFacts]:
    """All files below a folder, its manifest last."""
    base = Path(folder)
    paths = sorted(path for path in base.rglob("*") if path.is_file())
    found = [FileFacts(str(path.relative_to(base)), path.stat().st_size, sha256(path)) for path in paths]
    return sorted(found, key=lambda each: each.name == store.MANIFEST)


def piece(path: str, offset: int) -> bytes:
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(PIECE_BYTES)


def keep(path: str, offset: int, content: bytes) -> None:
    """A piece of a file that the driver sends."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        file.write(content)


def has(path: str, digest: str) -> bool:
    return Path(path).is_file() and sha256(Path(path)) == digest


def is_written(folder: Path) -> bool:
    """Whether a process holds the run's lock (:class:`profiler.store.RunWriter`)."""
    try:
        with (folder / store.PARTS / store.LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def drop(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def tidy(name: str, owed: Collection[str]) -> None:
    """The scratch folder of a sweep that is over: sealed runs of the groups ``owed``, which were not fetched,
    stay for the next one to go on with it."""
    out = scratch(name)
    shutil.rmtree(out / SENT, ignore_errors=True)
    kept = {each.name for each in grouped(out, owed) if each.is_sealed}
    for run in store.within(out):
        if run not in kept and not is_written(out / run):
            shutil.rmtree(out / run, ignore_errors=True)
    for folder in (out, out.parent):
        with suppress(OSError):  # not empty
            folder.rmdir()


def scratch_of(name: str) -> str:
    """Its path on the node that is asked."""
    return str(scratch(name))


# ------------------------------------------------------------------------------------------ on the driver


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


Ask = Callable[..., Any]  # (function, *arguments) → Ray's reference to what it gives on some node


def asking(node: str) -> Ask:
    """By a worker that Ray finds or starts there."""
    return lambda function, *arguments: nodes.on(node, function).remote(*arguments)


def told(ask: Ask, function: Any, *arguments: Any) -> Any:
    """What one of the functions above gives there; raises what Ray raises."""
    import ray

    return ray.get(ask(function, *arguments), timeout=nodes.ANSWER_S)


def fetch(ask: Ask, folder: str, into: Path) -> Path:
    """A folder of a node as one of ``into``, by its name: on the disk here when this returns, for the node's
    is dropped then.  What is there already stays where it is whole.

    Raises StoreError where it cannot be written here, came back changed or is damaged there; what Ray raises
    where the node is gone.  Half a folder is never left.
    """
    name = Path(folder).name
    beside = into / "sweeps" / ".fetched" / f"{name}.{os.getpid()}"
    try:
        for each in told(ask, listing, folder):
            _fetch_file(ask, f"{folder}/{each.name}", beside / each.name, each)
        if not _is_whole(into / name):
            _settle(beside, into / name)
    except OSError as error:
        raise StoreError(f"cannot bring {name} to {into}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        with suppress(OSError):
            beside.parent.rmdir()
    return into / name


def _is_whole(run: Path) -> bool:
    return (run / store.MANIFEST).exists() and not store.faults(run)


def _settle(beside: Path, target: Path) -> None:
    if (beside / store.MANIFEST).exists():
        sealed(beside)
    disk.sync_all(beside)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(beside, target)
    disk.sync(target.parent)


def _fetch_file(ask: Ask, there: str, target: Path, facts: FileFacts) -> None:
    import ray

    target.parent.mkdir(parents=True, exist_ok=True)
    offsets = iter(range(0, facts.size_bytes, PIECE_BYTES))
    ahead: deque[Any] = deque()
    with target.open("wb") as file:
        while True:
            ahead.extend(ask(piece, there, each) for each in islice(offsets, PIECES_AHEAD - len(ahead)))
            if not ahead:
                break
            file.write(ray.get(ahead.popleft(), timeout=nodes.ANSWER_S))
    if sha256(target) != facts.sha256:
        raise StoreError(f"{there} of a node changed on its way here")


class Sender:
    """Sends files to one node, each once; what is there already under the same path stays where it is."""

    def __init__(self, node: str, name: str) -> None:
        self._node = node
        self._ask = asking(node)
        self._name = name
        self._known: dict[str, str] = {}

    def path(self, here: str) -> str:
        """Where the node has this file, or folder, of the driver's.

        Raises InputError for more than travels.
        """
        if here not in self._known:
            path = Path(here)
            files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
            self._known[here] = here if self._is_there(files) else self._send(path, files)
        return self._known[here]

    def _is_there(self, files: Sequence[Path]) -> bool:
        return all(told(self._ask, has, str(each), sha256(each)) for each in files)

    def _send(self, path: Path, files: Sequence[Path]) -> str:
        size_bytes = sum(each.stat().st_size for each in files)
        if size_bytes > MOST_BYTES:
            raise InputError(
                f"{path}: node {nodes.label(self._node)} does not have it, and {size_bytes >> 20} MiB are "
                f"not sent to every node; put it on storage that all of them share"
            )
        digest = hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()[:16]
        folder = f"{told(self._ask, scratch_of, self._name)}/{SENT}/{digest}"
        for each in files:
            self._send_file(each, f"{folder}/{each.relative_to(path.parent)}")
        return f"{folder}/{path.name}"

    def _send_file(self, path: Path, there: str) -> None:
        with path.open("rb") as file:
            for offset in range(0, max(1, path.stat().st_size), PIECE_BYTES):
                told(self._ask, keep, there, offset, file.read(PIECE_BYTES))


def named_by(start: Start) -> Iterator[str]:
    """The files and folders of the driver's that a start names."""
    scenarios = (*(each.scenario for each in start.asked), *start.sized_for)
    yield from dict.fromkeys(each.load.trace for each in scenarios if each.load.trace)
    if is_folder(start.model):
        yield start.model


def is_folder(model: str) -> bool:
    return "/" in model and Path(model).is_dir()


def with_files(start: Start, sender: Sender) -> Start:
    """The start as it names its files on the node."""

    def moved(scenario: Scenario) -> Scenario:
        trace = scenario.load.trace
        return replace(scenario, load=replace(scenario.load, trace=sender.path(trace))) if trace else scenario

    return replace(
        start,
        model=sender.path(start.model) if is_folder(start.model) else start.model,
        asked=tuple(replace(each, scenario=moved(each.scenario)) for each in start.asked),
        sized_for=tuple(map(moved, start.sized_for)),
    )
