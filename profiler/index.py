"""Figures of sealed runs, kept beside them: to make them anew of ten thousand runs takes minutes, to read
what was made a second.

A folder of run folders holds ``.figures.index``.  The file is used while program, catalog and the user's GPU
sheet are those it was made with, and an entry of it while the files of its run have the sizes and times they
had: files are held against their checksums when a run is measured.  What is not so, or damaged, is made anew
and written by one rename, with what others wrote meanwhile.
Where nothing can be written it is made every time, as it is of runs that are not sealed.  Of other parts of
runs than the whole there are indices of their own (:class:`Kind`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from profiler import catalog, store
from profiler.errors import InputError, StoreError, together
from profiler.figures import Figures, of_run
from profiler.store import RunResult

FILE = ".figures.index"
# Runs that are named one by one have no index made for them unless they are so many of one folder.
WORTH_KEEPING = 8
# Of a long first time little is lost when it is broken off.
SAVE_EVERY = 1000
# So many runs are worth starting further processes for.
MANY = 64
AT_ONCE = 8
PR_SET_PDEATHSIG = 1  # linux/prctl.h
FILES = (store.MANIFEST, store.REQUESTS, store.TELEMETRY, store.ROUTING)
DIGEST_BYTES = 16
PACKAGE = Path(__file__).resolve().parent

Progress = Callable[[int, int], None]
State = tuple[int, ...]
Task = tuple[str, str, State]
Measure = Callable[[Sequence["Task"]], Iterator["Entry | InputError"]]


class Run(NamedTuple):
    """A run folder, as the user would write it, and its load points; none where no window was finished."""

    folder: str
    figures: list[Figures]


class Kind(NamedTuple):
    """An index: the ``file`` in which a folder has it, and what it holds of a run, groups of load points.
    ``groups`` is a function of a module, for other processes call it too."""

    file: str
    groups: Callable[[RunResult], list[list[Figures]]]


def _whole(run: RunResult) -> list[list[Figures]]:
    return [list(of_run(run))]


WHOLE = Kind(FILE, _whole)


class Entry(Struct, frozen=True, array_like=True):
    """One run: ``state`` of its files when it was measured (empty: it was not sealed); ``body``, its groups
    of Figures in msgpack; ``check`` of all that."""

    name: str
    state: State
    unix_ns: int
    body: msgspec.Raw
    check: int

    @property
    def is_whole(self) -> bool:
        return self.check == _check(self.name, self.state, self.unix_ns, self.body)


class _Asked(NamedTuple):
    """A path as it was given: where its index lies, and the runs it stands for by name, as the user would
    write them."""

    home: str
    runs: dict[str, str]
    is_whole: bool


def _asked(path: Path) -> _Asked:
    full = os.path.abspath(path)
    names = store.within(path)
    if not names:
        home, name = os.path.split(full)
        return _Asked(home, {name: str(path)}, is_whole=False)
    before = str(path / "x")[:-1]
    return _Asked(full, {name: before + name for name in names}, is_whole=True)


def figures(paths: Iterable[Path | str]) -> list[Figures]:
    """Every load point of the runs, in the order of :func:`runs`."""
    return [each for run in runs(paths) for each in run.figures]


def runs(paths: Iterable[Path | str], progress: Progress | None = None, processes: int = 1) -> list[Run]:
    """Each path; a folder that holds run folders stands for all of them, oldest first, as in ``store.find``.

    ``progress`` is told how many are done of the runs that have to be measured.  More ``processes`` than one
    are forked from this, which must have no threads.  Raises InputError where a path holds no run, or runs
    that cannot be read: one error names them all.
    """
    return [Run(folder, found) for folder, (found,) in groups(paths, WHOLE, progress, processes)]


def groups(
    paths: Iterable[Path | str], kind: Kind, progress: Progress | None = None, processes: int = 1
) -> list[tuple[str, list[list[Figures]]]]:
    """The same of any kind of index: each run's folder and its groups of load points."""
    asked = [_asked(Path(path)) for path in paths]
    wanted: dict[str, dict[str, str]] = {}
    for each in asked:
        wanted.setdefault(each.home, {}).update(each.runs)
    whole = {each.home for each in asked if each.is_whole}
    measure = partial(_all_measured, kind=kind, progress=progress, processes=processes)
    errors: list[InputError] = []
    found = {
        home: _entries(home, folders, home in whole, partial(_whole_only, measure, errors), kind.file)
        for home, folders in wanted.items()
    }
    if errors:
        raise together(errors)
    listed: list[tuple[str, list[list[Figures]]]] = []
    for each in asked:
        entries = found[each.home]
        own = sorted((entries[name] for name in each.runs), key=lambda entry: entry.unix_ns)
        listed += [_read(entry, each.runs[entry.name]) for entry in own]
    return listed


def _whole_only(measure: Measure, errors: list[InputError], tasks: Sequence[Task]) -> Iterator[Entry]:
    """What was measured; ``errors`` get what could not be."""
    for found in measure(tasks):
        if isinstance(found, Entry):
            yield found
        else:
            errors.append(found)


def _read(entry: Entry, folder: str) -> tuple[str, list[list[Figures]]]:
    """The Figures of an entry, named as the user named the run."""
    found = _DECODER.decode(entry.body)
    for group in found:
        for each in group:
            force_setattr(each, "run", folder)
            each.facts["run"] = folder
    return folder, found


_DECODER = msgspec.msgpack.Decoder(list[list[Figures]])


# ------------------------------------------------------------------------------------- one folder


def _entries(
    home: str,
    folders: dict[str, str],
    is_whole: bool,
    measure: Callable[[Sequence[Task]], Iterator[Entry]],
    file: str,
) -> dict[str, Entry]:
    """The entries of these runs of a folder: those of its index that hold, the others measured."""
    kept = _load(home, file)
    found: dict[str, Entry] = {}
    stale: list[Task] = []
    for name, folder in folders.items():
        state, entry = _state(f"{home}/{name}"), kept.get(name)
        if entry is not None and state and entry.state == state and entry.is_whole:
            found[name] = entry
        else:
            stale.append((folder, name, state))
    is_kept = is_whole or bool(kept) or len(folders) >= WORTH_KEEPING
    unsaved = 0
    try:
        for entry in measure(stale):
            found[entry.name] = entry
            unsaved += bool(entry.state)
            if is_kept and unsaved == SAVE_EVERY:
                _save(home, found, file)
                unsaved = 0
    finally:
        if is_kept and unsaved:
            _save(home, found, file)
    return found


def _all_measured(
    tasks: Sequence[Task], kind: Kind, progress: Progress | None, processes: int
) -> Iterator[Entry | InputError]:
    """What no index has, in any order."""
    for done, entry in enumerate(_each_measured(tasks, kind, processes), start=1):
        if progress is not None:
            progress(done, len(tasks))
        yield entry


def _each_measured(tasks: Sequence[Task], kind: Kind, processes: int) -> Iterator[Entry | InputError]:
    if processes < 2 or len(tasks) < MANY:
        yield from (_tried(task, kind) for task in tasks)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(processes, get_context("fork"), _end_with_parent, (os.getpid(),))
    try:
        batches = [tasks[first : first + AT_ONCE] for first in range(0, len(tasks), AT_ONCE)]
        for done in as_completed([pool.submit(_measured_elsewhere, each, kind) for each in batches]):
            entries, errors = done.result()
            yield from msgspec.msgpack.decode(entries, type=list[Entry])
            yield from errors
    except BrokenProcessPool:
        raise StoreError("a process that read runs was killed: is memory short? try again") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent(parent: int) -> None:
    """The one who waits for this process hears the signals of a terminal; killed, it can tell nobody."""
    import signal
    from ctypes import CDLL

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if os.uname().sysname == "Linux":
        CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed meanwhile
        os._exit(1)


def _measured_elsewhere(tasks: Sequence[Task], kind: Kind) -> tuple[bytes, list[InputError]]:
    found = [_tried(task, kind) for task in tasks]
    errors = [each for each in found if isinstance(each, InputError)]
    return msgspec.msgpack.encode([each for each in found if isinstance(each, Entry)]), errors


def _tried(task: Task, kind: Kind) -> Entry | InputError:
    try:
        return _measured(task, kind)
    except InputError as error:
        return error


def _measured(task: Task, kind: Kind) -> Entry:
    folder, name, state = task
    run = store.load(folder)
    body = msgspec.Raw(msgspec.msgpack.encode(kind.groups(run)))
    run.check_unread()
    unix_ns = run.manifest.unix_ns
    return Entry(name, state, unix_ns, body, _check(name, state, unix_ns, body))


def _check(name: str, state: State, unix_ns: int, body: msgspec.Raw) -> int:
    return crc32(body, crc32(f"{name} {unix_ns} {state}".encode()))


def _state(folder: str) -> State:
    """Number, size and times of each file that Figures are made of (the change time cannot be set back);
    empty for a run that is not sealed."""
    found: list[int] = []
    for name in FILES:
        try:
            held = os.stat(f"{folder}/{name}")
        except OSError:
            if name == store.MANIFEST:
                return ()
            found.append(-1)
        else:
            found += (held.st_ino, held.st_size, held.st_mtime_ns, held.st_ctime_ns)
    return tuple(found)


# --------------------------------------------------------------------------------------- the file


def _load(home: str, file: str = FILE) -> dict[str, Entry]:
    """What the folder's index holds; nothing where there is none, or it is another program's or damaged."""
    try:
        raw = memoryview(Path(home, file).read_bytes())
        if raw[:DIGEST_BYTES] != _made_with():
            return {}
        return {entry.name: entry for entry in msgspec.msgpack.decode(raw[DIGEST_BYTES:], type=list[Entry])}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _save(home: str, found: dict[str, Entry], file: str = FILE) -> None:
    """Write these entries and those of other runs that are still there; a failure costs time only."""
    own = [entry for entry in found.values() if entry.state]
    others = [
        entry
        for name, entry in _load(home, file).items()
        if name not in found and os.path.exists(f"{home}/{name}/{store.MANIFEST}")
    ]
    with suppress(StoreError), store.replacing(Path(home, file)) as beside:
        beside.write_bytes(_made_with() + msgspec.msgpack.encode([*own, *others]))


def _made_with() -> bytes:
    """A digest of all that Figures depend on beside the runs: this program and the user's GPU sheet."""
    sheet = os.environ.get(catalog.SHEET_VARIABLE, "")
    found = blake2b(_program() + sheet.encode(), digest_size=DIGEST_BYTES)
    with suppress(OSError):
        found.update(Path(sheet).read_bytes() if sheet else b"")
    return found.digest()


@cache
def _program() -> bytes:
    """A digest of the package's files: an edited program has no version of its own."""
    found = blake2b(digest_size=DIGEST_BYTES)
    for at, inside, names in os.walk(PACKAGE):
        inside[:] = sorted(name for name in inside if name not in ("__pycache__", "help"))
        for name in sorted(names):
            found.update(f"{at[len(str(PACKAGE)) :]}/{name}\0".encode())
            found.update(Path(at, name).read_bytes())
    return found.digest()
