"""The pass that records experts: what it asks, what it keeps, and that nothing it meets costs a window."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import measure, prepare, records, routing_pass, store, subject, trust
from profiler.engines.base import Routed, RoutingSource, RunningEngine
from profiler.errors import EngineError, InputError
from profiler.progress import Quiet
from profiler.schema import Endpoint, EngineFacts, Memory, Model
from profiler.settings import EngineSettings, Length, Routing, Workload
from profiler.subject import Subject
from profiler.workload import Plan
from tests import make

LAYERS, EXPERTS, PER_TOKEN = (1, 3), 8, 2
MOE = Model(name="m", weights="random", config={"model_type": "mixtral"}, facts=make.FACTS)
DENSE = msgspec.structs.replace(MOE, facts=msgspec.structs.replace(make.FACTS, kind="dense"))
UNKNOWN = msgspec.structs.replace(MOE, facts=None)
OURS = EngineSettings(kind="transformers")


def scenario(**routing):
    return msgspec.structs.replace(
        make.SCENARIO,
        workload=Workload(input_tokens=Length(mean=40, spread=0.5), output_tokens=6, seed=3),
        routing=Routing(**({"requests": 12} | routing)),
    )


def experts_of(prompt, positions):
    """Distinct for every request and position, and found again by the test."""
    draw = np.random.default_rng([*prompt[:4], positions])
    return draw.integers(0, EXPERTS, (positions, len(LAYERS), PER_TOKEN)).astype(np.uint16)


def source(**changes):
    def ask(prompt, output_tokens, timeout_s):
        assert timeout_s == make.SCENARIO.timeouts.total_s
        return Routed(len(prompt), experts_of(prompt, len(prompt) + output_tokens - 1))

    return msgspec.structs.replace(
        RoutingSource(says="a test", layers=LAYERS, experts=EXPERTS, ask=ask), **changes
    )


# ---------------------------------------------------------------------------------------------- the pass


def test_a_row_a_token_in_order_each_with_the_experts_of_its_request_and_position():
    said = []
    table, found = routing_pass.record(source(), scenario(), MOE, "uniform", said.append)
    asked = list(routing_pass.prompts(scenario(), make.FACTS.vocab_size))
    assert table.schema == records.routing_schema(2, PER_TOKEN)
    columns = table.to_pydict()
    row = 0
    for number, (prompt, output_tokens) in enumerate(asked):
        positions = len(prompt) + output_tokens - 1
        told = experts_of(prompt, positions).reshape(positions, -1)
        for position in range(positions):
            assert columns["request"][row] == number
            assert columns["position"][row] == position
            assert columns["is_output"][row] == (position >= len(prompt))
            assert columns["experts"][row] == told[position].tolist()
            row += 1
    assert row == len(table) == found.tokens
    assert (found.requests, found.layers, found.experts, found.experts_per_token) == (12, LAYERS, 8, 2)
    assert (found.source, found.routing) == ("a test", "uniform")
    assert said == [f"recording the routing · {n}/12" for n in range(1, 13)]


@given(
    mean=st.integers(1, 400),
    most=st.integers(1, 200),
    shared=st.integers(0, 300),
    answers=st.integers(1, 60),
)
def test_prompts_are_cut_at_their_beginnings_and_all_differ(mean, most, shared, answers):
    asked = msgspec.structs.replace(
        scenario(max_input_tokens=most),
        workload=Workload(input_tokens=mean, output_tokens=answers, shared_prefix_tokens=shared),
    )
    found = list(routing_pass.prompts(asked, 32_000))
    assert [len(ids) for ids, _ in found] == [min(mean, most)] * 12
    assert {tokens for _, tokens in found} == {min(answers, 32)}
    own = mean - shared  # what is not the same for all
    if min(own, most) >= 5:
        assert len({tuple(ids) for ids, _ in found}) == 12


def test_no_window_ever_holds_the_prompts_of_the_pass():
    asked = scenario()
    own = {tuple(ids[:4]) for ids, _ in routing_pass.prompts(asked, 32_000)}
    for window in range(20):
        plan = Plan(asked.workload, 32_000, window)
        for index in range(50):
            text = b"".join(plan.ids(plan.request(index))).lstrip(b",")
            assert tuple(msgspec.json.decode(b"[" + text + b"]")[:4]) not in own


@pytest.mark.parametrize(
    ("layers", "experts", "trouble"),
    [((1, 2, 3), 8, "in 2 layers were told, of 8 experts in 3 layers"), (LAYERS, 2, "experts up to")],
)
def test_an_engine_that_tells_nonsense_is_not_believed(layers, experts, trouble):
    with pytest.raises(EngineError, match=trouble):
        routing_pass.record(source(layers=layers, experts=experts), scenario(), MOE, "model", print)


def test_a_request_that_fails_ends_the_pass_without_waiting_for_the_others():
    """Ctrl-C does so too: what an engine never answers must not hold it up."""
    release, began = threading.Event(), time.perf_counter()
    first = next(routing_pass.prompts(scenario(), make.FACTS.vocab_size))[0]

    def ask(prompt, output_tokens, timeout_s):
        assert threading.current_thread().daemon  # else it is joined at exit
        if prompt == first:
            raise EngineError("gone")
        release.wait(20)
        return source().ask(prompt, output_tokens, timeout_s)

    with pytest.raises(EngineError, match="gone"):
        routing_pass.record(source(ask=ask), scenario(), MOE, "model", print)
    assert time.perf_counter() - began < 10
    release.set()


# -------------------------------------------------------------------------------------- whether there is one


@pytest.mark.parametrize(
    ("settings", "model", "record", "reason"),
    [
        (OURS, MOE, "auto", routing_pass.NOT_YET),
        (OURS, MOE, "on", routing_pass.NOT_YET),
        (OURS, MOE, "off", "switched off"),
        (OURS, DENSE, "auto", None),
        (OURS, DENSE, "off", None),
        (
            EngineSettings(kind="simulated"),
            Model(name="s", weights="remote"),
            "auto",
            "simulated engine has no",
        ),
        (EngineSettings(kind="endpoint"), Model(name="s", weights="remote"), "auto", "runs already"),
        (OURS, UNKNOWN, "auto", "architecture of m is not known"),
        (EngineSettings(kind="vllm"), UNKNOWN, "auto", "architecture of m is not known"),
    ],
)
def test_why_there_is_no_routing(settings, model, record, reason):
    found = routing_pass.missing(scenario(record=record), settings, model)
    assert found == reason if reason is None else reason in found


def test_insisting_where_it_cannot_be_recorded_is_refused_before_anything_starts(tmp_path):
    request = prepare.Request(
        models=("sim",), scenario="smoke", engine="simulated", overrides=("routing.record=on",), out=tmp_path
    )
    with pytest.raises(InputError, match=r"routing\.record = on, but the simulated engine has no experts"):
        prepare.prepare(request)
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------- in a run


class Fake:
    """Engines that do nothing but tell; which were opened, in order."""

    def __init__(self, monkeypatch, telling):
        self.opened, self.telling = [], telling
        monkeypatch.setattr(subject, "open_recorder", self.open)

    def open(self, settings, model, folder, say):
        from contextlib import contextmanager

        @contextmanager
        def opened():
            self.opened.append(model.name)
            yield self.engine(self.telling)

        return opened()

    @staticmethod
    def engine(telling):
        return RunningEngine(
            endpoint=Endpoint(base_url="http://h/v1", model="m"),
            facts=EngineFacts(kind="transformers", version="5", device="cpu", routing="uniform"),
            routing=telling,
        )


def one(tmp_path, **routing):
    plan = prepare.Plan(
        scenario=scenario(**routing),
        models=(MOE,),
        settings=(OURS,),
        host=make.HOST,
        out=tmp_path,
        exclusive=False,
    )
    return Subject(plan, 0)


def test_an_engine_that_is_up_and_tells_is_asked_any_other_is_opened_for_it(tmp_path, monkeypatch):
    fake = Fake(monkeypatch, source())
    up, down = one(tmp_path), one(tmp_path)
    up._engine = fake.engine(source())
    measure._record_routing([down, up], Quiet())
    assert fake.opened == ["m"]
    for each in (up, down):
        assert each.writer.manifest.routing.requests == 12
        assert each.writer.manifest.routing_missing is None
        assert len(store.load(each.writer.folder).routing) == each.writer.manifest.routing.tokens
    measure._record_routing([down, up], Quiet())  # as a resumed run would
    assert fake.opened == ["m"]


def test_the_memory_account_is_that_of_the_windows(tmp_path, monkeypatch):
    """The pass asks for more at a time than a load of one may have."""
    peaks = iter((1, 2, 3))
    found = one(tmp_path)
    found._engine = msgspec.structs.replace(
        Fake(monkeypatch, None).engine(source()), account=lambda: Memory(activation_peak_bytes=next(peaks))
    )
    found._stack = ExitStack()
    found.record_routing(print)
    found.stop()
    assert found.writer.manifest.memory.activation_peak_bytes == 1
    assert not found.is_up


def test_a_pass_that_fails_is_noted_and_the_run_goes_on(tmp_path, monkeypatch):
    def ask(*_):
        raise EngineError("no answer")

    Fake(monkeypatch, source(ask=ask))
    found = one(tmp_path)
    window, requests = make.steady(0, 10.0)
    records.write_records(found.writer.records_path(0), requests)
    found.writer.add(window)
    measure._record_routing([found], Quiet())
    assert found.writer.manifest.routing is None
    assert found.writer.manifest.routing_missing == "it failed: no answer"
    found.writer.seal()
    assert store.load(found.writer.folder).manifest.status == "complete"
    assert len(store.load(found.writer.folder).requests) == 50


def test_a_pass_that_fails_ends_a_run_that_insists_and_can_be_had_again(tmp_path, monkeypatch):
    Fake(monkeypatch, None)
    found = one(tmp_path, record="on")
    with pytest.raises(EngineError, match="does not tell"):
        measure._record_routing([found], Quiet())
    assert found.owes_routing


def test_ctrl_c_in_the_pass_keeps_the_windows_and_leaves_it_owed(tmp_path, monkeypatch):
    def ask(*_):
        raise KeyboardInterrupt

    Fake(monkeypatch, source(ask=ask))
    found = one(tmp_path)
    window, requests = make.steady(0, 10.0)
    records.write_records(found.writer.records_path(0), requests)
    found.writer.add(window)
    with pytest.raises(KeyboardInterrupt):
        measure._record_routing([found], Quiet())
    found.mark(KeyboardInterrupt())
    found.writer.close()
    kept = store.load(found.writer.folder).manifest
    assert (kept.status, len(kept.windows), kept.routing_missing) == ("interrupted", 1, routing_pass.NOT_YET)
    again = msgspec.structs.replace(found.plan, resumed=(store.load(found.writer.folder),))
    assert Subject(again, 0).owes_routing


@pytest.mark.parametrize(
    ("routing", "weights", "facts", "words"),
    [
        ("uniform", "random", make.FACTS, r"by the profiler \(uniform\)"),
        ("skew=1", "local", make.FACTS, r"by the profiler \(skew=1\)"),
        ("model", "random", make.FACTS, "by a router of random weights"),
        ("model", "local", make.FACTS, None),
        (None, "random", DENSE.facts, None),
        (None, "remote", None, None),
    ],
)
def test_no_claim_may_rest_on_a_made_up_routing(routing, weights, facts, words):
    import re

    engine = EngineFacts(kind="transformers", version="5", device="cpu", routing=routing)
    manifest = make.manifest("r", engine=engine, model=Model(name="m", weights=weights, facts=facts))
    found = trust.routing_made_up(manifest)
    assert found is None if words is None else re.search(words, found)
