"""What a sweep makes of starts that fail, are disturbed or lost, and how it ends; by an engine that takes no
time, and by executors that are made up."""

from __future__ import annotations

import dataclasses
import errno
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from profiler import figures, store
from profiler.errors import EngineError, InputError, StoreError
from profiler.nvml import holding as gpu_holding
from profiler.nvml.holding import TakenError
from profiler.progress import Quiet
from profiler.storage import open_home
from profiler.store import writing
from profiler.sweep import holding, ledger, one
from profiler.sweep.nouns import Attempt, Began, Ended, Place
from profiler.sweep.session import planned
from tests.sweep import few
from tests.trials.fake import Engine

pytestmark = pytest.mark.usefixtures("undisturbed")

MODELS, LOADS = ("test/quick", "test/slow"), (1, 2)


@dataclasses.dataclass
class Bench:
    """A sweep on the engine that takes no time; ``before`` is called with the plan of every run, ``at`` with
    every load of test/quick."""

    folder: Path
    before: Callable = lambda plan: None
    at: Callable = lambda load: 1.0
    heard: list = dataclasses.field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "results"

    def execute(self, plan, show, worker=None, engines=None):
        self.engine.before = lambda _: self.before(plan)
        return self.engine(plan, show)

    def hold(self, file: Path, **changes) -> holding.Ending:
        self.engine = Engine(2.0, at=self.at)
        with planned(few.request(file, self.out, **changes)) as session:
            return session.hold(Quiet(), lambda news, record: self.heard.append(news))

    def outcomes(self) -> Counter[str]:
        return Counter(each.outcome for each in few.record(self.out).attempts)

    def sealed(self) -> dict[str, int]:
        """Run folders and when they were sealed."""
        return {
            name: (self.out / name / store.MANIFEST).stat().st_mtime_ns for name in store.within(self.out)
        }


@pytest.fixture
def bench(tmp_path, monkeypatch):
    found = Bench(tmp_path)
    monkeypatch.setattr(one, "execute", found.execute)
    return found


def test_all_is_held_once_and_nothing_again(bench):
    file = few.write(bench.folder, MODELS, LOADS, starts=2)
    ending = bench.hold(file)
    assert ending.by is None
    assert few.cells(bench.out) == few.whole(MODELS, LOADS, 2)
    assert ending.record == few.record(bench.out)
    assert [type(each) for each in bench.heard] == [Began, Ended] * 4
    place = ending.record.attempts[0].place
    assert place.machine["cores"]
    assert place.node is None
    before = bench.sealed()
    assert bench.hold(file).record == ending.record
    assert bench.sealed() == before


def test_a_file_that_has_grown_keeps_what_it_has(bench):
    bench.hold(few.write(bench.folder, MODELS[:1], (1,), starts=1))
    before = bench.sealed()
    bench.hold(few.write(bench.folder, MODELS, LOADS, starts=2))
    assert few.cells(bench.out) == few.whole(MODELS, LOADS, 2)
    assert before.items() <= bench.sealed().items()
    bench.hold(few.write(bench.folder, MODELS[1:], (1,), starts=1))  # what is not asked for any more stays
    assert few.cells(bench.out) == few.whole(MODELS, LOADS, 2)


def test_a_board_that_others_measure_on_ends_the_sweep_and_is_no_failure(bench):
    def before(plan):
        if plan.models[0].name == "test/slow":
            raise TakenError("GPU-1", "process 7")

    bench.before = before
    file = few.write(bench.folder, MODELS, LOADS, starts=2)
    with pytest.raises(InputError, match="GPU-1 is being measured by process 7"):
        bench.hold(file)
    assert "failed" not in bench.outcomes()
    assert not few.record(bench.out).under_way
    bench.before = lambda plan: None
    bench.hold(file)
    assert few.cells(bench.out) == few.whole(MODELS, LOADS, 2)


def test_boards_are_held_from_the_first_start_of_a_sweep_to_its_last(bench, monkeypatch):
    bench.folder.chmod(0o1777)
    monkeypatch.setattr(gpu_holding, "FOLDERS", (str(bench.folder),))
    locks = []

    def before(plan):
        locks.append(len(list(bench.folder.glob("*.lock"))))
        with gpu_holding.held(["GPU-1"], plan.out):
            pass

    bench.before = before
    bench.hold(few.write(bench.folder, MODELS, LOADS, starts=1))
    assert locks[0] == 0
    assert set(locks[1:]) == {1}
    assert not list(bench.folder.glob("*.lock"))


def test_what_fails_is_held_again_with_a_limit_and_the_rest_goes_on(bench):
    def before(plan):
        if plan.models[0].name == "test/slow":
            raise EngineError("no such kernel", ["line of a log"])

    bench.before = before
    file = few.write(bench.folder, MODELS, LOADS, starts=1, head="retries = 2")
    ending = bench.hold(file)
    assert few.cells(bench.out) == few.whole(MODELS[:1], LOADS, 1)
    assert bench.outcomes() == {"held": 1, "failed": 3}
    failed = [each for each in ending.record.attempts if each.outcome == "failed"]
    assert failed[0].why == "no such kernel\nline of a log"
    aside = {each.name for each in (bench.out / ledger.aside_of("few")).iterdir()}
    assert {run for each in failed for run in each.runs} == aside
    assert bench.hold(file).record == ending.record  # not again, unless
    bench.before = lambda plan: None
    bench.hold(file, retry_failed=True)
    assert few.cells(bench.out) == few.whole(MODELS, LOADS, 1)


def test_what_nobody_foresaw_is_a_failed_start_too(bench):
    def before(plan):
        if not bench.heard[2:]:
            raise ValueError("unpacking")

    bench.before = before
    bench.hold(few.write(bench.folder, MODELS, LOADS, starts=1))
    assert few.cells(bench.out) == few.whole(MODELS, LOADS, 1)
    assert [each.why for each in few.record(bench.out).attempts if each.why] == ["ValueError: unpacking"]


def test_what_is_sealed_of_a_start_that_failed_counts(bench):
    """Two scenarios share an engine start, and the second breaks it."""
    broken = []

    def before(plan):
        if plan.scenario.workload.input_tokens == 20 and not broken:
            broken.append(plan)
            raise EngineError("it died")

    bench.before = before
    axis = '"workload.input_tokens" = [10, 20]\n'
    file = few.write(bench.folder, MODELS[:1], LOADS, starts=1)
    file.write_text(file.read_text().replace("[set]", axis + "[set]"))
    ending = bench.hold(file)
    parts = [(each.outcome, len(each.cells)) for each in ending.record.attempts]
    assert parts == [("held", 2), ("failed", 1), ("cut short", 1), ("held", 2)]
    assert few.cells(bench.out) == {("test/quick", load): 2 for load in LOADS}


def test_a_load_that_breaks_the_engine_spoils_no_other(bench):
    """Three loads of one run folder; the second is too much."""

    def at(load):
        if load == 2:
            raise EngineError("out of memory\nat length")
        return 1.0

    bench.at = at
    file = few.write(bench.folder, MODELS[:1], (1, 2, 4), starts=2, head="retries = 1")
    ending = bench.hold(file)
    assert few.cells(bench.out) == few.whole(MODELS[:1], (1, 4), 2)
    assert all(run.manifest.status == "complete" for run in store.find([bench.out]))
    failed = [each for each in ending.record.attempts if each.outcome == "failed"]
    assert {each.why for each in failed} == {"out of memory\nat length"}
    assert len({each.cells for each in failed}) == 1
    assert [len(each.cells) for each in failed] == [1, 1]  # as often as any: once, and one retry
    notes = [note for run in store.find([bench.out]) for note in run.manifest.engine.notes]
    assert "sealed with 1 of 3 loads: out of memory" in notes
    bench.at = lambda load: 1.0
    bench.hold(file, retry_failed=True)
    assert few.cells(bench.out) == few.whole(MODELS[:1], (1, 2, 4), 2)


def test_of_a_run_that_was_broken_off_the_finished_loads_count(bench):
    def at(load):
        if load == 4:
            raise KeyboardInterrupt
        return 1.0

    bench.at = at
    file = few.write(bench.folder, MODELS[:1], (1, 2, 4), starts=1)
    with pytest.raises(KeyboardInterrupt):
        bench.hold(file)
    assert few.cells(bench.out) == few.whole(MODELS[:1], (1, 2), 1)
    before = bench.sealed()
    bench.at = lambda load: 1.0
    ending = bench.hold(file)
    assert few.cells(bench.out) == few.whole(MODELS[:1], (1, 2, 4), 1)
    assert before.items() <= bench.sealed().items()
    assert [len(each.cells) for each in ending.record.attempts] == [2, 1, 1]


def test_what_is_disturbed_at_every_start_is_put_up_with_at_all_of_them(bench, monkeypatch):
    monkeypatch.setattr(figures, "disturbed", lambda _: "the client was the limit")
    bench.hold(few.write(bench.folder, MODELS[:1], LOADS, starts=4))
    assert bench.outcomes() == {"disturbed": 2, "held": 4}


def test_what_is_disturbed_is_held_again_until_it_is_put_up_with(bench, monkeypatch):
    monkeypatch.setattr(figures, "disturbed", lambda _: "others used the GPUs")
    ending = bench.hold(few.write(bench.folder, MODELS[:1], LOADS, starts=1))
    assert [each.outcome for each in ending.record.attempts] == ["disturbed", "disturbed", "held"]
    assert {each.why for each in ending.record.attempts} == {"others used the GPUs"}
    assert few.cells(bench.out) == few.whole(MODELS[:1], LOADS, 1)


def test_a_run_in_which_nothing_succeeded_does_not_count(bench, monkeypatch):
    monkeypatch.setattr(
        figures,
        "of_run",
        lambda run, known=figures.of_run: [
            replace(each, facts={**each.facts, "requests_ok": 0}) for each in known(run)
        ],
    )
    bench.hold(few.write(bench.folder, MODELS[:1], (1,), starts=1, head="retries = 0"))
    assert [each.why for each in few.record(bench.out).attempts] == [one.NOTHING_ANSWERED]
    assert not few.cells(bench.out)


@pytest.mark.parametrize(
    "error", [StoreError("cannot write: No space left"), KeyboardInterrupt(), OSError(errno.EIO, "broken")]
)
def test_what_ends_it_leaves_it_to_be_gone_on_with(bench, error):
    def before(plan):
        if len(bench.heard) > 2:
            raise error

    bench.before = before
    file = few.write(bench.folder, MODELS, LOADS, starts=1, head="retries = 0")
    if isinstance(error, OSError):  # of one start: an engine's pipe may break
        bench.hold(file)
        assert bench.outcomes() == {"held": 1, "failed": 1}
        return
    with pytest.raises(type(error)):
        bench.hold(file)
    assert bench.outcomes() == {"held": 1, "cut short": 1}
    assert few.record(bench.out).under_way == ()
    bench.before = lambda plan: None
    bench.hold(file)
    assert few.cells(bench.out) == few.whole(MODELS, LOADS, 1)


def test_a_full_disk_ends_the_sweep_and_fails_no_start(bench, monkeypatch):
    file = few.write(bench.folder, MODELS, LOADS, starts=1)
    is_full = [False]
    known = writing.write_json

    def write_json(path, value):
        if is_full[0]:
            raise StoreError(f"cannot write {path}: No space left on device")
        known(path, value)

    def writes(home, record, known=ledger.write):
        if is_full[0]:
            raise StoreError("cannot write the record: No space left on device")
        known(home, record)

    def before(plan):
        is_full[0] = len(bench.heard) > 2
        raise EngineError("the log cannot be written") if is_full[0] else None

    def check_writable(out, need_bytes=0):
        if is_full[0]:
            raise InputError(f"{out} has 0 MiB free")

    bench.before = lambda plan: None if len(bench.heard) < 3 else before(plan)
    monkeypatch.setattr(writing, "write_json", write_json)
    monkeypatch.setattr(ledger, "write", writes)
    monkeypatch.setattr(store, "check_writable", check_writable)
    with pytest.raises(StoreError):
        bench.hold(file)
    is_full[0] = False
    bench.before = lambda plan: None
    bench.hold(file)
    assert few.cells(bench.out) == few.whole(MODELS, LOADS, 1)
    assert not bench.outcomes()["failed"]


def test_a_record_that_cannot_be_read_is_said_before_anything_starts(bench):
    file = few.write(bench.folder, MODELS, LOADS, starts=1)
    home = open_home(bench.out)
    home.write(ledger.path_of("few"), b"{")
    with pytest.raises(InputError, match=r"few\.json: this record of a sweep cannot be read"):
        bench.hold(file)
    home.write(ledger.path_of("few"), b'{"version": 99}')
    with pytest.raises(InputError, match="version 99, this profiler reads up to 1"):
        bench.hold(file)
    assert not store.within(bench.out)


# --------------------------------------------------------------------------------- made-up machines


class Machines:
    """So many places, in which starts are held at once when their news are asked for, and take ``took_s``;
    the first ``losses`` are lost."""

    def __init__(self, places: int, losses: int = 0, took_s: float = 1.0) -> None:
        self.places, self.losses, self.took_s = places, losses, took_s
        self.waiting: list = []
        self.most = 0
        self.asked: list = []
        self.is_closed = False

    def takes(self, visit):
        return len(self.waiting) < self.places

    def submit(self, visit, noted):
        self.waiting.append((visit, noted))
        self.most = max(self.most, len(self.waiting))

    def news(self, timeout_s):
        waiting, self.waiting = self.waiting, []
        for visit, noted in waiting:
            for start in visit.starts:
                place = Place(machine={}, node="node-1")
                yield Began(start, place)
                yield Ended(start, (self._attempt(start, noted[start.key], place),))

    def _attempt(self, start, noted, place):
        self.losses -= 1
        return Attempt(
            key=start.key,
            cells=start.cells,
            number=start.number,
            outcome="lost" if self.losses >= 0 else "held",
            utc=noted.utc,
            took_s=self.took_s,
            place=place,
        )

    def recover(self, under_way):
        self.asked = list(under_way)

    def close(self):
        self.is_closed = True


def held_on(bench, executor, budget=None, **file) -> holding.Ending:
    path = few.write(bench.folder, MODELS, LOADS, **file)
    with planned(few.request(path, bench.out, budget=budget)) as session:
        return holding.hold(session.outline, session.home, executor, lambda news, record: None)


def test_every_place_has_a_visit_and_every_start_is_held_once(bench):
    executor = Machines(3)
    ending = held_on(bench, executor, starts=4)
    assert executor.most == 3
    assert executor.is_closed
    times = Counter((cell, each.number) for each in ending.record.attempts for cell in each.cells)
    assert len(times) == 4 * 4
    assert set(times.values()) == {1}
    assert ending.record.spent_s == 8.0


def test_the_budget_ends_it_between_visits_and_a_larger_one_goes_on(bench):
    """Each start takes 20 s, far more than was announced: the third pair would go beyond a minute and a half,
    at the pace so far."""
    ending = held_on(bench, Machines(1, took_s=20.0), budget="90s", starts=3)
    assert ending.by == "budget"
    assert ending.record.spent_s == 80.0
    assert len(ending.record.attempts) == 4  # pairs are whole
    ending = held_on(bench, Machines(1, took_s=20.0), budget="125s", starts=3)
    assert ending.by is None
    assert ending.record.spent_s == 120.0


def test_what_is_lost_with_its_machine_goes_to_another_and_is_no_failure(bench):
    ending = held_on(bench, Machines(1, losses=3), starts=1, head="retries = 0")
    assert Counter(each.outcome for each in ending.record.attempts) == {"lost": 3, "held": 2}
    assert ending.by is None


def test_it_ends_where_no_machine_takes_what_is_left(bench, monkeypatch):
    monkeypatch.setattr(holding, "PATIENCE_S", 0.05)
    assert held_on(bench, Machines(0), starts=1).by == "machines"


def test_what_was_given_to_another_machine_is_asked_for_there_by_the_next_driver(bench):
    class Dying(Machines):
        def news(self, timeout_s):
            visit, _ = self.waiting[0]
            yield Began(visit.starts[0], Place(machine={}, node="node-1"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        held_on(bench, Dying(1), starts=1)
    (left,) = few.record(bench.out).under_way  # the other was not begun
    assert left.node == "node-1"
    executor = Machines(1)
    held_on(bench, executor, starts=1)
    assert executor.asked == [left]
    assert few.record(bench.out).under_way == ()
