"""What is decided before anything starts, on machines we do not have: the host is given, nothing else."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from profiler import fit, host, manifest, prepare, procfs, scenario, store
from profiler.errors import InputError
from profiler.schema import Gpu
from profiler.subject import Subject
from tests import make


def machine(monkeypatch, gpus: int, name: str = "NVIDIA H100 80GB HBM3", gib: float = 79.6) -> None:
    cards = tuple(Gpu(uuid=f"GPU-{n}", name=name, memory_bytes=int(gib * 2**30)) for n in range(gpus))
    found = msgspec.structs.replace(make.HOST, gpus=cards)
    monkeypatch.setattr(host, "collect", lambda: found)
    monkeypatch.setattr(prepare, "check_engine", lambda settings, model: None)


def plan(tmp_path: Path, *models: str, **changes) -> prepare.Plan:
    request = prepare.Request(
        models=models, scenario="chat", out=tmp_path, **({"weights": "random"} | changes)
    )
    return prepare.prepare(request)


def test_gpus_take_one_engine_at_a_time_and_the_catalog_price(monkeypatch, tmp_path):
    machine(monkeypatch, 8)
    found = plan(tmp_path, "Qwen/Qwen2.5-72B", "Qwen/Qwen2.5-7B", engine="vllm")
    assert found.exclusive
    assert [each.tensor_parallel for each in found.settings] == [4, 1]
    assert found.price is not None
    assert found.price.per == "gpu"
    assert found.price.date
    assert found.price.low_usd_per_hour < found.price.usd_per_hour < found.price.high_usd_per_hour


def test_a_price_given_wins_over_the_catalog(monkeypatch, tmp_path):
    machine(monkeypatch, 1)
    found = plan(tmp_path, "Qwen/Qwen2.5-7B", engine="vllm", price="2.49")
    assert (found.price.usd_per_hour, found.price.source) == (2.49, "given with --price")


def test_a_cpu_has_no_price_unless_given(monkeypatch, tmp_path):
    machine(monkeypatch, 0)
    assert plan(tmp_path, "tiny-moe", engine="transformers").price is None


def test_small_models_stay_up_together_on_a_cpu_and_large_ones_take_turns(monkeypatch, tmp_path):
    machine(monkeypatch, 0)
    trio = ("tiny-moe", "tiny-dense", "tiny-dense-active")
    few = ("load.concurrency=1",)
    monkeypatch.setattr(fit, "available_memory_bytes", lambda: 16 << 30)
    assert not plan(tmp_path, *trio, engine="transformers", overrides=few).exclusive
    monkeypatch.setattr(fit, "available_memory_bytes", lambda: 3 << 30)
    assert plan(tmp_path, *trio, engine="transformers", overrides=few).exclusive


def test_the_scenario_can_decide_residency(monkeypatch, tmp_path):
    machine(monkeypatch, 0)
    found = plan(tmp_path, "tiny-moe", engine="transformers", overrides=("measure.residency=exclusive",))
    assert found.exclusive


def test_what_a_user_should_know_is_noted_before_the_start(monkeypatch, tmp_path):
    machine(monkeypatch, 0)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = plan(tmp_path, "Qwen/Qwen2.5-0.5B", engine="transformers", weights="auto")
    (note,) = [each for each in found.notes if "random" in each]
    assert note.startswith("Qwen/Qwen2.5-0.5B: ")


def test_a_model_that_does_not_fit_is_refused_with_what_would_do(monkeypatch, tmp_path):
    machine(monkeypatch, 1)
    with pytest.raises(InputError, match=r"(?s)Qwen2.5-72B.*GiB.*GPU sets.*H200"):
        plan(tmp_path, "Qwen/Qwen2.5-72B", engine="vllm")
    assert not list(tmp_path.iterdir())


def test_url_belongs_to_endpoints(tmp_path):
    with pytest.raises(InputError, match="--url goes with"):
        plan(tmp_path, "m", engine="vllm", url="http://127.0.0.1:1/v1")


def test_resume_refuses_another_machine_and_a_restart(monkeypatch, tmp_path):
    run = make.writer(tmp_path, [], unix_ns=0, clock_ns=0)
    monkeypatch.setattr(host, "collect", lambda: msgspec.structs.replace(make.HOST, cpu="another"))
    with pytest.raises(InputError, match="another machine"):
        prepare.resume(run.folder)
    monkeypatch.setattr(host, "collect", lambda: make.HOST)
    with pytest.raises(InputError, match="restarted"):
        prepare.resume(run.folder)


def test_a_calendar_that_was_set_is_no_restart(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "collect", lambda: make.HOST)
    run = make.writer(tmp_path, [], unix_ns=0, clock_ns=0, boot_id="this start")
    run.close()
    monkeypatch.setattr(procfs, "boot_id", lambda: "this start")
    prepare.resume(run.folder)
    monkeypatch.setattr(procfs, "boot_id", lambda: "the next one")
    with pytest.raises(InputError, match="restarted"):
        prepare.resume(run.folder)


def test_resume_refuses_a_trace_that_has_changed_and_sends_fresh_prompts(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "collect", lambda: make.HOST)
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s,input_tokens,output_tokens\n0,8,4\n1,8,4\n")
    asked = scenario.load("replay", [f"load.trace={trace}"])
    now = {"unix_ns": time.time_ns(), "clock_ns": time.perf_counter_ns()}
    run = make.writer(tmp_path, [], scenario=asked, **now)
    run.close()
    salts = {prepare.resume(run.folder).prompt_salt for _ in range(3)}
    assert len(salts) == 3
    trace.write_text("time_s,input_tokens,output_tokens\n0,8,4\n2,8,4\n")
    with pytest.raises(InputError, match=r"trace .*trace\.csv is not what it was"):
        prepare.resume(run.folder)


def test_more_slots_than_a_process_may_open_files_are_refused(monkeypatch, tmp_path):
    machine(monkeypatch, 0)
    monkeypatch.setattr(prepare, "most_connections", lambda: 100)
    with pytest.raises(InputError, match=r"ulimit -n.*load\.processes=3"):
        plan(tmp_path, "sim", engine="simulated", overrides=("load.concurrency=4,201",))
    enough = ("load.concurrency=4,201", "load.processes=3")
    assert plan(tmp_path, "sim", engine="simulated", overrides=enough).scenario.load.processes == 3


@pytest.mark.parametrize(
    ("changes", "telling"),
    [({"weights": "bogus"}, "--weights"), ({"key_env": "K"}, "--key-env"), ({"models": ("",)}, "empty")],
)
def test_words_without_effect_are_refused(tmp_path, changes, telling):
    request = prepare.Request(**({"models": ("sim",), "engine": "simulated", "out": tmp_path} | changes))
    with pytest.raises(InputError, match=telling):
        prepare.prepare(request)


def test_a_remote_engine_is_not_priced_as_this_machines_gpu(monkeypatch, tmp_path):
    machine(monkeypatch, 1)
    assert plan(tmp_path, "sim", engine="simulated").price is None
    assert plan(tmp_path, "sim", engine="simulated", price="2").price.per == "machine"


def test_find_and_limits_are_scenario_fields(tmp_path):
    found = plan(
        tmp_path,
        "sim",
        engine="simulated",
        find="capacity",
        slo={"ttft_p99_s": "500ms", "e2e_p95_s": "2"},
        max_failed="2%",
    ).scenario
    assert found.search.find == "capacity"
    assert found.slo == {"ttft_p99_s": 0.5, "e2e_p95_s": 2.0}
    assert found.max_failed_frac == 0.02
    assert found.load.mode == "open"


def test_a_search_over_slots_is_had_by_setting_the_mode(tmp_path):
    words = ("load.mode=closed", "load.concurrency=2")
    found = plan(tmp_path, "sim", engine="simulated", find="knee", overrides=words).scenario
    assert (found.load.mode, found.load.concurrency) == ("closed", (2,))


def test_pictures_need_a_server_that_chats(tmp_path):
    words = ("workload.images.width=64", "workload.images.height=64")
    with pytest.raises(InputError, match="chat"):
        plan(tmp_path, "tiny-moe", engine="transformers", overrides=words)


def test_each_routing_of_a_model_is_a_run_of_its_own(monkeypatch, tmp_path):
    machine(monkeypatch, 0)
    words = ("engine.routing=model,skew=1.0,uniform", "load.concurrency=1")
    found = plan(tmp_path, "tiny-moe", engine="transformers", overrides=words)
    assert [each.name for each in found.models] == ["tiny-moe"] * 3
    assert [each.routing for each in found.settings] == ["model", "skew=1.0", "uniform"]
    assert found.scenario.engine.routing == ("model", "skew=1.0", "uniform")
    ids = {manifest.of(found, number).run_id for number in range(3)}
    assert len(ids) == 3
    last = SimpleNamespace(plan=found, model=found.models[2], settings=found.settings[2])
    assert Subject.name.fget(last) == "tiny-moe, routing uniform"


@pytest.mark.parametrize(
    ("model", "engine", "routing", "telling"),
    [
        ("tiny-moe", "transformers", "unifrom", "routing 'unifrom': model, uniform or skew=CV"),
        ("tiny-moe", "transformers", "skew=-1", "routing 'skew=-1'"),
        ("tiny-moe", "transformers", "model,model", "each once"),
        ("tiny-moe", "transformers", "skew=1,skew=1.0", "each once"),
        ("tiny-moe", "transformers", "auto,uniform", "auto stands for one of the others"),
        ("tiny-moe", "transformers", "skew=9", "2 of 32 experts, so the CV is below 3.873"),
        ("tiny-dense", "transformers", "uniform", "tiny-dense has no experts to route to"),
        ("tiny-dense", "transformers", "model,uniform", "tiny-dense has no experts to route to"),
        ("sim", "simulated", "uniform", "engine simulated cannot be chosen"),
    ],
)
def test_routings_that_cannot_be_had_are_refused_in_one_line(tmp_path, model, engine, routing, telling):
    with pytest.raises(InputError, match=re.escape(telling)) as found:
        plan(tmp_path, model, engine=engine, overrides=(f"engine.routing={routing}", "load.concurrency=1"))
    assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def two(monkeypatch, tmp_path):
    """The folders of two models that were to take turns, nothing held yet."""
    machine(monkeypatch, 0)
    made = plan(tmp_path, "a", "b", engine="simulated")
    for number in range(2):
        store.RunWriter.create(tmp_path, manifest.of(made, number)).close()
    monkeypatch.setattr(host, "collect", lambda: made.host)
    return sorted(tmp_path / name for name in store.within(tmp_path))


def test_resume_says_which_of_the_models_it_does_not_go_on_with(two):
    assert prepare.resume(two[0]).notes == ()
    assert len(prepare.resume(two[0]).models) == 2
    journal = two[1] / store.JOURNAL
    content = journal.read_bytes()
    journal.write_bytes(content[:-9])
    (note,) = prepare.resume(two[0]).notes
    assert "b-" in note
    assert "journal.json cannot be read" in note
    journal.unlink()  # killed before it was there
    (note,) = prepare.resume(two[0]).notes
    assert "model 2 of 2 is not beside" in note
    journal.write_bytes(content)
    two[1].rename(two[1].with_name("renamed"))
    assert prepare.resume(two[0]).notes == ()


def test_what_is_left_of_a_sealed_run_is_not_tidied_where_the_run_is_damaged(tmp_path):
    run = make.writer(tmp_path, [make.steady(0, 10.0, 5)])
    kept = run.records_path(0).read_bytes()
    run.seal()
    (run.folder / store.PARTS).mkdir()
    run.records_path(0).write_bytes(kept)
    whole = (run.folder / store.REQUESTS).read_bytes()
    (run.folder / store.REQUESTS).write_bytes(b"")
    with pytest.raises(InputError, match=r"requests.parquet has 0 bytes"):
        prepare.resume(run.folder)
    assert run.records_path(0).read_bytes() == kept
    (run.folder / store.REQUESTS).write_bytes(whole)
    with pytest.raises(InputError, match="nothing is left to resume"):
        prepare.resume(run.folder)
    assert not run.records_path(0).exists()
