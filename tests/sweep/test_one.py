"""One start: its plans are of one engine, and what became of it is judged by its runs."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import msgspec
import pytest
from msgspec.structs import replace

from profiler import manifest, routing_pass, scenario, store
from profiler.nvml.holding import TakenError
from profiler.storage import Found
from profiler.sweep import one, remote_actor
from profiler.sweep.nouns import Asked, Job, Start, UnderWay
from tests import make

SETS = ["engine.kind=transformers", "measure.repeats=1"]


def asked(cell: str, input_tokens: int, *words: str) -> Asked:
    what = scenario.load("chat", [*SETS, f"workload.input_tokens={input_tokens}", *words])
    return Asked(cells=(cell,), scenario=what)


def start(*parts: Asked, **changes) -> Start:
    base = Start(key="k", number=0, model="tiny-moe", weights="auto", gpu=None, gpus=0, asked=parts)
    return replace(base, **changes)


def test_the_engine_of_a_start_is_as_large_as_any_of_its_scenarios_needs_it(tmp_path):
    short, long = asked("a", 16, "workload.output_tokens=8"), asked("b", 100, "workload.output_tokens=8")
    first, second = one.plans(start(short, long), Job(name="s"), tmp_path, "g")
    assert first.settings == second.settings
    assert first.settings[0].max_model_len == 108
    assert (first.group, second.group) == ("g", "g")
    assert first.prompt_salt != second.prompt_salt
    assert first.scenario == short.scenario
    (rest,) = one.plans(start(short, sized_for=(short.scenario, long.scenario)), Job(name="s"), tmp_path, "g")
    assert rest.settings == first.settings


def test_a_portion_is_found_again_by_the_digest_of_its_manifest(tmp_path):
    part = asked("a", 16, "engine.env.HF_TOKEN=secret")
    (portion,) = one.portions(start(part))
    (plan,) = one.plans(start(part), Job(name="s"), tmp_path, "g")
    assert manifest.of(plan, 0).scenario_hash == portion.digest


def test_what_left_no_run_is_as_it_was_told():
    noted = UnderWay(key="k", portions=one.portions(start(asked("a", 16))), number=2, group="g", utc="u")
    (cut,) = one.judged(noted, [])
    assert (cut.outcome, cut.cells, cut.number, cut.runs) == ("cut short", ("a",), 2, ())
    (failed,) = one.judged(noted, [], "it does not fit", 3.0)
    assert (failed.outcome, failed.why, failed.took_s) == ("failed", "it does not fit", 3.0)


def sealed(folder, part: Asked, noted: UnderWay, **changes) -> store.RunResult:
    digest = noted.portions[0].digest
    written = make.writer(folder, [], scenario=part.scenario, scenario_hash=digest, **changes)
    written.samples_path.write_bytes(b"")
    written.seal()
    return store.load(written.folder)


@pytest.mark.parametrize(("is_put_up_with", "outcome"), [(False, "disturbed"), (True, "held")])
def test_a_run_of_one_load_that_was_disturbed_does_not_count(tmp_path, monkeypatch, is_put_up_with, outcome):
    part = asked("a", 16)
    noted = UnderWay(
        key="k",
        portions=one.portions(start(part)),
        number=0,
        group="g",
        utc="u",
        takes_disturbed=is_put_up_with,
    )
    facts = {"requests_ok": 1, "client_bound": "behind its own schedule", "shared_gpu": None}
    monkeypatch.setattr(one.figures, "of_run", lambda _: iter([SimpleNamespace(facts=facts)]))
    run = sealed(tmp_path, part, noted)
    (found,) = one.judged(noted, [Found("run", run.manifest, True, run.folder)], "", 1.0)
    assert found.outcome == outcome
    assert found.why == "the client was the limit (behind its own schedule)"


@pytest.mark.parametrize(
    ("wanted", "missing", "outcome"),
    [
        ("on", routing_pass.NOT_YET, "failed"),
        ("on", "the engine start ended before", "failed"),
        ("on", None, "held"),
        ("auto", routing_pass.NOT_YET, "held"),
    ],
)
def test_a_run_that_was_sealed_before_its_routing_counts_where_nobody_insists(
    tmp_path, monkeypatch, wanted, missing, outcome
):
    part = asked("a", 16, f"routing.record={wanted}")
    noted = UnderWay(key="k", portions=one.portions(start(part)), number=0, group="g", utc="u")
    facts = {"requests_ok": 1, "client_bound": None, "shared_gpu": None}
    monkeypatch.setattr(one.figures, "of_run", lambda _: iter([SimpleNamespace(facts=facts)]))
    run = sealed(tmp_path, part, noted, routing_missing=missing)
    (found,) = one.judged(noted, [Found("run", run.manifest, True, run.folder)], "its recorder died", 1.0)
    assert found.outcome == outcome, found.why
    assert ("its recorder died" in (found.why or "")) is (outcome == "failed")


@pytest.mark.parametrize(("damaged", "note"), [((0,), "sealed with 1 of 2 loads: it died"), ((0, 1), None)])
def test_loads_whose_windows_are_damaged_are_not_among_those_that_were_finished(tmp_path, damaged, note):
    part = replace(asked("a", 16, "load.concurrency=[1,8]"), cells=("a", "b"))
    noted = UnderWay(key="k", portions=one.portions(start(part)), number=0, group="g", utc="u")
    digest = noted.portions[0].digest
    points = scenario.points(part.scenario)
    held = [make.steady(number, 10.0 + 20 * number, point=point) for number, point in enumerate(points)]
    writer = make.writer(tmp_path, held, scenario=part.scenario, scenario_hash=digest)
    writer.close()
    for window in damaged:
        writer.records_path(window).write_bytes(b"")
    (run,) = one.salvaged(noted, [Found("run", writer.manifest, False, writer.folder)], "it died")
    assert run.is_sealed is bool(note)
    assert len(run.manifest.windows) == 2 - len(damaged)
    assert [each for each in run.manifest.engine.notes if "sealed" in each] == ([note] if note else [])
    assert store.load(writer.folder).manifest == run.manifest


def test_a_node_waits_for_a_board_that_others_measure_on(monkeypatch, tmp_path):
    answers = [TakenError("GPU-1", "process 7"), TakenError("GPU-1", "process 7"), ()]

    def hold(*_):
        answer = answers.pop(0)
        if isinstance(answer, TakenError):
            raise answer
        return answer

    monkeypatch.setattr(remote_actor, "restore_environment", lambda _: None)
    monkeypatch.setattr(remote_actor, "scratch", lambda _: tmp_path)
    monkeypatch.setattr(remote_actor, "LoadWorker", nullcontext)
    monkeypatch.setattr(remote_actor, "TAKEN_S", 0.0)
    monkeypatch.setattr(remote_actor.os, "environ", {})
    monkeypatch.setattr(one, "hold", hold)
    errand = remote_actor.Errand(job=Job(name="s"), scratch="s", home=None, hides_gpus=False, cluster="c")
    holder = remote_actor.Holder(msgspec.json.encode(errand))
    part = start(asked("a", 16))
    noted = UnderWay(key="k", portions=one.portions(part), number=2, group="g", utc="u")
    assert holder.hold(msgspec.json.encode(part), msgspec.json.encode(noted)) == b"[]"
    assert [text for _, text in holder.news()] == ["", "waiting: GPU-1 is being measured by process 7"]
