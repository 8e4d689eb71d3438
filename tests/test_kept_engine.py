"""Runs that share an engine start."""

from __future__ import annotations

import contextlib
import os
import signal

import msgspec
import psutil
import pytest

from profiler import baselines, calibrate, kept_engine, pace, prepare, routing_pass, store
from profiler.engines.base import RoutingSource, RunningEngine
from profiler.errors import EngineError
from profiler.kept_engine import SHARED, Engines
from profiler.loadgen.worker import LoadWorker
from profiler.measure import CALIBRATED_BEFORE, execute
from profiler.progress import Quiet
from profiler.records import routing_schema
from profiler.schema import Endpoint, EngineFacts, RoutingRecord
from profiler.site import Site
from tests.test_measure import FOUND

BRIEF = (
    "measure.warmup_s=0.1",
    "measure.window_s=0.3",
    "measure.min_requests=3",
    "measure.repeats=1",
    "load.concurrency=2",
    "engine.args.ttft_s=0.01",
    "engine.args.itl_s=0.002",
    "engine.args.prefix_cache_block_tokens=4",
    "workload.input_tokens=32",
    "workload.output_tokens=8",
)


def plan(out, *more):
    asked = prepare.Request(
        models=("sim",), scenario="smoke", engine="simulated", out=out, overrides=[*BRIEF, *more]
    )
    return prepare.prepare(asked)


def calibration(chunks_per_s, concurrency):
    return msgspec.structs.replace(FOUND, chunks_per_s=chunks_per_s, concurrency=concurrency)


def served():
    """The simulated engines that are up."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [child] if child.cmdline()[1:3] == ["-m", "profiler.engines.simulated"] else []
    return found


class Watcher(Quiet):
    """Calls ``then`` in every window."""

    def __init__(self, then=lambda: None):
        self.then = then

    def progress(self, *_):
        self.then()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Two runs of one start and one of another, the engines seen while each was loaded, and those after."""
    out, seen, held = tmp_path_factory.mktemp("runs"), [], []
    calibrated = pytest.MonkeyPatch()
    calibrated.setattr(calibrate, "calibrate_worker", lambda *asked: calibration(*asked[1:3]))
    show = Watcher(lambda: seen.append([each.pid for each in served()]))
    plans = [plan(out), plan(out, "measure.window_s=0.4"), plan(out, "engine.args.itl_s=0.003")]
    with calibrated.context(), LoadWorker() as worker, Engines() as engines:
        for each in plans:
            seen.clear()
            (folder,) = execute(each, show, worker, engines)
            held.append((store.load(folder), {*map(tuple, seen)}, (folder / "engine.log").read_bytes()))
        left = [each.pid for each in served()]
    yield held, left
    calibrated.undo()


def test_runs_of_equal_settings_share_one_engine_and_others_do_not(three):
    held, left = three
    (_, first, _), (_, second, _), (_, third, _) = held
    assert first == second
    assert [len(each) for each in (*first, *third)] == [1, 1], "one at a time"
    assert third == {tuple(left)} != first
    assert served() == []


def test_a_run_says_whose_start_it_shares(three):
    first, second, third = (run.manifest for run, _, _ in three[0])
    assert [each.engine_from for each in (first, second, third)] == [None, first.run_id, None]
    assert second.starts_s == first.starts_s != third.starts_s
    assert [SHARED in each.engine.notes for each in (first, second, third)] == [False, True, False]
    assert second.engine.argv == first.engine.argv
    held_s = [(run.windows[0].closed_ns - run.windows[0].opened_ns) / 1e9 for run in (first, second)]
    assert pace.took_s(first) == pytest.approx(held_s[0] + first.starts_s[0])
    assert pace.took_s(second) == pytest.approx(held_s[1]), "the start is counted once"
    assert all(each.status == "complete" for each in (first, second, third))


def test_each_folder_has_the_log_up_to_its_own_end(three):
    (first, _, log), (_, _, longer), _ = three[0]
    assert b"listening" in log
    assert longer.startswith(log)
    assert (first.folder / "engine.log").read_bytes() == log, "a sealed folder changes no more"


def test_no_prompt_of_a_run_was_sent_by_the_one_before(three):
    """The engine has a prefix cache, which knows every prompt so far."""
    for run, _, _ in three[0]:
        cached = [each for each in run.requests["cached_tokens"].to_pylist() if each is not None]
        assert len(cached) > 4
        assert max(cached) < 32 / 2


def test_the_client_is_calibrated_once_for_like_loads(three):
    notes = [run.manifest.engine.notes for run, _, _ in three[0]]
    assert [CALIBRATED_BEFORE in each for each in notes] == [False, True, True]
    first, second, _ = (run.manifest.calibration for run, _, _ in three[0])
    assert first == second


@pytest.mark.parametrize(
    ("rate", "streams", "age_s", "stands"),
    [
        (100.0, 8, 0.0, True),
        (109.0, 8, 0.0, True),  # rates scatter
        (120.0, 8, 0.0, False),  # harder than it was calibrated for
        (51.0, 8, 0.0, True),
        (45.0, 8, 0.0, False),  # so much easier that it says little
        (100.0, 16, 0.0, False),
        (100.0, 2, 0.0, False),
        (100.0, 8, calibrate.FRESH_S + 1, False),
    ],
)
def test_which_calibration_stands_for_another(monkeypatch, rate, streams, age_s, stands):
    worker = LoadWorker()
    done = calibration(100.0, 8)
    worker.calibrations.append((calibrate.time.monotonic() - age_s, done))
    assert calibrate.earlier(worker, rate, streams) == (done if stands else None)


def test_idle_baselines_are_those_of_the_start(tmp_path, monkeypatch):
    """A later run has them with the samples they are read from; its own sampler saw none of them."""
    monkeypatch.setenv("PROFILER_SIMULATED_NVML", "h100")
    monkeypatch.setattr(baselines, "SETTLE_S", 0.1)
    monkeypatch.setattr("profiler.measure._calibrate", lambda *_: None)
    with LoadWorker() as worker, Engines() as engines:
        runs = [
            store.load(execute(plan(tmp_path, "telemetry.idle_s=1", size), Quiet(), worker, engines)[0])
            for size in ("workload.output_tokens=8", "workload.output_tokens=12")
        ]
    first, second = runs
    assert [each.kind for each in second.manifest.baselines] == ["bare", "context", "loaded"]
    assert second.manifest.baselines == first.manifest.baselines
    assert second.manifest.baselines[-1].end_ns < second.manifest.clock_ns
    idle = Site(first).idle, Site(second).idle
    assert idle[0].kind == idle[1].kind == "loaded"
    power = [each.power_w[0] for each in idle]
    assert power[0].value == power[1].value
    assert power[0].low == pytest.approx(power[1].low, rel=1e-2)
    between = [each.windows[0].opened_ns for each in (first.manifest, second.manifest)]
    times = second.samples["t_ns"].to_numpy()
    margin_ns = 2 * kept_engine.AROUND_NS
    assert not ((times > between[0] + margin_ns) & (times < second.manifest.clock_ns)).any()


def test_only_whole_lines_of_the_spans_are_taken_and_no_more_is_read():
    around = kept_engine.AROUND_NS
    times = [0, 5, 6, 20, 15, 21 + around, 7]
    lines = [b"%d\tgpu:x\tpower_w\t1\n" % each for each in times]
    assert list(kept_engine._within(lines, [(5, 6), (14, 20)])) == [lines[each] for each in (1, 2, 3, 4)]
    assert list(kept_engine._within([lines[1], b"6\tgpu:x\tpow"], [(5, 6)])) == lines[1:2]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "no space left")])
def test_an_engine_under_which_a_run_failed_serves_no_other(tmp_path, stop):
    def fail():
        raise stop

    with LoadWorker() as worker, Engines() as engines:
        with pytest.raises(type(stop)):
            execute(plan(tmp_path), Watcher(fail), worker, engines)
        assert served() == []
        (folder,) = tmp_path.iterdir()
        assert b"listening" in (folder / "engine.log").read_bytes()
        assert store.load(folder).manifest.status != "complete"


def test_an_engine_that_died_between_runs_fails_the_next_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("profiler.measure._calibrate", lambda *_: None)
    with LoadWorker() as worker, Engines() as engines:
        execute(plan(tmp_path), Quiet(), worker, engines)
        os.kill(served()[0].pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="simulated died"):
            execute(plan(tmp_path), Quiet(), worker, engines)
        (folder,) = execute(plan(tmp_path), Quiet(), worker, engines)
    assert store.load(folder).manifest.engine_from is None


def test_experts_that_need_an_engine_of_their_own_are_recorded_once_the_last_run_is_held(
    tmp_path, monkeypatch
):
    """One such engine for all runs of the start, and never beside the timed one."""
    opened = []

    @contextlib.contextmanager
    def recorder(_, model, folder, say):
        opened.append((served(), folder.is_dir()))
        yield RunningEngine(
            endpoint=Endpoint(base_url="http://h/v1", model=model.name),
            facts=EngineFacts(kind="simulated", version=None, device="none"),
            routing=RoutingSource(says="a fake", layers=(0,), experts=4, ask=lambda *_: None),
        )

    def record(source, scenario, *_):
        tokens = scenario.workload.input_tokens
        return routing_schema(1, 2).empty_table(), RoutingRecord(
            source=source.says, routing="model", requests=1, tokens=tokens, layers=(0,), experts=4,
            experts_per_token=2,
        )  # fmt: skip

    monkeypatch.setattr(routing_pass, "missing", lambda *_: routing_pass.NOT_YET)
    monkeypatch.setattr(routing_pass, "record", record)
    monkeypatch.setattr(kept_engine, "open_recorder", recorder)
    monkeypatch.setattr("profiler.measure._calibrate", lambda *_: None)
    with LoadWorker() as worker, Engines() as engines:
        folders = [
            execute(plan(tmp_path, f"workload.input_tokens={tokens}"), Quiet(), worker, engines)[0]
            for tokens in (16, 24)
        ]
        assert opened == []
        assert store.load(folders[0]).manifest.routing_missing == routing_pass.NOT_YET
    assert opened == [([], True)]
    runs = [store.load(folder) for folder in folders]
    assert [run.manifest.routing.tokens for run in runs] == [16, 24]
    assert [run.manifest.status for run in runs] == ["complete"] * 2
    assert not any((folder / store.JOURNAL).exists() for folder in folders)


def test_several_models_take_turns_with_no_kept_engine(tmp_path):
    one = plan(tmp_path)
    two = msgspec.structs.replace(one, models=one.models * 2, settings=one.settings * 2)
    with Engines() as engines, pytest.raises(AssertionError):
        execute(two, Quiet(), None, engines)
