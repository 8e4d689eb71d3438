"""Throughput against latency: the figures of the tables, each load in its place, doubt and limits shown."""

from __future__ import annotations

import msgspec
import pytest

from profiler import figures, store
from profiler.charts import drawing, latency, loads, words
from profiler.charts.latency import MOST_LINES, RATE, TIME
from profiler.charts.nouns import Absent
from profiler.client import ClientAudit
from profiler.schema import Estimate, Imported, ImportedPoint, LoadPoint, Model
from profiler.settings import Load, Search
from tests import make
from tests.charts.valid import checked

LOADS = (1, 4)
BUSY = ClientAudit(
    cpu_frac=1.0, loop_lag_p99_s=0.1, send_lag_p99_s=0.1, chunks=9, bound_by=("the client was busy",)
)


def at(load):
    return LoadPoint(mode="closed", concurrency=load)


def of_loads(factors=None, repeats=3):
    """Windows of each load, each repeat a little faster than the one before; more slots, more requests."""
    held = []
    for number, (load, repeat) in enumerate((x, r) for x in LOADS for r in range(repeats)):
        start = 10.0 + 40 * number
        records = [make.request(number, n, start + n * 0.2 / load + repeat * 0.001) for n in range(50 * load)]
        held.append(
            (
                make.window(number, start, start + 10, point=at(load), repeat=repeat, engine_start=repeat),
                records,
            )
        )
    return held


def run_of(tmp_path, name="run", windows=None, **changes):
    return store.load(make.writer(tmp_path, windows or of_loads(), run_id=name, **changes).folder)


def scenario(**changes):
    return msgspec.structs.replace(make.SCENARIO, load=Load(concurrency=LOADS), **changes)


def named(tmp_path, name, **changes):
    model = Model(name=name, weights="random", facts=make.FACTS)
    return run_of(tmp_path, f"run-{name.replace('/', '-')}", model=model, **changes)


def figures_of(run):
    return {each.point.concurrency: each.estimates for each in figures.of_run(run)}


def test_points_are_the_figures_of_the_tables(tmp_path):
    run = run_of(tmp_path)
    charts = [checked(each) for each in latency.of_runs([run])]
    assert [each.id for each in charts] == ["latency-ttft-run", "latency-itl-run", "latency-e2e-run"]
    known = figures_of(run)
    for chart, name in zip(charts, ("ttft_s", "itl_s", "e2e_s"), strict=True):
        assert [(row["load"], row["statistic"]) for row in chart.rows] == [
            (str(load), statistic) for load in LOADS for statistic in ("p50", "p99")
        ]
        for row in chart.rows:
            estimates = known[int(row["load"])]
            for key, estimate in ((RATE, estimates[RATE]), (TIME, estimates[f"{name}_{row['statistic']}"])):
                assert (row[key], row[f"{key}_low"], row[f"{key}_high"]) == (
                    estimate.value,
                    estimate.low,
                    estimate.high,
                )
            assert (row["windows"], row["starts"]) == (3, 3)
            assert row["doubt"] is None


def test_the_summary_has_values_intervals_and_n(tmp_path):
    chart = latency.of_runs([run_of(tmp_path)])[0]
    assert "at 1: 25.0 (25.0–25.0) tokens/s, p50 100 (100–100) ms, p99 100 ms; at 4: 98.8" in chart.summary
    assert "n of each load: 3 windows, 3 engine starts and 150 to 600 requests" in chart.notes
    assert "whiskers: 95 % intervals; of tokens/s over 3 repeats" in chart.notes
    assert "beside the points: requests at a time" in chart.notes
    assert any("random weights" in note for note in chart.notes)


def test_one_window_has_no_whiskers_and_says_so(tmp_path):
    chart = checked(latency.of_runs([run_of(tmp_path, windows=[make.steady(0, 10)])])[1])
    assert chart.rows[0][f"{TIME}_low"] is None
    assert "no whisker: one window, or too few requests to bound it" in chart.notes


def test_a_client_that_was_the_limit_makes_hollow_points(tmp_path):
    held = of_loads()
    held[-1] = (msgspec.structs.replace(held[-1][0], audit=BUSY), held[-1][1])
    chart = checked(latency.of_runs([run_of(tmp_path, windows=held)])[0])
    assert {row["load"]: row["doubt"] for row in chart.rows} == {
        "1": None,
        "4": "client-bound: the client was busy",
    }
    assert "hollow, in doubt (m at 4): client-bound: the client was busy" in chart.notes
    assert "in doubt: client-bound" in chart.summary


def test_failures_beyond_what_was_allowed_make_hollow_points(tmp_path):
    held = of_loads()
    window, records = held[0]
    held[0] = window, [msgspec.structs.replace(r, outcome="reset") if r.index < 9 else r for r in records]
    chart = checked(latency.of_runs([run_of(tmp_path, windows=held)])[0])
    assert {r["doubt"] for r in chart.rows if r["load"] == "1"} == {"9 of 150 requests failed (9 reset)"}
    lenient = run_of(tmp_path, "lenient", held, scenario=scenario(max_failed_frac=0.1))
    assert {r["doubt"] for r in latency.of_runs([lenient])[0].rows} == {None}


def test_a_limit_is_a_shaded_region_and_the_highest_load_within_it_is_ringed(tmp_path):
    kept = run_of(tmp_path, scenario=scenario(slo={"ttft_p90_s": 0.5, "e2e_p50_s": 0.01}))
    ttft, itl, e2e = (checked(each) for each in latency.of_runs([kept]))
    limits = [row for row in ttft.rows if row["part"] == "limit"]
    assert [(row["statistic"], row[TIME]) for row in limits] == [("p90", 0.5)]
    assert "limit: TTFT p90 ≤ 500 ms" in drawing.svg(ttft)
    assert "limit:" not in drawing.svg(itl)
    assert "shaded: within the limit" in e2e.notes
    assert {row["found"] for row in ttft.rows} == {None}  # no load keeps the limit on E2E
    easy = run_of(tmp_path, "easy", scenario=scenario(slo={"ttft_p90_s": 0.5}))
    found = {row["load"]: row["found"] for row in latency.of_runs([easy])[0].rows if row["load"]}
    assert found == {"1": None, "4": "highest sure to keep the limits"}


def test_what_a_search_found_is_ringed_once_it_is_done(tmp_path):
    searched = scenario(search=Search(find="capacity", max_probes=6), slo={"ttft_p90_s": 0.5})
    writer = make.writer(tmp_path, of_loads(), scenario=searched)
    writer.seal()
    run = store.load(writer.folder)
    chart = checked(latency.of_runs([run])[0])
    assert {r["load"]: r["found"] for r in chart.rows if r["load"]} == {"1": None, "4": "capacity found"}
    assert "ring: m, capacity found: 4" in chart.notes
    broken = run_of(tmp_path, "broken", scenario=searched, status="interrupted")
    assert {row["found"] for row in latency.of_runs([broken])[0].rows} == {None}


def test_runs_of_one_configuration_are_one_line(tmp_path):
    runs = [run_of(tmp_path, f"run{n}") for n in range(3)]
    chart = checked(latency.of_runs(runs)[0])
    assert chart.id == "latency-ttft"
    assert len(chart.rows) == 4
    assert {(row["windows"], row["starts"]) for row in chart.rows} == {(9, 9)}
    assert any("over 3 runs" in note for note in chart.notes)


def test_models_keep_their_names_and_namesakes_are_told_apart(tmp_path):
    runs = [named(tmp_path, "Qwen/A"), named(tmp_path, "Qwen/B")]
    chart = checked(latency.of_runs(runs)[0])
    assert list(dict.fromkeys(row["line"] for row in chart.rows)) == ["A", "B"]
    other = make.manifest("x").engine.__class__(kind="vllm", version="1", device="cpu")
    chart = checked(
        latency.of_runs([*runs, run_of(tmp_path, "v", model=runs[0].manifest.model, engine=other)])[0]
    )
    assert list(dict.fromkeys(row["line"] for row in chart.rows)) == ["A, transformers", "B", "A, vllm"]
    assert list(dict.fromkeys(row["model"] for row in chart.rows)) == ["Qwen/A", "Qwen/B"]


def test_more_lines_than_an_eye_follows_are_named(tmp_path):
    runs = [named(tmp_path, f"m{n}") for n in range(MOST_LINES + 2)]
    chart = checked(latency.of_runs(runs)[0])
    assert len({row["line"] for row in chart.rows}) == MOST_LINES
    assert f"not drawn, for want of room: m{MOST_LINES}, m{MOST_LINES + 1}" in chart.notes


def test_names_are_only_text(tmp_path):
    chart = checked(latency.of_runs([named(tmp_path, "</script>\n<b>${x}")])[0])
    assert "\n" not in chart.title + "".join(chart.notes)
    assert "<b>" not in drawing.svg(chart)


def test_numbers_round_to_so_many_digits():
    assert [words.significant(each) for each in (0.9996, 0.9994, -0.9996, 999.6, 12.345, 0)] == [
        "1.00", "0.999", "-1.00", "1,000", "12.3", "0",
    ]  # fmt: skip


def test_names_turn_no_digits_around_and_leave_room():
    assert words.one_line("a\u202eb\u2066 12") == "ab 12"
    assert words.short("org/" + "x" * 40) == "x" * 40
    assert words.short("org/first" + "x" * 90 + "last") == "first" + "x" * 15 + "…" + "x" * 16 + "last"


def test_imported_figures_are_drawn_as_they_were_told(tmp_path):
    told = {RATE: Estimate(50.0), "ttft_s_p50": Estimate(0.2), "tpot_s_p50": Estimate(0.02)}
    imported = Imported(
        tool="GuideLLM",
        file="f",
        sha256="0",
        gaps_known=False,
        points=(ImportedPoint(point=at(8), figures=told),),
    )
    writer = make.writer(tmp_path, [], imported=imported)
    ttft, tpot, e2e = latency.of_runs([store.load(writer.folder)])
    assert [(row["load"], row[TIME]) for row in checked(ttft).rows] == [("8", 0.2)]
    assert checked(tpot).id.startswith("latency-tpot")
    assert any("GuideLLM" in note for note in tpot.notes)
    assert "of 1 imported load no windows are known" in tpot.notes
    assert not any("0 window" in note for note in tpot.notes)
    assert isinstance(e2e, Absent)
    assert e2e.reason.endswith("the tool that measured gave none")


def test_nothing_steady_is_said(tmp_path):
    run = store.load(make.writer(tmp_path, []).folder)
    assert [each.reason.split(": ")[1] for each in latency.of_runs([run])] == [
        "no run has a load that was finished"
    ] * 3
    never = make.window(0, 10, 20, steady_start_ns=None, steady_end_ns=None, trouble="never")
    run = run_of(tmp_path, "never", [(never, [make.request(0, 0, 10)])])
    assert [each.reason.split(": ")[1] for each in latency.of_runs([run])] == ["no load became steady"] * 3


def test_figures_are_made_once_or_taken_as_given(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    found = loads.measured(run)
    monkeypatch.setattr(figures, "of_run", lambda _: pytest.fail("made again"))
    assert loads.measured(run) is found
    other = run_of(tmp_path, "other")
    loads.keep(other, found[:1])
    assert loads.measured(other) == found[:1]
