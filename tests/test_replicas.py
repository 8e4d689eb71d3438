"""Engine starts: figures of their own, made once and kept beside the runs."""

from __future__ import annotations

import json

import pytest

from profiler import figures, replicas, store
from tests import make


@pytest.fixture
def folder(tmp_path):
    """A sealed run of two engine starts with one window each."""
    windows = [make.steady(place, 10.0 * (place + 1), requests=20 + 5 * place) for place in range(2)]
    run = make.writer(tmp_path, [(w, r) for w, r in _of_starts(windows)], run_id="two")
    run.seal()
    return run.folder


def _of_starts(windows):
    from msgspec.structs import replace

    return [
        (replace(window, engine_start=place, repeat=place), requests)
        for place, (window, requests) in enumerate(windows)
    ]


def truth(folder):
    return [list(figures.of_run(part)) for part in replicas.starts([store.load(folder)])]


def test_each_start_has_its_own_figures_the_index_the_same(folder):
    first = replicas.figures_of_starts([store.load(folder)])
    second = replicas.figures_of_starts([store.load(folder)])
    for found in (first, second):
        assert [part.manifest.windows[0].engine_start for part, _ in found] == [0, 1]
        assert [each for _, each in found] == truth(folder)
    assert truth(folder)[0] != truth(folder)[1]


def kept(folder, monkeypatch) -> bool:
    """Whether figures of starts come without being made."""

    def refuse(_):
        raise AssertionError("made anew")

    with monkeypatch.context() as patched:
        patched.setattr(figures, "of_run", refuse)
        try:
            replicas.figures_of_starts(store.find([folder.parent]))
        except AssertionError:
            return False
    return True


def test_of_a_folder_of_runs_they_are_kept(folder, monkeypatch):
    monkeypatch.setattr("profiler.index.WORTH_KEEPING", 1)
    assert not kept(folder, monkeypatch)
    replicas.figures_of_starts([store.load(folder)])
    assert (folder.parent / replicas.STARTS.file).is_file()
    assert kept(folder, monkeypatch)
    (folder / store.REQUESTS).touch()
    assert not kept(folder, monkeypatch), "its files have changed"


def test_a_run_that_is_not_as_on_disk_is_measured_as_it_is(folder, monkeypatch):
    monkeypatch.setattr("profiler.index.WORTH_KEEPING", 1)
    replicas.figures_of_starts([store.load(folder)])
    whole = store.load(folder)
    manifest = folder / store.MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"status": "failed"}))
    make.written_again(folder)
    (one, _), (two, _) = replicas.figures_of_starts([whole])
    assert (one.manifest.status, two.manifest.status) == ("complete", "complete")
    assert {each.facts["status"] for _, found in replicas.figures_of_starts([whole]) for each in found} == {
        "complete"
    }
    failed = replicas.figures_of_starts([store.load(folder)])
    assert {each.facts["status"] for _, found in failed for each in found} == {"failed"}
