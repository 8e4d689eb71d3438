"""What a sweep will take, on which machines, and what is refused before anything starts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import host, host_facts, scenario, spending
from profiler.errors import InputError
from profiler.schema import Gpu
from profiler.sweep import grid as grids
from profiler.sweep import machines, order, outline, seats
from profiler.sweep.machines import Machine
from profiler.sweep.nouns import Attempt, Place, Record, Start, Visit
from profiler.sweep.outline import Asked
from tests import make

SIMULATED = """
scenario = "smoke"
starts = 2
[axes]
model = ["sim-a", "sim-b"]
load.concurrency = [1, 2]
[set]
engine.kind = "simulated"
measure.window_s = 2
measure.warmup_s = 1
"""
GPUS = """
name = "big"
scenario = "chat"
starts = 2
[axes]
model = ["Qwen/Qwen3-8B", "Qwen/Qwen3-14B"]
gpu = ["H100", "A100"]
load.concurrency = [1, 64]
[set]
engine.kind = "vllm"
"""
HOST = host.collect()


def node(name: str, gpu: str | None = None, gpus: int = 0, **changes) -> Machine:
    """As a cluster's, with boards that are only said to be there."""
    bare = replace(HOST, **{"gpus": (), "memory_bytes": 64 << 30} | changes)
    return Machine(host=bare, node=name, gpu=gpu, gpus=gpus)


@pytest.fixture
def grid(tmp_path):
    def make(text: str = SIMULATED, *overrides: str):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return grids.grid(grids.read(path), "mine.toml", overrides)

    return make


@pytest.fixture
def plan(grid):
    def make(text: str = SIMULATED, *overrides: str, at_hand=None, record=None, **asked):
        found = at_hand or (machines.here(),)
        return outline.outline(grid(text, *overrides), record, found, Asked(**asked))

    return make


def refused(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def held(start: Start, took_s: float = 1.0, **changes) -> Attempt:
    known = {"key": start.key, "cells": start.cells, "number": start.number, "outcome": "held"}
    return Attempt(**known | {"utc": "20260101T000000Z", "took_s": took_s} | changes)


# ----------------------------------------------------------------------------------------- what it takes


def test_a_start_takes_its_engine_and_all_of_its_windows(plan):
    found = plan()
    assert len(found.starts) == 4
    each = found.takes(found.starts[0])
    assert each.seconds == pytest.approx(1.0 + 1.0 + 2 * (1 + 2))  # engine, what is around it, two loads
    assert (each.gpus, each.boards, each.usd) == (0, None, None)
    assert found.whole.seconds == pytest.approx(4 * each.seconds) == found.wall_s
    assert found.whole.usd is None


def test_the_engine_starts_once_for_several_scenarios(plan):
    lengths = SIMULATED.replace("[set]", "workload.output_tokens = [16, 32]\n[set]")
    one, both = plan(), plan(lengths)
    assert [len(each.asked) for each in both.starts] == [2] * 4
    more = both.takes(both.starts[0]).seconds - one.takes(one.starts[0]).seconds
    assert more == pytest.approx(2 * (1 + 2) + outline.AROUND_S)


def test_a_price_of_the_file_or_the_command_is_paid_by_the_second(plan):
    assert plan(SIMULATED, "price=36").whole.usd == pytest.approx(plan().whole.seconds * 0.01)
    found = plan(SIMULATED, "price=36", price="72")
    assert found.whole.usd == pytest.approx(found.whole.seconds * 0.02)
    assert found.job.price == "72"


def test_earlier_runs_of_a_model_say_how_long_it_takes(plan, tmp_path):
    start = plan().starts[0]
    what = start.asked[0].scenario
    window, records = make.steady(0, 10.0, point=scenario.points(what)[0])
    run = make.writer(
        tmp_path,
        [(window, records)],
        run_id=f"{start.model}-smoke-20260101T000000Z-aa",
        scenario=what,
        model=machines.fitted(start, machines.here(), None, None, None).plans[0].models[0],
        settings=replace(make.manifest("x").settings, kind="simulated"),
        host=HOST,
        starts_s=(33.0,),
    )
    run.seal()
    takes = plan(out=tmp_path).takes(start)
    assert "engine starts as in earlier runs" in takes.grounds
    assert takes.seconds == pytest.approx(33 + 1 + 12 + 3)


def test_a_sweep_that_goes_on_takes_as_long_as_its_starts_so_far(plan):
    found = plan(seed=7, price="36")
    start = found.starts[0]
    again = plan(record=Record(name="mine", seed=7, attempts=(held(start, 100.0),)), price="36")
    assert again.whole.seconds == pytest.approx(300)
    assert again.whole.usd == pytest.approx(3)
    assert {each.grounds for each in again.each.values()} == {(outline.AS_SO_FAR,)}


def test_boards_that_the_simulated_engine_leaves_alone_are_not_warmed(plan):
    assert plan(at_hand=[node("n1", "H100", 1)]).whole == plan().whole


def test_nothing_is_written_by_a_plan(plan, tmp_path):
    plan(out=tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_starts_of_boards_at_hand_are_predicted_and_priced(plan):
    found = plan(GPUS, at_hand=[node("n1", "H100", 2), node("n2", "A100", 2)], price="3.6")
    each = {start.model: found.takes(start) for start in found.starts if start.gpu == "H100"}
    small, large = each["Qwen/Qwen3-8B"], each["Qwen/Qwen3-14B"]
    assert small.gpus == large.gpus == 1
    assert small.boards.startswith("H100 SXM")
    assert small.seconds < large.seconds
    assert small.usd == pytest.approx(small.seconds * 0.001)
    assert found.wall_s < 0.75 * found.whole.seconds, "two machines work side by side"


def test_a_start_has_as_many_boards_as_the_load_needs(plan):
    at_hand = [node("n1", "H100", 8)]
    found = plan(GPUS, "gpu=H100", "model=Qwen/Qwen3-30B-A3B,Qwen/Qwen3-235B-A22B", at_hand=at_hand)
    assert {start.model: start.gpus for start in found.starts} == {
        "Qwen/Qwen3-30B-A3B": 1,
        "Qwen/Qwen3-235B-A22B": 8,
    }
    assert [each.starts[0].gpus for each in found.missing(found.record)] == [
        each.starts[0].gpus for each in found.visits
    ]


# ------------------------------------------------------------------------------------- what is done already


def test_what_is_held_is_not_planned_again(plan):
    whole = plan(seed=7)
    first = whole.starts[0]
    found = plan(record=Record(name="mine", seed=7, attempts=(held(first),)))
    assert [start.key for start in found.starts] == [each.key for each in whole.starts if each != first]
    assert found.record.seed == 7


def test_a_start_with_part_of_its_cells_held_takes_at_most_what_all_take(plan):
    whole = plan(seed=7)
    part = whole.starts[0].cells[:1]
    record = Record(name="mine", seed=7, attempts=(held(whole.starts[0], cells=part),))
    rest = next(start for visit in whole.missing(record) for start in visit.starts if len(start.cells) == 1)
    assert whole.takes(rest) == whole.takes(whole.starts[0])


def test_what_is_left_goes_by_the_pace_so_far(plan):
    found = plan(seed=7, price="36")
    assert found.left(found.record) == found.whole
    start = found.starts[0]
    slow = 3 * found.takes(start).seconds
    now = replace(found.record, attempts=(held(start, slow), held(found.starts[1], 9e9, outcome="failed")))
    left = found.left(now)
    assert left.seconds == pytest.approx(3 * 0.75 * found.whole.seconds)
    assert left.usd == pytest.approx(left.seconds * 0.01)


def test_failures_are_forgiven_when_asked(plan):
    first = plan(seed=7).starts[0]
    record = Record(name="mine", seed=7, attempts=(held(first, outcome="failed"),) * 3)
    assert first.key not in {start.key for start in plan(record=record).starts}
    assert first.key in {start.key for start in plan(record=record, retry_failed=True).starts}


def test_a_seed_of_ones_own_draws_the_order_and_keeps_it(plan):
    assert plan(seed=3).visits == plan(SIMULATED, "seed=3").visits
    again = plan(record=Record(name="mine", seed=3), seed=4)
    assert again.visits == plan(seed=3).visits
    assert "--seed 4: the order of this sweep was drawn with 3, and stays" in again.notes


# ------------------------------------------------------------------------------------------ the machines


def test_boards_that_nobody_has_are_imagined_to_be_told_and_refused_to_begin(plan):
    found = plan(GPUS, is_dry=True)
    assert [each.boards for each in found.machines if each.is_imagined] == [
        "8 × H100 SXM5 80GB",
        "8 × A100 SXM4 80GB",
    ]
    assert any("no machine at hand has a H100" in note for note in found.notes)
    said = refused(lambda: plan(GPUS, at_hand=[node("n1", "L4", 1)]))
    assert said.startswith("mine.toml: gpu H100: no machine at hand has one (there are: 1 with 1 × L4")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=Qwen/Qwen3-235B-A22B"], "needs at least 8 × H100 SXM5 80GB, and no machine has more than 2"),
        (
            ["engine.tensor_parallel=4"],
            "engine.tensor_parallel takes 4 GPUs of a machine, and the largest",
        ),
        (
            ["gpu=A100", "engine.args.pipeline_parallel_size=4"],
            "tensor × pipeline takes 4 GPUs, all machines together have 1 with 2 × A100",
        ),
        (["budget=1min"], "budget 1min: the first starts alone take about"),
        (["budget=never"], "budget never: expected a time or a sum"),
        (["price=0"], "price"),
        (["model=no-such-model"], "unknown model 'no-such-model'"),
        (["workload.input_tokens=9999999"], "has a context of"),
    ],
)
def test_what_fits_no_machine_is_named_with_what_would_do(plan, overrides, said):
    at_hand = [node("n1", "H100", 2), node("n2", "A100", 2)]
    found = refused(lambda: plan(GPUS, *overrides, at_hand=at_hand))
    assert found.startswith("mine.toml: ")
    assert said in found


def test_an_engine_that_spans_machines_takes_the_boards_of_several(plan):
    at_hand = [node("n1", "H100", 2), node("n2", "H100", 2)]
    found = plan(GPUS, "gpu=H100", "engine.args.pipeline_parallel_size=4", at_hand=at_hand)
    assert {start.gpus for start in found.starts} == {4}
    assert found.wall_s == pytest.approx(found.whole.seconds), "it has the cluster for itself"


def test_a_model_too_large_for_this_machine_is_refused_in_one_line(plan):
    said = refused(lambda: plan(SIMULATED, "model=Qwen/Qwen3-235B-A22B", "engine.kind=transformers"))
    assert said.startswith("mine.toml: Qwen/Qwen3-235B-A22B does not fit on this machine")
    assert "needs" in said


def test_machines_that_are_unlike_or_idle_are_named(plan):
    at_hand = [node("n1", "H100", 2), node("n2", "H100", 2, driver="550"), node("n3", "L4", 1)]
    notes = plan(GPUS, "gpu=H100", at_hand=at_hand).notes
    assert (
        "n1 and n2 (H100 SXM5 80GB) are unlike, and their runs are never pooled: driver none ≠ 550" in notes
    )
    assert any(note.startswith("1 of 2 machines stay idle") for note in notes)
    assert not plan(GPUS, "gpu=H100", "interleave=[]", at_hand=[at_hand[0]]).notes


def test_what_was_given_up_is_not_to_come(plan):
    found = plan(SIMULATED, "retries=0")
    first = held(found.starts[0], outcome="failed")
    left = found.left(replace(found.record, attempts=(first,)))
    still = [each for each in found.starts if each.cells != first.cells]
    assert left.seconds == pytest.approx(found.cost(still).seconds)
    assert still


def test_what_is_held_elsewhere_or_gone_is_said(plan):
    first = plan()
    here = host_facts.facts(first.machines[0].host)
    done = held(first.starts[0], place=Place(machine=here), runs=("r1",))
    so_far = replace(first.record, attempts=(done,))
    assert not plan(record=so_far, runs=("r1", "r2")).notes
    assert plan(record=so_far, runs=()).notes == (
        "r1 counts as held and is not there any more: it is not held again",
    )
    moved = replace(done, place=Place(machine=here | {"vllm": "0.1"}))
    (note,) = plan(record=replace(so_far, attempts=(moved,))).notes
    assert note.startswith("1 of 1 engine starts so far had a machine unlike those at hand")
    assert note.endswith(f"vllm 0.1 ≠ {here['vllm']}")


def test_a_driver_s_name_and_the_cluster_s_mean_the_same_board():
    gpu = Gpu(uuid="GPU-1", name="NVIDIA H100 80GB HBM3", memory_bytes=80 << 30)
    real = Machine(host=replace(HOST, gpus=(gpu,)), gpu=gpu.name, gpus=1)
    for machine in (real, node("n", "H100", 1)):
        assert machines.is_of(machine, "h100")
        assert machines.is_of(machine, None)
        assert not machines.is_of(machine, "A100")
    assert not machines.is_of(node("n"), "H100")
    assert machines.is_of(real, "H100 SXM5 80GB")
    assert not machines.is_of(real, "H100 PCIe 80GB")


# -------------------------------------------------------------------------------------------- the budget


def test_a_budget_of_the_command_outweighs_the_file_s(plan):
    assert plan(SIMULATED, "budget=1h").budget == spending.Budget(seconds=3600)
    assert plan(SIMULATED, "budget=1h", budget="2h").budget == spending.Budget(seconds=7200)
    assert plan().budget is None


def test_money_needs_a_price(plan):
    assert "mine.toml: budget in USD needs a price" in refused(lambda: plan(SIMULATED, "budget=5usd"))
    assert plan(SIMULATED, "budget=5usd", price="1").budget.usd == 5


def test_a_sweep_whose_budget_is_spent_is_planned_all_the_same(plan):
    """It ends by its budget, which is no error of what was asked."""
    record = Record(name="mine", seed=1, spent_s=3600)
    assert plan(SIMULATED, "budget=1h", record=record).budget.seconds == 3600


# ------------------------------------------------------------------------------------------- the clock


def visit(grid, pair: str, block: int = 0, gpus: int = 0) -> Visit:
    start = order.visits(grid, None, 1)[0].starts[0]
    return Visit(block=block, pair=pair, starts=(replace(start, key=f"{pair}{block}", gpus=gpus),))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=12), st.integers(1, 4), st.booleans())
def test_the_clock_lies_between_perfect_and_one_after_the_other(made_once, seconds, count, pack):
    at_hand = [node(f"n{place}", "H100", 2) for place in range(count)]
    visits = [visit(made_once, f"p{place}", gpus=1) for place in range(len(seconds))]
    took = dict(zip([each.starts[0].key for each in visits], map(float, seconds), strict=True))
    wall_s = seats.wall_s(visits, at_hand, took, pack)
    places = count * (2 if pack else 1)
    assert max(*seconds, sum(seconds) / places) - 1e-9 <= wall_s <= sum(seconds)


def test_visits_of_a_pair_stay_on_one_machine_and_engines_share_none_unless_packed(made_once):
    at_hand = [node("n1", "H100", 2), node("n2", "H100", 2)]
    same = [visit(made_once, "p", block, gpus=1) for block in range(4)]
    took = {each.starts[0].key: 10.0 for each in same}
    assert seats.wall_s(same, at_hand, took, pack=False) == 40
    apart = [visit(made_once, f"p{place}", gpus=1) for place in range(4)]
    took = {each.starts[0].key: 10.0 for each in apart}
    assert seats.wall_s(apart, at_hand, took, pack=False) == 20
    assert seats.wall_s(apart, at_hand, took, pack=True) == 10


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "mine.toml"
    path.write_text(SIMULATED)
    return grids.grid(grids.read(path), "mine.toml")
