"""What of a sweep is held next: each start of each cell once, pairs together, by lot and never by luck."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.sweep import order
from profiler.sweep.grid import grid as grid_of
from profiler.sweep.nouns import Attempt, File, Grid, Outcome, Record, Start, Visit


def sweep(axes: dict, *, engine: str = "simulated", **more) -> Grid:
    fields = {"engine.kind": engine, **more.pop("set", {})}
    return grid_of(File(axes=axes, set=fields, scenario=more.pop("scenario", "smoke"), **more), "x")


def attempt(start: Start, outcome: Outcome = "held", cells: tuple[str, ...] | None = None) -> Attempt:
    of = start.cells if cells is None else cells
    return Attempt(
        key=start.key, cells=of, number=start.number, outcome=outcome, utc="20260101T000000Z", took_s=1.0
    )


def record(*attempts: Attempt) -> Record:
    return Record(name="x", seed=1, attempts=attempts)


def starts(visits: list[Visit]) -> list[Start]:
    return [start for visit in visits for start in visit.starts]


def asked(visits: list[Visit]) -> list[tuple[str, int]]:
    return [(cell, start.number) for start in starts(visits) for cell in start.cells]


SMALL = {"model": ["a", "b"], "load.concurrency": [1, 4, 8]}

# ----------------------------------------------------------------------------------- what a start serves


def test_loads_of_a_scenario_share_a_run_folder_and_scenarios_an_engine_start():
    axes = {"model": ["a"], "workload.output_tokens": [8, 16], "load.concurrency": [4, 1]}
    (visit,) = order.visits(sweep(axes, starts=1), None, 1)
    (start,) = visit.starts
    assert [
        (each.scenario.workload.output_tokens, each.scenario.load.concurrency) for each in start.asked
    ] == [
        (8, (4, 1)),
        (16, (4, 1)),
    ]
    assert [len(each.cells) for each in start.asked] == [2, 2]
    assert start.sized_for == ()


def test_loads_that_a_run_cannot_list_are_run_folders_of_their_own():
    axes = {"model": ["a"], "load.requests": [16, 32]}
    ((start,),) = [visit.starts for visit in order.visits(sweep(axes, scenario="batch", starts=1), None, 1)]
    assert [each.scenario.load.requests for each in start.asked] == [16, 32]
    axes = {"model": ["a"], "load.requests_per_s": [2, 4.5]}
    ((start,),) = [visit.starts for visit in order.visits(sweep(axes, scenario="open", starts=1), None, 1)]
    assert [each.scenario.load.requests_per_s for each in start.asked] == [(2, 4.5)]


@pytest.mark.parametrize(
    "axis",
    [
        {"model": ["a", "b"]},
        {"weights": ["hub", "random"]},
        {"gpu": ["H100", "A100"]},
        {"engine.dtype": ["float16", "bfloat16"]},
        {"engine.args.max_num_seqs": [1, 2]},
        {"telemetry.devices": [[0], [1]]},
    ],
)
def test_what_shapes_an_engine_is_another_start(axis):
    found = starts(
        order.visits(sweep({"model": ["a"], **axis, "load.concurrency": [1, 2]}, starts=1), None, 1)
    )
    assert [len(start.asked) for start in found] == [1, 1]
    assert len({start.key for start in found}) == 2


@pytest.mark.parametrize(
    ("engine", "fields", "gpus"),
    [
        ("simulated", {}, 0),
        ("simulated", {"engine.tensor_parallel": 2}, 2),
        ("vllm", {}, None),
        ("vllm", {"engine.tensor_parallel": 1}, 1),
        ("vllm", {"engine.tensor_parallel": 4, "engine.args.pipeline-parallel-size": 2}, 8),
        ("endpoint", {"engine.args.url": "http://127.0.0.1:1"}, 0),
    ],
)
def test_gpus_that_are_known_beforehand(engine, fields, gpus):
    (start,) = starts(order.visits(sweep({"model": ["a"]}, engine=engine, set=fields, starts=1), None, 1))
    assert start.gpus == gpus


def test_a_start_that_is_partly_done_is_sized_for_all_of_it():
    """So that the engine of the rest is as large as theirs was."""
    grid = sweep(SMALL, starts=1)
    whole = starts(order.visits(grid, None, 1))
    done = attempt(whole[0], cells=whole[0].cells[1:])
    rest = next(each for each in starts(order.visits(grid, record(done), 1)) if each.model == whole[0].model)
    assert rest.cells == whole[0].cells[:1]
    assert rest.asked[0].scenario.load.concurrency == (1,)
    assert [each.load.concurrency for each in rest.sized_for] == [(1, 4, 8)]
    assert rest.key != whole[0].key


# --------------------------------------------------------------------------------------------- the order


def test_models_alternate_and_every_second_block_is_reversed():
    axes = {"model": ["a", "b", "c"], "engine.dtype": ["float16", "bfloat16"], "load.concurrency": [1, 2]}
    found = order.visits(sweep(axes, starts=4), None, 3)
    assert [visit.block for visit in found] == [0, 0, 1, 1, 2, 2, 3, 3]
    for visit in found:
        assert {start.model for start in visit.starts} == {"a", "b", "c"}
        assert len({start.asked[0].scenario.engine.dtype for start in visit.starts}) == 1
    held = {n: [(v.pair, s.model) for v in found if v.block == n for s in v.starts] for n in range(4)}
    assert held[1] == held[0][::-1]
    assert held[3] == held[2][::-1]
    assert len({visit.pair for visit in found}) == 2


def test_interleaving_other_axes():
    axes = {"model": ["a", "b"], "engine.dtype": ["float16", "bfloat16"]}
    sizes = {
        ("model",): [2, 2],
        ("engine.dtype",): [2, 2],
        ("model", "engine.dtype"): [4],
        (): [1, 1, 1, 1],
    }
    for interleave, expected in sizes.items():
        found = order.visits(sweep(axes, starts=1, interleave=interleave), None, 1)
        assert [len(visit.starts) for visit in found] == expected


def test_a_pair_holds_though_one_of_it_needs_settings_of_its_own():
    """`when` gives b two GPUs: it is compared with a all the same."""
    when = [{"cells": {"model": "b"}, "set": {"engine.tensor_parallel": 2}}]
    grid = grid_of(
        msgspec.convert({"axes": SMALL, "scenario": "smoke", "when": when, "starts": 1}, File), "x"
    )
    (visit,) = order.visits(grid, None, 1)
    assert {start.model: start.gpus for start in visit.starts} == {"a": None, "b": 2}


def test_a_model_that_is_new_in_a_pair_goes_where_the_others_were():
    from profiler.sweep.nouns import Place
    from profiler.sweep.remote import _before

    axes = {"model": ["a", "b"], "engine.dtype": ["float16", "bfloat16"]}
    grown = sweep({**axes, "model": ["a", "b", "new"]}, starts=1)
    held = starts(order.visits(sweep(axes, starts=1), None, 1))
    of = {cell.id: cell.values for cell in grown.cells}
    nodes = {start.cells: of[start.cells[0]]["engine.dtype"] for start in held}
    there = [
        msgspec.structs.replace(attempt(start), place=Place(machine={}, node=nodes[start.cells]))
        for start in held
    ]
    found = _before(SimpleNamespace(grid=grown, record=record(*there)))
    assert found == {cell: values["engine.dtype"] for cell, values in of.items()}


def test_cells_that_nothing_is_compared_with_are_visits_of_their_own():
    exclude = ({"model": "a", "load.concurrency": 8}, {"model": "b", "load.concurrency": [1, 4]})
    found = order.visits(sweep(SMALL, starts=1, exclude=exclude), None, 1)
    assert [len(visit.starts) for visit in found] == [1, 1]


def test_seeds_draw_different_orders_and_models_come_first_equally_often():
    axes = {"model": ["a", "b"], "load.concurrency": [1]}
    grid = sweep(axes, starts=2)
    first = [starts(order.visits(grid, None, seed))[0].model for seed in range(200)]
    assert 70 <= first.count("a") <= 130


# -------------------------------------------------------------------------------------------- what is left


def test_a_failed_start_comes_again_until_its_retries_are_used_up():
    grid = sweep(SMALL, starts=2, retries=1)
    whole = starts(order.visits(grid, None, 1))
    first = whole[0]
    held = [attempt(each) for each in whole if each.model == first.model and each is not first]
    failed = attempt(first, "failed")
    once = record(*held, failed)
    assert first in starts(order.visits(grid, once, 1))
    twice = record(*held, failed, failed)
    assert [each.model for each in starts(order.visits(grid, twice, 1))].count(first.model) == 0
    assert order.given_up(grid, twice) == {(cell, 0): failed for cell in first.cells}
    assert first in starts(order.visits(grid, twice, 1, since=len(twice.attempts)))
    assert order.given_up(grid, twice, since=2) == {}
    mended = record(*held, failed, failed, attempt(first))
    assert order.given_up(grid, mended) == {}


def test_a_cell_that_never_starts_is_given_up_with_all_its_starts():
    """Minutes each with a real engine: not starts × (retries + 1) times."""
    grid = sweep(SMALL, starts=4, retries=1)
    whole = starts(order.visits(grid, None, 1))
    bad = [each for each in whole if each.model == "a"]
    failed = [attempt(each, "failed") for each in bad[:2]]
    assert len(starts(order.visits(grid, record(failed[0]), 1))) == 8
    left = record(*failed)
    assert {each.model for each in starts(order.visits(grid, left, 1))} == {"b"}
    assert order.given_up(grid, left) == {
        (cell, number): failed[1] for number in range(4) for cell in bad[0].cells
    }
    held = attempt(bad[2])
    assert order.given_up(grid, record(*failed, held)) == {}


def test_failures_are_of_cells_whatever_start_they_were_in():
    """A file that grew asks for another start; what failed in the old one has failed all the same."""
    before, after = (
        sweep({**SMALL, "load.concurrency": n}, starts=1, retries=0) for n in ([1, 4], [1, 4, 8])
    )
    failed = record(*(attempt(start, "failed") for start in starts(order.visits(before, None, 1))))
    assert {len(start.cells) for start in starts(order.visits(after, failed, 1))} == {1}


@pytest.mark.parametrize(
    ("outcome", "most"), [("lost", order.LOST_MOST), ("disturbed", 99), ("cut short", 99)]
)
def test_what_was_not_the_starts_own_fault_has_more_patience(outcome, most):
    grid = sweep(SMALL, starts=1, retries=0)
    first, second = starts(order.visits(grid, None, 1))
    times = [attempt(first, outcome)] * most
    assert starts(order.visits(grid, record(*times), 1)) == [first, second]
    left = starts(order.visits(grid, record(*times, times[0]), 1))
    assert left == ([second] if outcome == "lost" else [first, second])


def test_what_is_no_longer_asked_for_is_told():
    grid = sweep(SMALL, starts=2)
    held = [attempt(start) for start in starts(order.visits(grid, None, 1))]
    smaller = sweep({"model": ["a"], "load.concurrency": [1, 4, 8]}, starts=1)
    left = {(cell.id, 0) for cell in smaller.cells}
    assert order.unasked(grid, record(*held)) == []
    assert set(order.unasked(smaller, record(*held))) == set(asked(order.visits(grid, None, 1))) - left
    assert order.visits(smaller, record(*held), 1) == []
    assert order.missing(smaller, record(*held)) == []


# --------------------------------------------------------------------------------------------- properties


@st.composite
def sweeps(draw) -> Grid:
    def some(values):
        return draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))

    axes = {
        "model": some(["a", "b", "c"]),
        "engine.dtype": some(["float16", "bfloat16", "float32"]),
        "workload.output_tokens": some([8, 16]),
        "load.concurrency": some([1, 2, 4, 8]),
    }
    interleave = draw(st.lists(st.sampled_from(sorted(axes)), unique=True, max_size=2))
    exclude = ()
    if len(axes["model"]) > 1:
        exclude = (
            {"model": axes["model"][0], "load.concurrency": draw(st.sampled_from(axes["load.concurrency"]))},
        )
    return sweep(axes, starts=draw(st.integers(1, 4)), interleave=tuple(interleave), exclude=exclude)


@settings(max_examples=25, deadline=None)
@given(sweeps(), st.integers(0, 2**32))
def test_every_start_of_every_cell_exactly_once(grid, seed):
    found = order.visits(grid, None, seed)
    once = asked(found)
    assert len(once) == len(set(once)) == len(grid.cells) * grid.file.starts
    assert set(once) == set(order.missing(grid, None))
    assert len({start.key for start in starts(found)}) == len(starts(found))
    scenarios = {cell.id: cell for cell in grid.cells}
    for start in starts(found):
        for each in start.asked:
            assert each.scenario.engine == start.asked[0].scenario.engine
            loads = tuple(load for cell in each.cells for load in scenarios[cell].scenario.load.concurrency)
            assert each.scenario.load.concurrency == loads


@settings(max_examples=25, deadline=None)
@given(sweeps(), st.integers(0, 2**32))
def test_blocks_come_in_order_and_each_second_is_the_reverse_of_the_one_before(grid, seed):
    found = order.visits(grid, None, seed)
    assert found == order.visits(grid, None, seed)
    assert [visit.block for visit in found] == sorted(visit.block for visit in found)
    blocks = [
        [(visit.pair, start.cells) for visit in found if visit.block == n for start in visit.starts]
        for n in range(grid.file.starts)
    ]
    for n in range(1, len(blocks), 2):
        assert blocks[n] == blocks[n - 1][::-1]
    assert all(sorted(block) == sorted(blocks[0]) for block in blocks)


@settings(max_examples=25, deadline=None)
@given(sweeps(), st.integers(0, 2**32), st.data())
def test_cells_alike_but_for_the_interleaved_axes_are_in_one_visit(grid, seed, data):
    of = {cell.id: cell.values for cell in grid.cells}
    home = {}
    for visit in order.visits(grid, None, seed):
        for cell in (cell for start in visit.starts for cell in start.cells):
            alike = [each for each in of[cell].items() if each[0] not in grid.file.interleave]
            assert home.setdefault((visit.block, repr(alike)), visit.pair) == visit.pair


@settings(max_examples=25, deadline=None)
@given(sweeps(), st.integers(0, 2**32), st.data())
def test_what_remains_keeps_its_order(grid, seed, data):
    """Whatever was held meanwhile, of whichever starts and of parts of them."""
    before = order.visits(grid, None, seed)
    done = data.draw(st.sets(st.sampled_from(asked(before))))
    held = [
        attempt(start, cells=(cell,))
        for start in starts(before)
        for cell in start.cells
        if (cell, start.number) in done
    ]
    after = order.visits(grid, record(*held), seed)
    assert asked(after) == [each for each in asked(before) if each not in done]
    assert all(visit.starts for visit in after)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True), st.data())
def test_a_file_that_grew_is_held_for_what_is_new_alone(loads, data):
    before = sweep({"model": ["a", "b"], "load.concurrency": loads}, starts=2)
    held = [attempt(start) for start in starts(order.visits(before, None, 5))]
    more = data.draw(st.permutations(sorted({*loads, 100, 101})))
    after = sweep({"model": ["b", "c", "a"], "load.concurrency": more}, starts=3)
    left = asked(order.visits(after, record(*held), 5))
    assert len(left) == len(set(left))
    assert {*left, *((cell, each.number) for each in held for cell in each.cells)} == set(
        order.missing(after, None)
    )
    assert set(left).isdisjoint((cell, each.number) for each in held for cell in each.cells)
