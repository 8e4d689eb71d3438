"""Scenarios: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import scenario
from profiler.errors import InputError
from profiler.schema import LoadPoint
from profiler.settings import Length, Scenario

BUILT_IN = {"smoke", "trio", "chat", "summarize", "code", "reasoning", "batch", "prefill"}

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


def test_built_in_shapes():
    shape = {name: scenario.load(name).workload for name in BUILT_IN}
    assert (shape["smoke"].input_tokens, shape["smoke"].output_tokens) == (32, 16)
    assert shape["chat"].input_tokens == Length(mean=512, spread=0.5)
    assert shape["chat"].output_tokens == Length(mean=256, spread=0.5)
    assert scenario.shortest(shape["summarize"].input_tokens) > 8 * scenario.longest(
        shape["summarize"].output_tokens
    )
    assert scenario.shortest(shape["reasoning"].output_tokens) > 8 * scenario.longest(
        shape["reasoning"].input_tokens
    )
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
    assert loaded.measure.repeats == 3


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
        (GOOD + "mode = 'open'", ["load.mode", "one of 'batch', 'closed'", "got 'open'"]),
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
        (GOOD.replace("output_tokens = 32", ""), ["workload.output_tokens is missing", "whole number ≥ 1"]),
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


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("mode = 'batch'", ["load.requests", "load.requests=256"]),
        ("requests = 5", ["load.requests", "only mode 'batch'"]),
        ("[measure]\nwindow_s = 400", ["measure.window_s", "400 s", "max_window_s (300 s)"]),
        ("[engine]\nmax_model_len = 95", ["engine.max_model_len", "95", "96 tokens"]),
    ],
)
def test_settings_that_contradict_each_other(written, extra, words):
    path = written(GOOD + extra)
    said = refused(lambda: scenario.load(path))
    assert not [word for word in (str(path), *words) if word not in said], said


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
