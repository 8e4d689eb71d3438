"""A recorded routing from the run folder to what a reader sees."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import time

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from profiler import comparison, experts, routing, store
from profiler.errors import InputError
from profiler.report import page
from profiler.report import routing as report
from profiler.routing.nouns import between_steps
from profiler.schema import EngineFacts, LoadPoint, Model
from tests import make
from tests.routing import recorded

TRAINED = Model(name="m", weights="hub", facts=make.FACTS)
OWN = EngineFacts(kind="transformers", version="5", device="cpu", routing="model")


def skewed(requests: int = 100, cv: float = 0.8, layers: int = 3) -> np.ndarray:
    shares = [experts.marginals(16, 4, cv, layer) for layer in range(layers)]
    return recorded.drawn(requests, 48, shares)


def run_of(tmp_path, chosen=None, **changes):
    changes = {"model": TRAINED, "engine": OWN} | changes
    chosen = skewed() if chosen is None else chosen
    return recorded.run(tmp_path, chosen, 16, prompt=32, **changes)


def told(run: store.RunResult) -> str:
    (found,) = report.found([run])
    return "\n".join(report.lines_below(found.report))


# ------------------------------------------------------------------------------------ from the folder


def test_a_recording_is_read_once_and_says_what_it_is_of(tmp_path):
    run = run_of(tmp_path)
    found = routing.report(run)
    assert routing.report(run) is found
    assert (found.requests, found.tokens, found.output_tokens) == (100, 4800, 1600)
    assert (found.experts, found.experts_per_token) == (16, 4)
    assert [load.layer for load in found.loads] == [1, 2, 3], "as the manifest numbers them"
    assert found.fitted_cv == pytest.approx(0.8, rel=0.05)
    assert found.output_cv_excess == pytest.approx(0.8, rel=0.05)
    assert found.used_frac == 1
    assert found.made_up is None
    spread = found.over_layers("cv_excess")
    assert spread.low <= spread.median <= spread.high
    assert spread.layers == 3


def test_no_recording_is_no_report(tmp_path):
    writer = make.writer(tmp_path, [])
    writer.close()
    assert routing.report(store.load(writer.folder)) is None


def test_tokens_are_put_in_order_and_requests_counted(tmp_path):
    """Rows of several engines' threads come mixed, and request numbers with gaps."""
    run = run_of(tmp_path)
    before = routing.report(run)
    path = run.folder / store.ROUTING
    rows = pq.ParquetFile(path).read()
    mixed = rows.take(np.random.default_rng(0).permutation(len(rows)))
    gaps = mixed.set_column(0, rows.schema.field("request"), [mixed.column("request").to_numpy() * 3 + 5])
    pq.write_table(gaps, path)
    make.written_again(run.folder)
    assert routing.report(store.load(run.folder)) == before


@pytest.mark.parametrize(
    "wrong",
    [{"experts": 15}, {"layers": (1, 2)}, {"experts_per_token": 5}],
    ids=lambda each: next(iter(each)),
)
def test_a_recording_that_contradicts_its_manifest_is_damaged(tmp_path, wrong):
    run = run_of(tmp_path)
    record = msgspec.structs.replace(run.manifest.routing, **wrong)
    manifest = msgspec.structs.replace(run.manifest, routing=record)
    with pytest.raises(InputError, match=r"routing\.parquet does not hold.*measure this run anew"):
        routing.report(store.RunResult(run.folder, manifest))


def test_between_measured_steps_and_beyond_them(tmp_path):
    found = routing.report(run_of(tmp_path))
    at = {each.tokens: each.measured.value for each in found.decode}
    assert found.decode_coverage(8).value == at[8]
    assert found.decode_coverage(1).value == pytest.approx(4)
    between = found.decode_coverage(8 * 2**0.5)
    assert between.value == pytest.approx((at[8] + at[16]) / 2)
    ends = {each.tokens: (each.measured.low, each.measured.high) for each in found.decode}
    for found_end, *around in zip((between.low, between.high), ends[8], ends[16], strict=True):
        assert found_end == pytest.approx(sum(around) / 2)
    assert found.decode_coverage(0.5) is None
    assert found.decode_coverage(257) is None
    assert found.decode_coverage(256).value == at[256]
    assert between_steps((), 1) is None


# -------------------------------------------------------------------------------------------- words


def test_the_routing_of_a_trained_model_is_its_own(tmp_path):
    text = told(run_of(tmp_path))
    assert "4,800 tokens of 100 requests (1,600 generated), 3 layers that route, 4 of 16 experts" in text
    assert "routing: the model's own" in text
    for warning in ("only", "cannot be told from even loads:", "alike", "collapsed", "trained model"):
        assert warning not in text


@pytest.mark.parametrize(
    ("weights", "routed"), [("random", "uniform"), ("random", "model"), ("hub", "skew=1")]
)
def test_made_up_routing_says_nothing_about_the_model(tmp_path, weights, routed):
    model = Model(name="m", weights=weights, facts=make.FACTS)
    run = run_of(tmp_path, model=model, engine=msgspec.structs.replace(OWN, routing=routed), routing=routed)
    assert "it says nothing about the trained model" in told(run)
    assert "the model's own" not in told(run)
    (line,) = (line for line in report.lines([run]) if "it says nothing about the trained model" in line)
    assert line.startswith("m by its own router:" if routed == "model" else f"m routed {routed}:")


def test_few_prompts_are_warned_of(tmp_path):
    assert "only 99 requests: experts look dead that are not" in told(run_of(tmp_path, skewed(99)))


def test_even_loads_are_not_a_skew_of_zero(tmp_path):
    run = run_of(tmp_path, skewed(cv=0.0))
    assert not any("skew CV" in line for line in report.lines([run])), "what was fitted is chance"
    assert "3 of 3 layers cannot be told from even loads: chance alone shows a CV of 0.02" in told(run)
    loads = next(grid for grid in report.grids(report.found([run])[0]) if grid.title.startswith("load"))
    column = list(loads.headers).index("CV less chance")
    assert {row[column] for row in loads.rows} == {"none seen"}


def test_layers_that_are_copies_are_told(tmp_path):
    copies = np.repeat(skewed(layers=1), 3, axis=2)
    assert "all layers route alike (100% of a token's experts are the first layer's)" in told(
        run_of(tmp_path, copies)
    )


def test_a_collapsed_layer_is_told(tmp_path):
    chosen = skewed()
    chosen[:, :30, 1] = [3, 1, 7, 5]
    assert re.search(
        r"layer 2 has collapsed: 6[23]% of its tokens go to the same 4 experts",
        told(run_of(tmp_path, chosen)),
    )


def test_a_load_of_more_sequences_than_were_recorded_says_so(tmp_path):
    point = LoadPoint(mode="closed", concurrency=8)
    run = run_of(tmp_path, skewed(requests=5), windows=[make.steady(0, 10.0, point=point)])
    assert any(
        "measured (5 requests, several tokens of one in a step)" in line for line in report.lines([run])
    )


def test_the_cost_tables_line_is_of_the_loads_that_were_held(tmp_path):
    points = [LoadPoint(mode="closed", concurrency=n) for n in (8, 1, 1000)]
    windows = [make.steady(n, 10 + 20 * n, point=point) for n, point in enumerate(points)]
    run = run_of(tmp_path, windows=windows)
    one, line = report.lines([run])
    assert one == (
        "m by its own router: batch 1 touches 4.00 of 16 experts a layer and step, measured "
        f"(4.00–4.00, 100 requests); uniform 4.00, skew CV {routing.report(run).fitted_cv:.2f} 4.00"
    )
    found = re.fullmatch(
        r"m by its own router: batch 8 touches (\S+) of 16 experts a layer and step, measured "
        r"\((\S+)–(\S+), 100 requests\); uniform 14\.4, skew CV 0\.\d\d (\S+)",
        line,
    )
    value, low, high, fitted = map(float, found.groups())
    assert low <= value <= high < 14
    assert fitted == pytest.approx(value, rel=0.03)
    text = page.markdown(comparison.rows([run], None, None), [run])
    assert f"* {line}\n" in text


def test_without_a_load_that_it_reaches_the_line_is_of_some_steps(tmp_path):
    told = "".join(report.lines([run_of(tmp_path)]))
    assert [int(each) for each in re.findall(r"batch (\d+)", told)] == [1, 8, 32]


@pytest.mark.parametrize(
    ("facts", "lines"),
    [(make.FACTS, ["m: routing not recorded: this engine does not tell"]), (None, [])],
    ids=["a MoE", "an endpoint's unknown model"],
)
def test_beside_the_cost_table_stands_why_nothing_was_recorded(tmp_path, facts, lines):
    model = Model(name="m", weights="remote", facts=facts)
    writer = make.writer(tmp_path, [], model=model, routing_missing="this engine does not tell")
    writer.close()
    assert report.lines([store.load(writer.folder)]) == lines


# ------------------------------------------------------------------------------------------- tables


def test_every_form_holds_the_same_figures(tmp_path):
    found = report.found([run_of(tmp_path)])
    (document,) = json.loads(report.as_json(found))
    rows = list(csv.DictReader(io.StringIO(report.csv_text(found))))
    eight = next(step for step in document["decode"] if step["tokens"] == 8)
    place = {"part": "decode", "tokens": "8"}
    named = {row["quantity"]: row for row in rows if row | place == row}
    assert float(named["distinct_measured"]["value"]) == eight["measured"]["value"]
    assert float(named["distinct_measured"]["high"]) == eight["measured"]["high"]
    assert float(named["distinct_uniform"]["value"]) == eight["uniform"]
    text = report.markdown(found[0])
    assert f"| decode | 8 | {eight['measured']['value']:.1f} |" in text
    cells = next(line for line in text.splitlines() if line.startswith("| decode | 8 |")).split("|")
    assert f"{eight['skewed']:.1f}" == cells[7].strip()
    ranks = next(row for row in rows if row["part"] == "ranks" and row["quantity"] == "load_p90")
    assert float(ranks["value"]) == document["ranks"][0]["load_p90"]
    loads = [row for row in rows if row["part"] == "load" and row["quantity"] == "gini"]
    assert [float(row["value"]) for row in loads] == [load["gini"] for load in document["loads"]]


def test_rows_are_as_wide_as_their_headers(tmp_path):
    for grid in report.grids(report.found([run_of(tmp_path, skewed(20))])[0]):
        assert {len(row) for row in grid.rows} == {len(grid.headers)}


def test_steps_beyond_the_requests_are_marked(tmp_path):
    run = run_of(tmp_path)
    grid = next(report.grids(report.found([run])[0]))
    decode = {row[1]: row for row in grid.rows if row[0] == "decode"}
    assert list(decode) == ["1", "2", "4", "8", "16", "32", "64", "128*", "256*"]
    assert decode["128*"][3] == "n/a"
    assert "*: more tokens than the 100 requests" in told(run)


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_the_command_prints_each_form(tmp_path, form):
    run = run_of(tmp_path)
    done = profile("compare", str(run.folder), "--show", "routing", "--format", form)
    assert done.returncode == 0, done.stderr
    assert ("distinct_measured" if form == "csv" else "decode") in done.stdout
    if form in ("table", "md"):
        assert "95 % interval over requests" in done.stdout


def test_the_command_says_why_there_is_no_routing(tmp_path):
    writer = make.writer(tmp_path, [], routing_missing="switched off (routing.record)")
    writer.close()
    done = profile("compare", str(writer.folder), "--show", "routing")
    assert done.returncode == 2
    assert done.stderr == ("error: no routing was recorded in these runs: switched off (routing.record)\n")


def profile(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profiler", *words], check=False, capture_output=True, text=True
    )


@pytest.mark.timing
def test_a_recording_of_a_large_model_is_read_in_three_seconds(tmp_path):
    shares = [experts.marginals(128, 8, 1.12, layer) for layer in range(48)]
    run = recorded.run(tmp_path, recorded.drawn(100, 160, shares), 128, prompt=128)
    start = time.perf_counter()
    assert routing.report(run) is not None
    assert time.perf_counter() - start < 3
