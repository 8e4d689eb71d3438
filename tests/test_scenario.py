"""Scenarios: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import scenario
from profiler.errors import InputError
from profiler.report.listing import list_scenarios
from profiler.schema import LoadPoint
from profiler.settings import Length, Pause, Scenario
from profiler.workload import extent

BUILT_IN = {
    *("smoke", "trio", "chat", "summarize", "code", "reasoning", "batch", "prefill"),
    *("open", "bursty", "ramp", "replay", "conversation", "mix", "shared-prefix", "decode", "split"),
    "advantage",
}

GOOD = """
[workload]
input_tokens = 64
output_tokens = 32
[load]
concurrency = [1, 2]
"""


def refused(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 2
    return text


@pytest.fixture
def written(tmp_path):
    def write(text: str, name: str = "mine.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


# --------------------------------------------------------------------------------------- built in


def test_built_in_scenarios_are_listed():
    assert scenario.names().keys() == BUILT_IN


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_scenario_is_valid_named_and_explained(name):
    loaded = scenario.load(name)
    assert loaded.name == name
    assert 20 <= len(loaded.about) <= 90
    assert scenario.points(loaded)
    text = scenario.names()[name].read_text()
    assert text.startswith("#"), "a scenario begins by saying what it is for"
    assert text.count("#") >= 6, "and gives its reasons"
    assert f"--scenario {name}" in text


def test_the_listing_says_what_is_measured():
    shown = {row["scenario"]: row["points"] for row in list_scenarios()}
    assert shown.keys() == BUILT_IN
    assert (shown["chat"], shown["batch"]) == ("1, 8, 32, 128", "256")
    assert (shown["open"], shown["ramp"]) == ("1/s, 2/s, 4/s", "2.67/s")


def test_built_in_shapes():
    shape = {name: scenario.load(name).workload for name in BUILT_IN}
    assert (shape["smoke"].input_tokens, shape["smoke"].output_tokens) == (32, 16)
    assert shape["chat"].input_tokens == Length(mean=512, spread=0.5)
    assert shape["chat"].output_tokens == Length(mean=256, spread=0.5)
    summarize = extent(shape["summarize"], scenario.load("summarize").load)
    assert summarize.shortest_input > 8 * summarize.longest_output
    reasoning = extent(shape["reasoning"], scenario.load("reasoning").load)
    assert reasoning.mean_output > 8 * reasoning.longest_input
    assert shape["prefill"].output_tokens == 1
    assert scenario.load("trio").measure.residency == "resident"
    assert scenario.load("trio").load.concurrency == (1, 8, 32)


def test_found_in_a_wheel_too(tmp_path, monkeypatch):
    """An installed package has ``profiler/scenarios``, which wins over a folder that lies beside it."""
    for folder in ("profiler/scenarios", "scenarios"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "profiler/scenarios/one.toml").write_text(GOOD)
    (tmp_path / "scenarios/stranger.toml").write_text(GOOD)
    monkeypatch.setattr(scenario, "__file__", str(tmp_path / "profiler/scenario.py"))
    assert list(scenario.names()) == ["one"]


# ------------------------------------------------------------------------------------------- files


def test_a_file_of_ones_own(written):
    loaded = scenario.load(written(GOOD))
    assert loaded.name == "mine"
    assert loaded.workload.input_tokens == 64
    assert loaded.load.concurrency == (1, 2)
    assert loaded.measure.repeats is None


def test_times_take_units(written):
    text = (
        GOOD
        + '[measure]\nwarmup_s = "500ms"\nwindow_s = "30s"\nmax_window_s = "2min"\n[timeouts]\ntotal_s="1h"'
    )
    loaded = scenario.load(written(text))
    assert (loaded.measure.warmup_s, loaded.measure.window_s, loaded.measure.max_window_s) == (
        0.5,
        30.0,
        120.0,
    )
    assert loaded.timeouts.total_s == 3600.0


def test_a_byte_order_mark_does_no_harm(written):
    assert scenario.load(written("\ufeff" + GOOD)).name == "mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "concurency = 3", ["load.concurency", "unknown", "'concurrency'"]),
        (GOOD + "[mesure]\nwindow_s = 3", ["mesure", "unknown", "'measure'"]),
        ("nme = 'x'\n" + GOOD, ["nme", "'name'"]),
        (GOOD.replace("64", "{ mean = 3, spred = 0.5 }"), ["workload.input_tokens.spred", "'spread'"]),
        (
            GOOD.replace("[1, 2]", "'many'"),
            ["load.concurrency: expected a list of whole numbers ≥ 1, got 'many'"],
        ),
        (GOOD.replace("[1, 2]", "[1, 'x']"), ["load.concurrency", "whole numbers ≥ 1", "[1, 'x']"]),
        (GOOD.replace("[1, 2]", "[]"), ["load.concurrency", "a list of whole numbers ≥ 1", "got []"]),
        (GOOD.replace("[1, 2]", "[0]"), ["load.concurrency", "≥ 1", "got 0"]),
        (GOOD.replace("64", "true"), ["workload.input_tokens", "whole number ≥ 1", "got true"]),
        (GOOD.replace("64", "1.5"), ["workload.input_tokens", "whole number ≥ 1", "got 1.5"]),
        (GOOD.replace("64", "{ mean = 3, spread = 2 }"), ["input_tokens.spread", "from 0 to 1", "got 2"]),
        (GOOD + "mode = 'opne'", ["load.mode", "one of 'batch', 'closed', 'open', 'replay'", "got 'opne'"]),
        (GOOD + "[measure]\nwindow_s = -1", ["measure.window_s", "> 0", "got -1"]),
        (GOOD + "[measure]\nwindow_s = nan", ["measure.window_s", "finite", "got nan"]),
        (GOOD + "[timeouts]\ntotal_s = inf", ["timeouts.total_s", "finite", "got inf"]),
        (
            GOOD + "[measure]\nwindow_s = '3 parsec'",
            ["measure.window_s", "unknown unit 'parsec'", "ms, s, min, h"],
        ),
        (GOOD + "[measure]\nwindow_s = 'soon'", ["measure.window_s", "'30s'", "got 'soon'"]),
        (GOOD + "[measure]\nwindow_s = '-3s'", ["measure.window_s", "got '-3s'"]),
        ("workload = 3\n[load]\n", ["workload", "a table with input_tokens", "got 3"]),
        (GOOD.replace("output_tokens = 32", ""), ["workload.output_tokens", "missing", "whole number ≥ 1"]),
        ("", ["workload is missing"]),
        (GOOD + "[engine.env]\nA = [1]", ["engine.env", "text values"]),
    ],
)
def test_wrong_keys_and_types_name_file_key_and_expectation(written, text, words):
    path = written(text)
    said = refused(lambda: scenario.load(path))
    assert said.startswith(f"{path}: ")
    assert not [word for word in words if word not in said], said


@pytest.mark.parametrize(
    ("text", "line"), [(GOOD + "x = \n", "line 7"), ("[load\n", "line 1"), (GOOD + '"""', "line 7")]
)
def test_toml_syntax_errors_give_the_line(written, text, line):
    path = written(text)
    said = refused(lambda: scenario.load(path))
    assert str(path) in said
    assert line in said


def test_files_that_cannot_be_read(written, tmp_path):
    assert "no such file" in refused(lambda: scenario.load(tmp_path / "none.toml"))
    assert "is a folder" in refused(lambda: scenario.load(tmp_path))
    path = written("")
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused(lambda: scenario.load(path))


def test_a_misspelt_name_is_corrected():
    assert "did you mean 'chat'?" in refused(lambda: scenario.load("caht"))
    assert "did you mean 'summarize'?" in refused(lambda: scenario.load("Summarise"))


OPEN = """
[workload]
input_tokens = 64
output_tokens = 32
[load]
mode = "open"
requests_per_s = [1, 2]
"""
REPLAY = """
[load]
mode = "replay"
trace = "trace.csv"
[workload]
"""
ROWS = "time_s,input_tokens,output_tokens\n0,10,5\n1,50,7\n3,20,9\n"
NO_LENGTHS = "[load]\nconcurrency = 2\n[workload]\n"
MIX = """
[[workload.mix]]
name = "a"
weight = 1
input_tokens = 10
output_tokens = 5
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "mode = 'batch'", ["load.requests", "load.requests=256"]),
        (GOOD + "requests = 5", ["load.requests", "only modes 'batch' and 'replay'", "this is 'closed'"]),
        (GOOD + "requests_per_s = 5", ["load.requests_per_s", "only mode 'open'", "load.mode=open"]),
        (GOOD + "trace = 'x'", ["load.trace", "only mode 'replay'"]),
        (GOOD + "time_scale = 2", ["load.time_scale", "only mode 'replay'"]),
        (GOOD + "stages = [{for_s=1, requests_per_s=1}]", ["load.stages", "only mode 'open'"]),
        (GOOD + "mode = 'batch'\nrequests = 3", ["load.concurrency", "only mode 'closed'"]),
        (OPEN + "concurrency = 4", ["load.concurrency", "this is 'open'", "however many run"]),
        (OPEN + "think_s = 4", ["load.think_s", "only mode 'closed'"]),
        (OPEN.replace("requests_per_s = [1, 2]", ""), ["load.requests_per_s", "missing", "rate"]),
        (OPEN.replace("[1, 2]", "[1, 1]"), ["load.requests_per_s", "twice"]),
        (OPEN + "stages = [{for_s=1, requests_per_s=1}]", ["load.stages", "load.requests_per_s"]),
        (OPEN + "burstiness = 2", ["load.burstiness", "'poisson'", "load.arrivals=gamma"]),
        (REPLAY.replace("trace =", "#"), ["load.trace", "missing", "CSV or JSON lines"]),
        (REPLAY.replace("trace.csv", "none.csv"), ["load.trace", "none.csv", "No such file"]),
        (REPLAY + "input_tokens = 3", ["workload.input_tokens", "trace"]),
        (REPLAY + MIX, ["workload.mix", "trace"]),
        (REPLAY + "[workload.conversation]\nturns = 2", ["workload.conversation", "'replay'"]),
        (REPLAY + "[engine]\nmax_model_len = 56", ["engine.max_model_len", "57 tokens", "trace.csv, line 3"]),
        (
            GOOD.replace("[1, 2]", "1\nmode='batch'\nrequests=2") + "[workload.conversation]\nturns=2",
            ["workload.conversation", "'batch'"],
        ),
        (GOOD + MIX, ["workload.input_tokens", "workload.mix"]),
        (NO_LENGTHS, ["workload.input_tokens", "missing"]),
        (NO_LENGTHS + MIX + MIX, ["workload.mix", "names a kind twice: a, a"]),
        (GOOD.replace("[load]", "prefix_groups = 2\n[load]"), ["workload.prefix_groups", "shared_prefix"]),
        (GOOD + "[workload.images]\nwidth=8\nheight=8", ["workload.images", "chat", "protocol=chat"]),
        (GOOD + "[measure]\nwindow_s = 400", ["measure.window_s", "400 s", "max_window_s (300 s)"]),
        (GOOD + "[engine]\nmax_model_len = 95", ["engine.max_model_len", "95", "96 tokens"]),
        (
            GOOD + "[workload.conversation]\nturns = {mean=2, spread=0.5}\n[engine]\nmax_model_len = 287",
            ["engine.max_model_len", "288 tokens", "last turn"],
        ),
        (GOOD + "[slo]\nttft_p98s_s = 1", ["slo.ttft_p98s_s", "did you mean 'ttft_p9"]),
        (GOOD + "[slo]\nlatency = '1s'", ["slo.latency"]),
        (GOOD + "[search]\nfind = 'capacity'", ["slo", "missing", "slo.ttft_p99_s=0.5"]),
        (
            GOOD.replace("[1, 2]", "1\nmode='batch'\nrequests=2") + "[search]\nfind='knee'",
            ["search", "'batch'"],
        ),
        (
            OPEN.replace("requests_per_s = [1, 2]", "stages = [{for_s=1, requests_per_s=1}]")
            + "[search]\nfind='knee'",
            ["load.stages", "search"],
        ),
    ],
)
def test_settings_that_contradict_each_other(written, tmp_path, text, words):
    path = written(text)
    (tmp_path / "trace.csv").write_text(ROWS)
    said = refused(lambda: scenario.load(path))
    assert not [word for word in (str(tmp_path), *words) if word not in said], said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OPEN.replace("[1, 2]", "0"), ["load.requests_per_s: expected a list of numbers > 0, got 0"]),
        (OPEN.replace("[1, 2]", "[1, -2]"), ["load.requests_per_s", "> 0"]),
        (OPEN.replace("[1, 2]", "'2s'"), ["load.requests_per_s", "numbers > 0", "got '2s'"]),
        (
            OPEN.replace("requests_per_s = [1, 2]", "stages = 3"),
            ["load.stages", "a list of tables with for_s", "got 3"],
        ),
        (
            OPEN.replace("requests_per_s = [1, 2]", "stages = [{for_s=1, requests_per_s=1}, {for_s='soon'}]"),
            ["load.stages[1].for_s", "'30s'", "got 'soon'"],
        ),
        (
            OPEN.replace("requests_per_s = [1, 2]", "stages = [{for_s=1, requests_per_s=1}, {for_s=1}]"),
            ["load.stages[1].requests_per_s is missing", "number > 0"],
        ),
        (
            OPEN.replace("requests_per_s = [1, 2]", "stages = [{for_s=1, requests_per_s=1, to=2}]"),
            ["load.stages[0].to", "unknown key", "to_requests_per_s"],
        ),
        (
            OPEN.replace("requests_per_s = [1, 2]", "stages = [{for_s=-1, requests_per_s=1}]"),
            ["load.stages[0].for_s: expected seconds, a number > 0, got -1"],
        ),
        (NO_LENGTHS + MIX.replace("weight = 1", "weight = 0"), ["workload.mix[0].weight", "> 0", "got 0"]),
        (NO_LENGTHS + MIX.replace("10", "-10"), ["workload.mix[0].input_tokens", "≥ 1", "got -10"]),
        (
            NO_LENGTHS + MIX.replace("10", "{mean=3, sprad=1}"),
            ["workload.mix[0].input_tokens.sprad", "'spread'"],
        ),
        (GOOD + "think_s = { mean_s = -1 }", ["load.think_s.mean_s", "≥ 0", "got -1"]),
        (GOOD + "think_s = 'a while'", ["load.think_s", "'30s'"]),
        (GOOD + "[slo]\nttft_p99_s = -1", ["slo.ttft_p99_s: expected seconds, a number > 0, got -1"]),
        (GOOD + "[slo]\nttft_p99_s = 'fast'", ["slo.ttft_p99_s", "'500ms'", "got 'fast'"]),
        (GOOD + "[slo]\nttft_p99_s = true", ["slo.ttft_p99_s", "got true"]),
        ("max_failed_frac = '1 in 3'\n" + GOOD, ["max_failed_frac", "'1%'", "got '1 in 3'"]),
        ("max_failed_frac = '300%'\n" + GOOD, ["max_failed_frac", "from 0 to 1", "got 3.0"]),
        (GOOD + "[search]\nfind = 'max'", ["search.find", "'capacity', 'knee'"]),
    ],
)
def test_wrong_values_of_new_shapes_are_named(written, text, words):
    path = written(text)
    said = refused(lambda: scenario.load(path))
    assert said.startswith(f"{path}: ")
    assert not [word for word in words if word not in said], said


def test_units_inside_lists_and_tables(written):
    text = """
    max_failed_frac = "2.5%"
    [workload]
    input_tokens = 8
    output_tokens = 4
    [workload.conversation]
    turns = 2
    think_s = { mean_s = "1500ms", spread = 0.5 }
    [load]
    mode = "open"
    stages = [{ for_s = "2min", requests_per_s = 1 }, { for_s = 5, requests_per_s = 2 }]
    [slo]
    ttft_p99_s = "500ms"
    tpot_p50_s = 1
    [search]
    find = "knee"
    """
    loaded = scenario.load(written(text.replace('[search]\n    find = "knee"', "")))
    assert loaded.max_failed_frac == 0.025
    assert loaded.workload.conversation.think_s == Pause(mean_s=1.5, spread=0.5)
    assert [stage.for_s for stage in loaded.load.stages] == [120, 5]
    assert loaded.slo == {"ttft_p99_s": 0.5, "tpot_p50_s": 1}


def test_pictures_go_where_chat_is_spoken(written):
    path = written(GOOD + "[workload.images]\nwidth = 8\nheight = 8\n[engine]\nkind = 'simulated'\n")
    assert scenario.load(path).workload.images.count == 1
    chat = ["engine.kind=endpoint", "engine.args.url='http://h'", "engine.args.protocol=chat"]
    assert scenario.load(path, chat).workload.images.count == 1
    plain = [*chat, "engine.args.protocol=completions"]
    assert "workload.images" in refused(lambda: scenario.load(path, plain))


def test_a_trace_is_beside_the_file_that_names_it(written, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (tmp_path / "trace.csv").write_text(ROWS)
    (folder / "other.csv").write_text(ROWS + "9,1,1\n")
    monkeypatch.chdir(folder)
    path = written(REPLAY)
    loaded = scenario.load(path)
    assert loaded.load.trace == str(tmp_path / "trace.csv")
    assert scenario.points(loaded) == (LoadPoint(mode="replay", requests_per_s=pytest.approx(3 / 4.5)),)
    other = scenario.load(path, ["load.trace=other.csv"])
    assert other.load.trace == str(folder / "other.csv")
    assert scenario.points(other)[0].requests_per_s == pytest.approx(4 / 12)


def test_the_digest_is_of_the_traces_content(written, tmp_path):
    (tmp_path / "trace.csv").write_text(ROWS)
    (tmp_path / "copy.csv").write_text(ROWS)
    path = written(REPLAY)
    one = scenario.digest(scenario.load(path))
    assert scenario.digest(scenario.load(path, [f"load.trace={tmp_path}/copy.csv"])) == one
    (tmp_path / "copy.csv").write_text(ROWS.replace("50", "51"))
    assert scenario.digest(scenario.load(path, [f"load.trace={tmp_path}/copy.csv"])) != one
    assert scenario.digest(scenario.load(path, ["load.time_scale=2"])) != one


def test_a_shared_prefix_leaves_every_prompt_something_of_its_own(written):
    text = GOOD.replace(
        "input_tokens = 64", "input_tokens = { mean = 64, spread = 0.5 }\nshared_prefix_tokens = N"
    )
    assert scenario.load(written(text.replace("= N", "= 31"))).workload.shared_prefix_tokens == 31
    said = refused(lambda: scenario.load(written(text.replace("= N", "= 32"))))
    assert "workload.shared_prefix_tokens" in said
    assert "32 tokens" in said


def test_longest_lengths_count_the_spread(written):
    text = GOOD.replace("64", "{ mean = 64, spread = 0.5 }") + "[engine]\nmax_model_len = N"
    assert scenario.load(written(text.replace("= N", "= 128")))
    assert "128 tokens" in refused(lambda: scenario.load(written(text.replace("= N", "= 127"))))


def test_names_fit_into_folder_names(written):
    assert "folder names" in refused(lambda: scenario.load(written("name = 'a/b'\n" + GOOD)))


# --------------------------------------------------------------------------------------- overrides


def test_overrides_take_numbers_lists_words_and_tables():
    loaded = scenario.load(
        "chat",
        [
            "load.concurrency=1,8,64",
            "engine.args.max_num_seqs=64",
            "engine.args.kv_cache_dtype=fp8",
            "engine.args.names=a,b",
            "engine.args.compilation.level=3",
            "engine.env.OMP_NUM_THREADS=2",
            "workload.input_tokens=512",
            "engine.dtype=float16",
            "measure.window_s=500ms",
        ],
    )
    assert loaded.load.concurrency == (1, 8, 64)
    assert loaded.engine.args == {
        "max_num_seqs": 64,
        "kv_cache_dtype": "fp8",
        "names": ["a", "b"],
        "compilation": {"level": 3},
    }
    assert loaded.engine.env == {"OMP_NUM_THREADS": "2"}
    assert loaded.workload.input_tokens == 512
    assert loaded.engine.dtype == "float16"
    assert loaded.measure.window_s == 0.5


def test_overrides_apply_in_order_and_leave_the_rest():
    loaded = scenario.load("chat", ["load.concurrency=2", "load.concurrency = [4]", "workload.seed=7"])
    assert loaded.load.concurrency == (4,)
    assert loaded.workload.output_tokens == Length(mean=256, spread=0.5)
    assert loaded.workload.seed == 7


def test_a_spread_can_be_given_to_an_exact_length():
    loaded = scenario.load("smoke", ["workload.input_tokens.spread=0.25"])
    assert loaded.workload.input_tokens == Length(mean=32, spread=0.25)


def test_a_mode_can_be_changed():
    batch = scenario.load("chat", ["load.mode=batch", "load.requests=12"])
    assert scenario.points(batch) == (LoadPoint(mode="batch", concurrency=12),)
    closed = scenario.load("batch", ["load.mode=closed", "load.concurrency=3"])
    assert scenario.points(closed) == (LoadPoint(mode="closed", concurrency=3),)


def test_what_an_override_takes_the_place_of_goes(tmp_path):
    """Nobody can take a key out of a file by --set."""
    (tmp_path / "trace.csv").write_text(ROWS)
    replay = ["load.mode=replay", f"load.trace={tmp_path}/trace.csv"]
    for name in ("chat", "mix", "open"):
        assert scenario.load(name, replay).workload.input_tokens is None
    open_ = scenario.load("chat", ["load.mode=open", "load.requests_per_s=0.5,3"])
    assert [point.requests_per_s for point in scenario.points(open_)] == [0.5, 3]
    stages = 'load.stages=[{for_s="10s", requests_per_s=2, to_requests_per_s=4}]'
    assert scenario.points(scenario.load("open", [stages])) == (LoadPoint(mode="open", requests_per_s=3),)
    assert scenario.points(scenario.load("ramp", ["load.requests_per_s=7"]))[0].requests_per_s == 7
    mix = 'workload.mix=[{name="a", weight=1, input_tokens=5, output_tokens=6}]'
    assert scenario.load("chat", [mix]).workload.input_tokens is None
    with pytest.raises(InputError, match=r"^--set: load\.concurrency: only mode 'closed'"):
        scenario.load("chat", ["load.concurrency=3", "load.mode=open", "load.requests_per_s=1"])
    with pytest.raises(InputError, match=r"^--set: load\.stages\[0\]\.requests_per_s"):
        scenario.load("open", ["load.stages={for_s=1, requests_per_s=-1}"])


def test_a_search_chooses_the_points_itself():
    loaded = scenario.load("open", ["search.find=capacity", "slo.ttft_p99_s=500ms", "slo.tpot_p99_s=0.05"])
    assert scenario.points(loaded) == ()
    assert loaded.slo == {"ttft_p99_s": 0.5, "tpot_p99_s": 0.05}
    rateless = scenario.load("chat", ["load.mode=open", "search.find=knee", "max_failed_frac=1%"])
    assert scenario.points(rateless) == ()
    assert rateless.max_failed_frac == 0.01


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("load.concurency=1", ["load.concurency", "'concurrency'"]),
        ("concurrency=1", ["'concurrency'", "did you mean 'load.concurrency'?"]),
        ("wurkload.seed=1", ["'wurkload'", "workload.seed"]),
        ("load.concurrency.a=1", ["load.concurrency is a single value"]),
        ("workload.input_tokens.sprea=0", ["'sprea'", "'spread'"]),
        ("load.concurrency", ["expected key=value"]),
        ("=3", ["expected key=value"]),
        ("load.concurrency=many", ["load.concurrency", "a list of whole numbers ≥ 1", "'many'"]),
        ("load.concurrency=8,8", ["load.concurrency", "twice"]),
        ("load.concurrency=", ["load.concurrency", "whole numbers"]),
        ("measure.window_s=5 lightyears", ["measure.window_s", "'lightyears'"]),
        ("measure.window_s=1m", ["measure.window_s", "unknown unit 'm'", "min"]),
        ("engine.kind=vlm", ["engine.kind", "'vllm'"]),
        ("engine.args=3", ["engine.args", "a table"]),
        ("load.mode=closed\nload.requests=3", ["load.mode"]),
    ],
)
def test_overrides_refused(override, words):
    with pytest.raises(InputError) as caught:
        scenario.load("chat", [override])
    said = str(caught.value)
    assert said.startswith("--set"), said
    assert not [word for word in words if word not in said], said


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_override_escapes_as_another_error(key, value):
    for path in (key, f"load.{key}", "load.concurrency", "measure.window_s", "workload.input_tokens"):
        try:
            scenario.load("smoke", [f"{path}={value}"])
        except InputError:
            continue


# ---------------------------------------------------------------------------------- digest, points


def test_points_keep_their_order():
    loaded = scenario.load("chat", ["load.concurrency=8,1,64"])
    assert [point.concurrency for point in scenario.points(loaded)] == [8, 1, 64]
    assert {point.mode for point in scenario.points(loaded)} == {"closed"}


def test_digest_is_of_the_measurement_not_of_its_spelling(written):
    one = scenario.load(written(GOOD, "one.toml"))
    other = scenario.load(
        written(
            "name='z'\nabout='else'\n[load]\nconcurrency=[1,2]\nmode='closed'\n[measure]\nwindow_s='30s'\n"
            "[workload]\noutput_tokens={mean=32}\ninput_tokens={spread=0.0,mean=64}\n",
            "two.toml",
        )
    )
    assert scenario.digest(one) == scenario.digest(other)
    assert len(scenario.digest(one)) == 64


@pytest.mark.parametrize(
    "override",
    [
        "workload.seed=1",
        "load.concurrency=1,3",
        "measure.window_s=29",
        "engine.args.x=1",
        "workload.input_tokens=65",
    ],
)
def test_digest_sees_every_change(written, override):
    path = written(GOOD)
    assert scenario.digest(scenario.load(path)) != scenario.digest(scenario.load(path, [override]))


def test_a_scenario_survives_the_manifest():
    for name in BUILT_IN:
        loaded = scenario.load(name)
        again = msgspec.json.decode(msgspec.json.encode(loaded), type=Scenario)
        assert again == loaded
        assert scenario.digest(again) == scenario.digest(loaded)
