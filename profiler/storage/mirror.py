"""Runs of an object store, brought to this machine to be read: each once.

In a process of its own (``python -m profiler.storage.mirror ADDRESS`` prints the folder), for the threads of
an object store's client do not go with processes that are forked later.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from profiler import disk, store
from profiler.errors import InputError, ProfilerError
from profiler.storage import open_home, places
from profiler.storage.local import INCOMING, locked_patiently
from profiler.storage.objects import Objects, Size
from profiler.storage.remote import AT_ONCE, manifests


def local(where: str) -> Path:
    """The folder of this machine to read ``where`` from: itself, or a copy of its sealed runs.

    Raises InputError where it cannot be read or holds no sealed run.
    """
    folder = open_home(where).folder
    if folder is not None:
        return folder
    done = subprocess.run(
        [sys.executable, "-m", "profiler.storage.mirror", where],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(done.stdout.strip() or f"{where} could not be read")
    return Path(done.stdout.strip())


def bring(where: str) -> Path:
    """See :func:`local`."""
    address, question, options = where.partition("?")
    address = address.rstrip("/")
    whole_address = address + question + options
    files = Objects(whole_address, patient=False).files()
    if store.MANIFEST in files:
        parent, _, run = address.rpartition("/")
        whole = {f"{run}/{name}": size for name, size in files.items()}
        return _bring_all(Objects(parent + question + options, patient=True), whole, is_all=False) / run
    if not manifests(files):
        raise InputError(f"{where} holds no sealed run; is the address right?")
    return _bring_all(Objects(whole_address, patient=True), files, is_all=True)


def _bring_all(objects: Objects, files: Mapping[str, Size], is_all: bool) -> Path:
    """Runs that are here in full stay, those that are no longer there go."""
    folder = places.cached("mirrors", objects.where)
    runs = manifests(files)
    with locked_patiently(folder / ".lock"):
        for name in store.within(folder) if is_all else ():
            if name not in runs:
                shutil.rmtree(folder / name)
        missing = sorted(run for run in runs if not _is_here(folder / run, _measured(files, run)))
        if missing:
            bytes_ = sum(size.size_bytes for name, size in files.items() if name.split("/")[0] in missing)
            _say(f"bringing {len(missing)} of {len(runs)} runs of {objects.where} ({bytes_ / 1e6:.1f} MB)")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda run: _bring_run(objects, files, folder, run), missing))
            list(pool.map(lambda name: _bring_file(objects, folder, name), _records(files, runs)))
    return folder


def _measured(files: Mapping[str, Size], run: str) -> dict[str, Size]:
    """The files that a sealed run consists of, by their names in its folder."""
    return {
        name: files[f"{run}/{name}"] for name in (store.MANIFEST, *store.TABLES) if f"{run}/{name}" in files
    }


def _is_here(folder: Path, files: Mapping[str, Size]) -> bool:
    """By size and time of each: what was written anew there, or changed here, is brought anew."""
    for name, there in files.items():
        path = folder / name
        if not path.exists():
            return False
        held = path.stat()
        if (held.st_size, held.st_mtime_ns) != (there.size_bytes, int(there.at_s) * 10**9):
            return False
    return True


def _records(files: Mapping[str, Size], runs: set[str]) -> list[str]:
    """What is kept beside the runs: records of sweeps and of trials of claims."""
    parts = ((name, name.split("/")) for name in files)
    return [name for name, each in parts if len(each) == 2 and name.endswith(".json") and each[0] not in runs]


def _bring_run(objects: Objects, files: Mapping[str, Size], folder: Path, run: str) -> None:
    beside = folder / INCOMING / run
    shutil.rmtree(beside, ignore_errors=True)
    for name in files:
        if name.startswith(f"{run}/"):
            path = folder / INCOMING / name
            path.parent.mkdir(parents=True, exist_ok=True)
            objects.download(name, str(path))
    for name, there in _measured(files, run).items():
        os.utime(beside / name, (int(there.at_s), int(there.at_s)))
    disk.sync_all(beside)
    shutil.rmtree(folder / run, ignore_errors=True)
    os.replace(beside, folder / run)


def _bring_file(objects: Objects, folder: Path, name: str) -> None:
    content = objects.read(name)
    if content is not None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.replacing(path) as beside:
            beside.write_bytes(content)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def main(where: str) -> int:
    """Print the folder, or what is wrong."""
    try:
        answer, code = str(bring(where)), 0
    except ProfilerError as error:
        answer, code = str(error), error.exit_code
    print(answer)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
