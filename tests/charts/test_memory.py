"""The memory account, drawn: bars add up, parts lie below their whole, and nothing is made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import experts, routing
from profiler import memory as accounts
from profiler.charts import memory
from profiler.charts.nouns import Absent
from profiler.memory import Row
from profiler.schema import LoadPoint, Memory
from tests import make
from tests.charts.valid import checked
from tests.routing import recorded
from tests.test_memory import BOARD, COUNTED, GIB, model, run_of, sampled, throughout

LOADS = tuple(
    make.window(n, 10 + 20 * n, 20 + 20 * n, point=LoadPoint(mode="closed", concurrency=load))
    for n, load in enumerate((1, 64))
)
USED = [
    (15.0, "engine:m", "kv_cache_usage_frac", 0.01),
    (16.0, "engine:m", "kv_cache_usage_frac", 0.03),
    (35.0, "engine:m", "kv_cache_usage_frac", 0.5),
    (15.0, "engine:m", "requests_running", 1.0),
    (35.0, "engine:m", "requests_running", 64.0),
]


def drawn(tmp_path, account=COUNTED, samples=(), **changes):
    run = run_of(tmp_path, account, [*sampled("gpu:GPU-1", BOARD), *samples], windows=LOADS, **changes)
    return run, memory.of_run(run)


def of(chart, part):
    (row,) = [row for row in chart.rows if row["part"] == part]
    return row


def test_bars_stand_side_by_side_up_to_the_device(tmp_path):
    run, (chart, *_) = drawn(tmp_path)
    top = [row for row in checked(chart).rows if row["level"] == 0 and row["from_gib"] is not None]
    assert top[0]["from_gib"] == 0
    assert [row["from_gib"] for row in top[1:]] == pytest.approx([row["to_gib"] for row in top[:-1]])
    assert top[-1]["to_gib"] == pytest.approx(80)
    assert sum(row["share"] for row in top) == pytest.approx(1)
    held = {row.name: row.bytes for row in accounts.account(run).rows}
    assert all(row["gib"] * GIB == held[row["part"]] for row in top)
    assert "80.0 GiB of 1 GPU: weights 57.0 GiB" in chart.summary
    assert any(
        note.startswith("one account of the whole run") and "no interval" in note for note in chart.notes
    )


def test_parts_lie_below_what_they_are_part_of(tmp_path):
    _, (chart, *_) = drawn(tmp_path, samples=USED)
    weights, routed = of(chart, "weights"), of(chart, "routed experts")
    parts = [row for row in chart.rows if row["part_of"] == "weights"]
    assert (parts[0]["from_gib"], parts[-1]["to_gib"]) == (weights["from_gib"], weights["to_gib"])
    assert {row["group"] for row in [*parts, routed]} == {"weights"}
    assert of(chart, "held tokens")["gib"] == pytest.approx(6)
    assert of(chart, "held tokens")["from_gib"] == of(chart, "KV cache")["from_gib"]


def test_what_nobody_knows_has_no_size_and_is_said(tmp_path):
    _, (chart, *_) = drawn(tmp_path, replace(COUNTED, graphs_bytes=None))
    row = of(chart, "CUDA graphs")
    assert (row["gib"], row["from_gib"]) == (None, None)
    assert any(note.startswith("CUDA graphs n/a") for note in chart.notes)
    assert "Not known: " in chart.summary
    assert "CUDA graphs" in chart.summary


def test_a_sum_beyond_the_device_reaches_beyond_its_line(tmp_path):
    board = BOARD | {"memory_free_bytes": BOARD["memory_free_bytes"] + 2 * GIB}
    run = run_of(tmp_path, COUNTED, sampled("gpu:GPU-1", board))
    chart = checked(memory.of_run(run)[0])
    assert max(row["to_gib"] or 0 for row in chart.rows) == pytest.approx(82)
    assert of(chart, "unexplained")["from_gib"] is None
    assert any("unexplained -2.00 GiB" in note for note in chart.notes)


def test_names_that_find_no_room_are_told(tmp_path):
    _, (chart, *_) = drawn(tmp_path)
    (line,) = [note for note in chart.notes if note.startswith("too narrow")]
    assert "embeddings 1.00 GiB" in line
    assert "weights" not in line


def test_nothing_known_is_no_drawing(tmp_path):
    run = run_of(tmp_path, Memory(), [], model=model(weights="remote"), gpus=())
    found = memory.of_run(run)
    assert all(isinstance(each, Absent) for each in found)
    assert "does not say what it holds" in found[0].reason


def test_an_account_of_nothing_but_a_remainder_is_no_drawing(tmp_path):
    seen = throughout("process:m", {"rss_bytes": 3 * GIB})
    run = run_of(tmp_path, Memory(), seen, gpus=(), model=replace(model(weights="remote"), name="m"))
    assert accounts.account(run).total_bytes == 3 * GIB
    found, *_ = memory.of_run(run)
    assert isinstance(found, Absent)
    assert "had 3.00 GiB" in found.reason


def test_use_by_load_is_the_accounts(tmp_path):
    run, (_, chart, _) = drawn(tmp_path, samples=USED)
    rows = {row["load"]: row for row in checked(chart).rows}
    assert rows["1"]["mean_gib"] == pytest.approx(0.02 * 12)
    assert rows["1"]["most_gib"] == pytest.approx(0.03 * 12)
    assert rows["64"]["mean_gib"] == pytest.approx(6)
    assert {row["cache_gib"] for row in chart.rows} == {12}
    assert rows["64"]["required_gib"] == accounts.account(run).uses[1].required_bytes / GIB
    assert "2 windows of 1 engine start" in chart.summary


def test_a_cache_that_no_sample_shows_in_use_is_absent(tmp_path):
    _, (_, found, *_) = drawn(tmp_path)
    assert isinstance(found, Absent)
    assert "no sample" in found.reason


def test_experts_read_are_a_bound_where_routing_was_not_recorded(tmp_path):
    _, (*_, chart) = drawn(tmp_path, samples=USED)
    rows = {row["load"]: row for row in checked(chart).rows}
    assert rows["1"]["share"] == pytest.approx(8 / 128)
    assert rows["64"]["share"] == pytest.approx(1 - (1 - 8 / 128) ** 64)
    assert rows["64"]["read_gib"] == pytest.approx(rows["64"]["share"] * 54)
    assert any("upper bound" in note for note in chart.notes)


def test_experts_read_are_the_recorded_ones_where_there_are_some(tmp_path):
    run, _ = drawn(tmp_path, samples=USED)
    chosen = recorded.drawn(70, 4, [experts.marginals(128, 8, 2.0)])
    run = recorded.add(run, chosen, 128)
    chart = checked(memory.of_run(run)[-1])
    rows = {row["load"]: row for row in chart.rows}
    assert rows["64"]["share"] == pytest.approx(routing.report(run).decode_coverage(64).value / 128)
    assert {row["source"] for row in chart.rows} == {"the recorded routing"}


def test_a_dense_model_has_no_experts_to_read(tmp_path):
    _, found = drawn(tmp_path, samples=USED, model=model("Qwen/Qwen3-32B"), account=Memory(
        weights_bytes=57 * GIB, kv_bytes=12 * GIB, kv_tokens=131_072
    ))  # fmt: skip
    assert len(found) == 2


def test_names_do_not_break_lines(tmp_path):
    _, (chart, *_) = drawn(tmp_path, model=replace(model(), name="a\nb<script>"))
    assert checked(chart).title.endswith(": a b<script>")


@given(st.lists(st.none() | st.integers(-3 * GIB, 9 * GIB), min_size=1, max_size=8))
def test_no_bar_lies_upon_another(sizes):
    rows = [Row(name=f"row {n}", bytes=size) for n, size in enumerate(sizes)]
    rows += [Row(name="part", bytes=GIB, part_of="row 0")]
    *whole, part = memory._placed(rows)
    placed = [each for each in whole if each.end is not None]
    assert [each.start for each in placed] == [0.0, *(each.end for each in placed)][: len(placed)]
    assert all(each.row.bytes > 0 for each in placed)
    assert (part.start == whole[0].start) if whole[0].start is not None else part.start is None
