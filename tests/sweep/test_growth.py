"""A file that is edited between two goes: what is missing is held, and what there was is not touched."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from profiler import comparison, store
from profiler.errors import EngineError
from profiler.progress import Quiet
from profiler.sweep import one
from profiler.sweep.session import planned
from tests.sweep import few
from tests.trials.fake import Engine

A, B, C = "test/quick", "test/slow", "test/third"


class Folder:
    """Results and the engine that fills them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.out = path / "results"
        self.engine = Engine(2.0)

    def go(self, *models: str, loads=(1,), starts: int = 1, again: bool = False, **more) -> list[tuple]:
        """What was held of this file, (model, loads) of each run in turn; all it asks for is there then."""
        before = {each: (self.out / each / store.MANIFEST).read_bytes() for each in store.within(self.out)}
        file = few.write(self.path, models, loads, starts, **more)
        with planned(few.request(file, self.out, retry_failed=again)) as session:
            session.hold(Quiet(), lambda news, record: None)
        for run, manifest in before.items():
            assert (self.out / run / store.MANIFEST).read_bytes() == manifest
        new = sorted({*store.within(self.out)} - before.keys())
        held = [store.load(self.out / run).manifest for run in new]
        return sorted((each.model.name, tuple(w.point.concurrency for w in each.windows)) for each in held)

    def __call__(self, plan, show, worker=None, engines=None) -> list[Path]:
        return self.engine(plan, show)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    found = Folder(tmp_path)
    monkeypatch.setattr(one, "execute", found)
    return found


def test_a_file_that_grows_is_held_for_what_is_new_alone(folder):
    assert folder.go(A, loads=[1]) == [(A, (1,))]
    assert folder.go(A, loads=[1]) == []
    assert folder.go(A, loads=[2, 1]) == [(A, (2,))]
    assert folder.go(A, B, loads=[2, 1]) == [(B, (2, 1))]
    assert folder.go(B, A, loads=[1, 2], starts=2) == [(A, (1, 2)), (B, (1, 2))]
    assert folder.go(B, A, loads=[1, 2, 4], starts=2) == [*[(A, (4,))] * 2, *[(B, (4,))] * 2]
    assert few.cells(folder.out) == few.whole((A, B), (1, 2, 4), starts=2)
    runs = store.find([folder.out])
    rows = comparison.summarise(runs)
    assert len(rows) == 2 * 3 * 2  # models, loads, starts: each once


def test_what_is_no_longer_asked_for_stays_and_counts_when_it_is_again(folder):
    folder.go(A, B, loads=[1, 2], starts=2)
    assert folder.go(A, loads=[2]) == []
    assert folder.go(A, C, loads=[2]) == [(C, (2,))]
    assert folder.go(A, B, C, loads=[1, 2], starts=2) == [(C, (1,)), (C, (1, 2))]
    assert few.cells(folder.out) == few.whole((A, B, C), (1, 2), starts=2)


def test_a_sweep_that_was_interrupted_may_grow_before_it_goes_on(folder):
    def stop(held: int) -> None:
        if held == 3:
            raise KeyboardInterrupt

    folder.engine.before = stop
    with pytest.raises(KeyboardInterrupt):
        folder.go(A, B, loads=[1, 2], starts=3)
    assert len(store.within(folder.out)) == 3
    folder.engine.before = lambda _: None
    folder.go(A, B, C, loads=[1, 2, 4], starts=3)
    assert few.cells(folder.out) == few.whole((A, B, C), (1, 2, 4), starts=3)
    assert few.record(folder.out).under_way == ()


def test_settings_that_change_what_is_measured_are_other_cells(folder):
    folder.go(A, loads=[1])
    assert folder.go(A, loads=[1], **{"measure.window_s": 0.4}) == [(A, (1,))]
    assert folder.go(A, loads=[1], **{"measure.window_s": "200ms"}) == []  # as at first, spelt otherwise
    assert Counter(each.outcome for each in few.record(folder.out).attempts) == {"held": 2}


def test_what_failed_too_often_is_left_out_until_it_is_asked_for(folder):
    def fail(_: int) -> None:
        raise EngineError("there is no such engine")

    folder.engine.before = fail
    assert folder.go(A, loads=[1], starts=3, head="retries = 1") == []
    failed = few.record(folder.out).attempts
    assert [(each.outcome, each.why) for each in failed] == [("failed", "there is no such engine")] * 2
    folder.engine.before = lambda _: None
    assert folder.go(A, loads=[1], starts=3, head="retries = 1") == []
    assert folder.go(A, B, loads=[1], starts=3, head="retries = 1") == [(B, (1,))] * 3
    assert folder.go(A, B, loads=[1], starts=3, head="retries = 1", again=True) == [(A, (1,))] * 3
    assert few.cells(folder.out) == few.whole((A, B), (1,), starts=3)
