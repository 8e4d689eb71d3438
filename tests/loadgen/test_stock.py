from __future__ import annotations

import asyncio
from time import perf_counter_ns

from profiler.loadgen import stock as stock_module
from profiler.loadgen.stock import Prepared, Stock
from profiler.workload import PlannedRequest


def source(count, made, size=10):
    for index in range(count):
        made.append(index)
        yield Prepared(PlannedRequest(index, 1, 1), bytes(size))


async def test_all_come_in_order_and_then_none():
    stock = Stock(source(10, []), 4)
    taken = []
    while (prepared := stock.take()) is not None:
        taken.append(prepared.planned.index)
        stock.refill()
        await asyncio.sleep(0)
    assert taken == list(range(10))
    assert stock.first() is None


async def test_it_is_filled_between_the_turns_of_the_loop_and_no_further():
    made = []
    stock = Stock(source(100, made), 8)
    assert made == []
    stock.fill()
    assert len(made) == 8
    for _ in range(3):
        stock.take()
    assert len(made) == 8
    stock.refill()
    assert len(made) == 8  # later, not now
    await asyncio.sleep(0.01)
    assert len(made) == 11


async def test_nothing_is_built_just_before_a_send_unless_it_runs_low():
    made = []
    stock = Stock(source(100, made), 8)
    stock.fill()
    stock.take()
    stock.quiet_until_ns = perf_counter_ns()
    stock.refill()
    await asyncio.sleep(0.01)
    assert len(made) == 8
    for _ in range(6):
        stock.take()
    stock.refill()
    await asyncio.sleep(0.01)
    assert len(made) == 9  # 2 of 8 are enough not to be late for


async def test_large_requests_fill_it_sooner(monkeypatch):
    monkeypatch.setattr(stock_module, "MOST_BYTES", 1000)
    made = []
    stock = Stock(source(100, made, size=400), 8)
    stock.fill()
    assert len(made) == 3
    stock.take()
    stock.refill()
    await asyncio.sleep(0.01)
    assert len(made) == 4
