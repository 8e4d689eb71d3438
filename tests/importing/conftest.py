"""Files as the tools wrote them (data/README.md), and what becomes of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from profiler import importing, metrics, store
from profiler.importing import Given

DATA = Path(__file__).parent / "data"


@pytest.fixture
def real(tmp_path):
    """A file of a tool's by its stored name; what AIPerf writes is called as AIPerf calls it, in a folder."""

    def unpacked(name: str) -> Path:
        run, _, own = name.partition(".") if name.startswith("aiperf_") else ("", "", name)
        folder, stored = tmp_path / "files" / run, f"{name}.gz"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / own
        path.write_bytes(gzip.decompress((DATA / stored).read_bytes()))
        return path

    return unpacked


@pytest.fixture
def imported(real, tmp_path):
    """The runs of a stored file, loaded from the folders they were sealed in."""

    def runs(name: str | Path, **given):
        path = real(name) if isinstance(name, str) else name
        written = importing.run_folders(path, tmp_path / "results", Given(**given))
        return [store.load(run.folder) for run in written]

    return runs


@pytest.fixture
def points(imported):
    """The load points of the one run of a stored file."""

    def measured(name, **given):
        (run,) = imported(name, **given)
        return metrics.points(run)

    return measured
