"""What is said of a sweep before, during and after it."""

from __future__ import annotations

import json
import re

import pytest
from msgspec.structs import replace

from profiler.sweep import grid as grids
from profiler.sweep import outline, standing, telling
from profiler.sweep.machines import here
from profiler.sweep.nouns import Attempt, Began, Ended, Place, Portion, Record, Said, UnderWay
from profiler.sweep.outline import Asked

TEXT = """
name = "pilot"
scenario = "smoke"
starts = 2
price = 36
seed = 5
exclude = [{ model = "sim-b", load.concurrency = 2 }]
[axes]
model = ["sim-a", "sim-b"]
load.concurrency = [1, 2]
[set]
engine.kind = "simulated"
"""
PLACE = Place(machine={}, node="node-1")


@pytest.fixture
def grid(tmp_path):
    def make(text: str = TEXT, *overrides: str):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return grids.grid(grids.read(path), "mine.toml", overrides)

    return make


@pytest.fixture
def plan(grid):
    def make(*overrides: str, record=None, **asked):
        return outline.outline(grid(TEXT, *overrides), record, (here(),), Asked(**asked))

    return make


def attempt(start, outcome="held", **changes) -> Attempt:
    known = {"key": start.key, "cells": start.cells, "number": start.number, "outcome": outcome}
    return Attempt(**known | {"utc": "20260101T000000Z", "took_s": 60.0} | changes)


def record(*attempts: Attempt, **changes) -> Record:
    spent_s = sum(each.took_s for each in attempts)
    return Record(**{"name": "pilot", "seed": 5, "attempts": attempts, "spent_s": spent_s} | changes)


# ------------------------------------------------------------------------------------------- before it


def test_a_plan_says_what_it_is_of_and_what_it_takes(plan):
    first, second, *rest = telling.announced(plan())
    assert first == (
        "sweep pilot: 3 cells (2 model × 2 load.concurrency, 1 left out), 2 engine starts each, seed 5"
    )
    assert re.fullmatch(
        r"it takes 4 engine starts in 4 run folders: about .* s, 0\.\d\d USD for the machine "
        r"\(engine starts as usual; windows .*\)",
        second,
    )
    assert not rest


def test_a_plan_that_goes_on_says_how_far_it_is(plan):
    whole = plan()
    done = record(attempt(whole.starts[0]), attempt(whole.starts[1], "disturbed"), spent_usd=1.2)
    count = len(whole.starts[0].cells)
    _, so_far, *_ = telling.announced(plan(record=done))
    assert so_far == (
        f"so far {count} of 6 held (3 cells × 2 starts), 0 cells whole; engine starts that do not count: "
        "1 disturbed; 2 min and 1.20 USD of machines spent"
    )
    every = record(*map(attempt, whole.starts))
    assert list(telling.announced(plan(record=every)))[-1] == "nothing is left to be held"


def test_a_budget_says_how_far_it_lasts(plan):
    each = plan().takes(plan().starts[0]).seconds
    *_, enough = telling.announced(plan(budget="2h,50usd"))
    assert enough == "budget: 2 h 00 min of machine time and 50.00 USD: enough for all"
    two = 2.2 * max(each, plan().takes(plan().starts[1]).seconds)
    *_, short = telling.announced(plan(budget=f"{two:.0f}s"))
    assert short.endswith("enough for about 2 starts")


def test_the_order_is_told_pair_by_pair(plan):
    head, *pairs = telling.in_order(plan())
    assert head == "block 1 of 2, as --seed 5 draws it:"
    assert sorted(", then ".join(sorted(each.strip().split(", then "))) for each in pairs) == [
        "sim-a concurrency=1,2, then sim-b concurrency=1"
    ]


def test_a_dry_run_is_one_document_when_asked(plan):
    (line,) = telling.dry(plan(), as_json=True)
    told = json.loads(line)
    assert told["engine_starts"] == len(told["order"]) == 4
    assert told["standing"]["asked"] == 6
    assert sum(each["seconds"] for each in told["order"]) == pytest.approx(told["machine_s"])
    assert {cell for each in told["order"] for cell in each["cells"]} == {c.id for c in plan().grid.cells}


# ------------------------------------------------------------------------------------------- during it


def test_what_happens_is_told_in_a_line(plan):
    found = plan()
    start = next(each for each in found.starts if len(each.cells) == 2)
    now = record(attempt(start, took_s=90.0))
    assert list(telling.heard(Began(start, PLACE), found, now)) == ["node-1: sim-a concurrency=1,2"]
    assert not list(telling.heard(Began(start, replace(PLACE, node=None)), found, now)), "shown as it runs"
    (line,) = telling.heard(Ended(start, now.attempts), found, now)
    assert line.startswith("2 of 6 held: sim-a concurrency=1,2 took 2 min; about ")
    assert line.endswith("USD left")
    gone = attempt(start, "failed", why="the engine died\nTraceback: \x1b[31mmany lines")
    assert list(telling.heard(Ended(start, (gone,)), found, record(gone))) == [
        "sim-a concurrency=1,2: failed: the engine died"
    ]
    assert list(telling.heard(Said("a node\x1b[2J is gone"), found, now)) == ["a node [2J is gone"]


# -------------------------------------------------------------------------------------------- after it


def failing(found):
    """All held but one start, which failed as often as it may."""
    bad, *good = found.starts
    why = "the engine died: out of memory\n12 lines of its log"
    return record(*map(attempt, good), *[attempt(bad, "failed", why=why)] * 3), bad


def test_the_end_says_what_is_held_what_failed_and_what_to_do_next(plan):
    found = plan()
    now, bad = failing(found)
    told = list(telling.summary(found, now, "my results", None))
    assert told[0].startswith(f"sweep pilot: {6 - len(bad.cells)} of 6 held")
    assert told[0].endswith("engine starts that do not count: 3 failed; 6 min of machines spent")
    assert told[1].startswith("given up after 3 times: sim-")
    assert told[1].endswith(": the engine died: out of memory")
    assert told[2:] == [
        "--retry-failed holds them again",
        "next: profile compare 'my results' --by model,concurrency",
        "      profile claims 'my results'",
    ]


@pytest.mark.parametrize("by", ["budget", "machines"])
def test_what_ended_it_before_its_end_is_said(plan, by):
    found = plan()
    told = list(telling.summary(found, found.record, "results", by))
    assert told[-1].endswith("goes on")
    assert not any("compare" in line for line in told), "there is nothing to compare"


def test_columns_are_those_of_compare(grid):
    from profiler.comparison import COLUMNS

    assert set(telling.COLUMNS.values()) <= set(COLUMNS)
    assert telling.columns(grid()) == ["model", "concurrency"]
    more = TEXT.replace("[set]", 'engine.dtype = ["float32", "bfloat16"]\n[set]')
    assert telling.columns(grid(more)) == ["model", "concurrency", "settings"]


def test_a_status_counts_cells_and_the_rest(plan):
    found = plan()
    now, bad = failing(found)
    old = attempt(bad, cells=("0" * 16,))
    portion = Portion(cells=bad.cells, digest="d")
    begun = UnderWay(key=bad.key, portions=(portion,), number=bad.number, group="g", utc="20260101T000000Z")
    now = replace(now, attempts=(*now.attempts, old), under_way=(begun,))
    told = list(telling.status(found.grid, now))
    assert told[0].startswith(f"sweep pilot: {6 - len(bad.cells)} of 6 held (3 cells × 2 starts), ")
    assert told[1] == "1 engine start under way, or broken off: the same command goes on"
    assert told[2] == "1 more held that the file does not ask for any more"
    head, first, second = (line.split() for line in told[3:6])
    assert head == ["cells", "held", "asked", "given", "up"]
    held = {first[0]: first[1:], second[0]: second[1:]}
    assert held[bad.model] == [
        f"{int(held[bad.model][1]) - len(bad.cells)}",
        held[bad.model][1],
        f"{len(bad.cells)}",
    ]
    assert {name: row[1] for name, row in held.items()} == {"sim-a": "4", "sim-b": "2"}


def test_a_record_alone_tells_what_it_knows(plan):
    now, bad = failing(plan())
    told = list(telling.status(None, now))
    assert told[0].startswith(f"sweep pilot: {6 - len(bad.cells)} starts of 3 cells held")
    assert "profile sweep status FILE.toml" in told[-1]
    document = json.loads(telling.as_json(None, now, "results"))
    assert (document["out"], document["asked"], document["held"]) == ("results", None, 6 - len(bad.cells))


def test_the_document_has_all_that_was_given_up(plan):
    found = plan()
    now, bad = failing(found)
    document = json.loads(telling.as_json(found.grid, now, "results"))
    assert [each["cell"] for each in document["given_up"]] == sorted(
        bad.cells, key=[cell.id for cell in found.grid.cells].index
    )
    assert {(each["times"], each["outcome"]) for each in document["given_up"]} == {(3, "failed")}
    assert document["asked"] - document["held"] == len(bad.cells)
    forgiven = standing.standing(found.grid, now, since=len(now.attempts))
    assert not forgiven.given_up


def test_a_model_s_folder_goes_by_its_name():
    assert telling.value_words({"model": "/a/b/mine", "engine.dtype": "auto"}) == "mine dtype=auto"
    assert telling.value_words({"model": "Qwen/Qwen3-8B"}) == "Qwen/Qwen3-8B"


def test_small_sums_are_not_nothing():
    told = [telling._usd(each) for each in (0.00067, 0.1, 1234.5)]
    assert told == ["0.00067 USD", "0.10 USD", "1,234.50 USD"]
