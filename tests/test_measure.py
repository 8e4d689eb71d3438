from __future__ import annotations

import os
import signal
from itertools import groupby
from types import SimpleNamespace

import msgspec
import pytest

from profiler import measure, metrics, prepare, records, search, store, warming
from profiler.adaptive import Precision
from profiler.client import Calibration, ClientAudit
from profiler.errors import EngineError, InputError, LoadError, MeasurementError, describe
from profiler.loadgen.worker import LoadWorker
from profiler.measure import _not_half_way, schedule
from profiler.prepare import without_secrets
from profiler.progress import Quiet
from profiler.schema import Endpoint, EngineFacts, LoadPoint, ProbeStatus
from profiler.settings import EngineSettings
from profiler.subject import Slot, Subject
from profiler.windows import WindowView
from tests import make

ONE, EIGHT = LoadPoint(mode="closed", concurrency=1), LoadPoint(mode="closed", concurrency=8)


def test_resident_models_alternate_window_by_window():
    order = [
        (s.repeat, s.point.concurrency, s.subject) for s in schedule(2, [ONE, EIGHT], 2, exclusive=False)
    ]
    assert order == [(0, 1, 0), (0, 1, 1), (0, 8, 0), (0, 8, 1), (1, 1, 1), (1, 1, 0), (1, 8, 1), (1, 8, 0)]


def test_exclusive_models_alternate_by_engine_start():
    slots = list(schedule(2, [ONE, EIGHT], 3, exclusive=True))
    blocks = [subject for subject, _ in groupby(slots, key=lambda s: (s.repeat, s.subject))]
    assert [subject for _, subject in blocks] == [0, 1, 1, 0, 0, 1]
    assert all(len(list(held)) == 2 for _, held in groupby(slots, key=lambda s: (s.repeat, s.subject)))


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("subjects", [1, 2, 3])
def test_every_window_is_held_exactly_once(subjects, exclusive):
    slots = list(schedule(subjects, [ONE, EIGHT], 4, exclusive))
    assert len(slots) == len(set(slots)) == subjects * 2 * 4


def test_no_model_is_always_first():
    firsts = {next(iter(g)).subject for _, g in groupby(schedule(3, [ONE], 3, False), key=lambda s: s.repeat)}
    assert firsts == {0, 1, 2}


def test_secrets_are_left_out_and_the_rest_kept():
    nested = {"model_loader_extra_config": {"token": "x", "workers": 2}, "api-key": "x", "key_env": "MY_KEY"}
    settings = EngineSettings(
        env={"HF_TOKEN": "x", "AWS_SECRET_ACCESS_KEY": "x", "OMP_NUM_THREADS": "2"}, args=nested
    )
    safe = without_secrets(settings)
    assert safe.env == {"OMP_NUM_THREADS": "2"}
    assert safe.args == {"model_loader_extra_config": {"workers": 2}, "key_env": "MY_KEY"}
    batched = EngineSettings(args={"max_num_batched_tokens": 5})
    assert without_secrets(batched) == batched


@pytest.fixture
def heard_as_usual():
    """Whatever a shell, or a command tried in this process, made of Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def asked_to_stop(times: int, reached: list[str]) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)
    reached.append("the end")


@pytest.mark.parametrize(("times", "reaches"), [(1, ["the end"]), (2, ["the end"]), (3, [])])
def test_who_asks_while_a_run_is_sealed_is_answered_and_heard_at_its_end_or_the_third_time(
    capfd, times, reaches, heard_as_usual
):
    before, reached = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), _not_half_way():
        asked_to_stop(times, reached)
    assert reached == reaches
    assert capfd.readouterr().err.count("the run is being sealed first") == 1
    assert signal.getsignal(signal.SIGINT) == before


def test_how_a_run_ended():
    assert describe(KeyboardInterrupt()) == ("interrupted", "interrupted by the user")
    assert describe(EngineError("vllm died", ["line"])) == ("failed", "vllm died\nline")
    assert describe(ValueError()) == ("failed", "ValueError")


RATE = LoadPoint(mode="open", requests_per_s=5.0)


@pytest.fixture
def subject(tmp_path):
    """A model whose search has had two windows of 50 requests in 10 s, 0.18 s each."""
    request = prepare.Request(
        models=("sim",),
        scenario="smoke",
        engine="simulated",
        out=tmp_path,
        find="capacity",
        slo={"ttft_p99_s": "500ms"},
    )
    found = Subject(prepare.prepare(request), 0)
    for number in range(2):
        audit = ClientAudit(cpu_frac=0.1, loop_lag_p99_s=0, send_lag_p99_s=0, chunks=250 * (number + 1))
        window, requests = make.steady(number, 10.0 + 30 * number, point=RATE, audit=audit)
        records.write_records(found.writer.records_path(number), requests)
        found.writer.add(window)
    yield found
    found.writer.close()


def test_a_search_sees_the_windows_on_disk_each_read_once(subject, monkeypatch):
    first = subject.probes()
    assert [(each.point, each.requests, each.completed) for each in first] == [(RATE, 50, 50)] * 2
    assert subject.held(RATE) == 2
    monkeypatch.setattr(store.RunResult, "requests", property(lambda _: pytest.fail("read again")))
    assert subject.probes() == first


def test_all_boards_of_the_machine_are_read_unless_the_engine_is_on_another(subject):
    two = msgspec.structs.replace(make.HOST, gpus=(make.GPU, msgspec.structs.replace(make.GPU, uuid="GPU-2")))
    subject.plan = msgspec.structs.replace(subject.plan, host=two)
    assert subject._boards_read(("GPU-2",)) == ("GPU-2", "GPU-1")
    for url, read in (("http://127.0.0.1:1/v1", ("GPU-1", "GPU-2")), ("http://192.0.2.1/v1", ())):
        subject.settings = EngineSettings(kind="endpoint", args={"url": url})
        assert subject._boards_read(()) == read


@pytest.mark.parametrize("renews", [True, False])
def test_what_a_dead_sampler_costs_is_told_of_what_was_going_on(subject, monkeypatch, renews):
    """The window under way is the third, number 2; in a warm-up none is."""
    after = (ProbeStatus(probe="nvml", usable=False, detail="the driver is gone"),)

    class Dead:
        probes = ()
        is_dead = True

        def trouble(self):
            return "ended (killed by SIGKILL)" if self.is_dead else None

        def renew(self):
            if not renews:
                raise MeasurementError("it does not start")
            self.is_dead, self.probes = False, after

    def interrupted(*given, **_):
        given[-1]()
        raise KeyboardInterrupt

    gpu = ProbeStatus(probe="nvml", usable=True, detail="")
    subject.writer.update(probes=(gpu,))
    endpoint = Endpoint(base_url="http://127.0.0.1:1/v1", model="sim")
    facts = EngineFacts(kind="simulated", version="1", device="none", gpus=("GPU-1",))
    subject._engine = SimpleNamespace(endpoint=endpoint, facts=facts, check=lambda: None)
    subject._sampler, subject._warming_left_s = Dead(), 60.0
    monkeypatch.setattr(warming, "warm", interrupted)
    slot = Slot(0, 2, RATE)
    with pytest.raises(KeyboardInterrupt):
        subject.warm_up(slot, None, lambda _: None)
    assert subject.writer.manifest.probes == (after if renews else (gpu,))
    subject._sampler = Dead()
    worker = SimpleNamespace(run=interrupted, cut_short=None)
    with pytest.raises(KeyboardInterrupt):
        subject.hold(slot, worker, lambda _: None)
    notes = [each for each in subject.writer.manifest.engine.notes if "sampler" in each]
    told = "; it was started anew" if renews else " and all after it: it does not start"
    why = "the sampler ended (killed by SIGKILL): energy and memory are not known of all of"
    assert notes == [f"{why} a warm-up{told}", f"{why} window 2{told}"]


def test_what_a_search_asks_next_is_held_next(subject):
    slot = next(measure._slots(subject.plan, [subject]))
    assert measure._left(subject.plan, [subject]) is None
    assert slot.point.requests_per_s > 5
    assert (slot.subject, slot.repeat) == (0, 0)


def resumed(subject, damaged=()):
    """The run gone on with, after the requests of some windows were damaged."""
    subject.writer.close()
    for window in damaged:
        subject.writer.records_path(window).write_bytes(b"")
    run = store.load(subject.writer.folder)
    return Subject(msgspec.structs.replace(subject.plan, resumed=(run,)), 0)


def test_a_window_left_out_as_damaged_leaves_its_repeat_to_the_next_and_none_is_given_twice(
    subject, monkeypatch
):
    again = resumed(subject, damaged=[0])
    assert [window.repeat for window in again.writer.manifest.windows] == [1]
    monkeypatch.setattr(search, "next_point", lambda *_: RATE)
    assert next(measure._slots(again.plan, [again])).repeat == 0
    known = Precision(windows=1, spent_s=1.0, target_frac=0.02)
    monkeypatch.setattr(Subject, "precision", lambda *_: known)
    slots = (Slot(0, repeat, RATE) for repeat in range(3))
    assert [slot.repeat for slot in measure._wanted(slots, 1, [again])] == [0, 2]
    again.writer.close()


@pytest.mark.parametrize("damaged", [(), (0, 1)])
def test_what_was_there_before_a_run_was_resumed_is_never_removed(subject, damaged):
    """No key of the server in the environment this time, say."""
    again = resumed(subject, damaged)
    before = {each.name for each in again.writer.folder.iterdir()}
    again.mark(InputError("the variable KEY is not set"))
    assert {each.name for each in again.writer.folder.iterdir()} == before
    found = store.load(again.writer.folder).manifest
    assert (found.status, found.reason) == ("failed", "the variable KEY is not set")
    again.writer.close()


def test_a_run_that_nothing_was_measured_in_leaves_no_folder_unless_a_window_was_cut_short(subject):
    window = subject.writer.manifest.windows[0]
    subject.writer.update(windows=(), cut_short=(window,))
    subject.mark(InputError("it cannot be"))
    assert subject.writer.folder.exists()
    subject.writer.update(cut_short=())
    subject.mark(InputError("it cannot be"))
    assert not subject.writer.folder.exists()


def test_who_watches_is_told_what_is_ahead(subject):
    """Two windows of the search are held."""
    search = measure._ahead(subject.plan, [subject])
    assert (search.models, search.engine, search.scenario) == (("sim",), "simulated", "smoke")
    assert (search.points, search.windows, search.target_frac) == ((), None, None)
    assert store.load(search.folders[0]).manifest.group == subject.plan.group
    for repeats, windows, target in ((3, 6, None), (None, 6, 0.02)):
        held = msgspec.structs.replace(subject.plan.scenario.measure, repeats=repeats)
        load = msgspec.structs.replace(
            subject.plan.scenario.load, mode="closed", concurrency=(1, 8), requests_per_s=()
        )
        changed = msgspec.structs.replace(subject.plan.scenario, search=None, measure=held, load=load)
        subject.plan = msgspec.structs.replace(subject.plan, scenario=changed)
        ahead = measure._ahead(subject.plan, [subject])
        assert (ahead.points, ahead.windows, ahead.target_frac) == ((ONE, EIGHT), windows, target)


FAKE = "NVIDIA H100 80GB HBM3 (simulated)"
MADE_UP_RAPL = ProbeStatus(probe="rapl", usable=True, detail="made up, under x: package-0")


@pytest.mark.parametrize(
    ("facts", "gpus", "probes", "expected"),
    [
        ({"device": "cuda", "gpus": ("GPU-1",)}, (make.GPU,), (), (("GPU-1",), True, False)),
        ({"device": "cuda", "gpus": ("GPU-1",)}, (make.GPU,), (MADE_UP_RAPL,), (("GPU-1",), True, False)),
        (
            {"device": "cuda", "gpus": ("GPU-1",)},
            (msgspec.structs.replace(make.GPU, name=FAKE),),
            (),
            (("GPU-1",), True, True),
        ),
        ({"device": "cpu"}, (make.GPU,), (MADE_UP_RAPL,), ((), True, True)),
        ({"device": "none"}, (), (), (None, True, False)),
        ({"device": "remote"}, (), (), ((), False, False)),
    ],
)
def test_where_the_samples_of_an_engine_are(subject, facts, gpus, probes, expected):
    host = msgspec.structs.replace(subject.plan.host, gpus=gpus)
    subject.plan = msgspec.structs.replace(subject.plan, host=host)
    subject.writer.update(probes=probes)
    found = subject._sources(EngineFacts(kind="x", version=None, **facts))
    assert (found.path, found.name) == (subject.writer.samples_path, "sim")
    assert (found.gpus, found.reads_power, found.is_made_up) == expected


def test_the_busiest_window_and_what_streams_in_it(subject):
    rate, streams = subject.busiest()
    assert rate == pytest.approx(500 / 10)
    assert streams == 1  # 5 requests/s of 0.18 s


def test_streams_of_an_open_loop_by_littles_law_of_a_closed_one_as_asked(tmp_path):
    window, requests = make.steady(0, 10.0, point=RATE)
    long = [msgspec.structs.replace(each, last_ns=each.last_ns + 2 * make.S) for each in requests]
    table = store.load(make.writer(tmp_path, [(window, long)]).folder).requests
    assert metrics.in_flight(WindowView(window, table)) == round(5 * 2.18)
    closed = make.window(0, 10, 20, point=LoadPoint(mode="closed", concurrency=7))
    assert metrics.in_flight(WindowView(closed, table)) == 7


FOUND = Calibration(
    chunks_per_s=50,
    concurrency=1,
    requests=10,
    chunks=50,
    ttft_mean_error_frac=0.001,
    ttft_p99_error_frac=0.002,
    ttft_mean_error_s=0.0001,
    itl_mean_error_frac=0.0,
    itl_p99_error_frac=0.0,
    server_late_p99_s=0.0,
    client_cpu_frac=0.01,
    client_cpu_s_per_chunk=None,
)


def test_the_clients_error_goes_into_the_manifest(subject, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "profiler.calibrate.calibrate",
        lambda *rate, seconds, worker, folder: asked.append((*rate, seconds, worker)) or FOUND,
    )
    worker = LoadWorker()
    measure._calibrate([subject], worker, Quiet())
    assert asked == [(50.0, 1, measure.CALIBRATION_S, worker)]
    assert subject.writer.manifest.calibration == FOUND


def test_a_client_that_cannot_be_calibrated_fails_no_run(subject, monkeypatch):
    def broken(*_, seconds, worker, folder):
        raise LoadError("never steady")

    monkeypatch.setattr("profiler.calibrate.calibrate", broken)
    measure._calibrate([subject], LoadWorker(), Quiet())
    assert subject.writer.manifest.calibration is None
    assert "never steady" in subject.writer.manifest.engine.notes[-1]
