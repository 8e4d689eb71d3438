"""A sweep file → cells: spelling, what combines with what, and what is refused before anything starts."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import scenario
from profiler.errors import InputError
from profiler.sweep import axes
from profiler.sweep import grid as grids
from profiler.sweep.nouns import File
from profiler.sweep.select import Axis

SMALL = """
scenario = "smoke"
[axes]
model = ["tiny-moe", "tiny-dense"]
load.concurrency = [1, 4, 8]
[set]
engine.kind = "simulated"
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str, name: str = "mine.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def made(written):
    def make(text: str, *overrides: str):
        return grids.grid(grids.read(written(text)), "mine.toml", overrides)

    return make


def refused(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ids(grid) -> list[str]:
    return [cell.id for cell in grid.cells]


# ------------------------------------------------------------------------------------------ combining


def test_every_combination_in_the_order_of_the_axes(made):
    found = made(SMALL)
    assert [tuple(cell.values.values()) for cell in found.cells] == [
        *[("tiny-moe", load) for load in (1, 4, 8)],
        *[("tiny-dense", load) for load in (1, 4, 8)],
    ]
    assert found.axes == {"model": ("tiny-moe", "tiny-dense"), "load.concurrency": (1, 4, 8)}
    assert (found.name, found.excluded, len({*ids(found)})) == ("mine", 0, 6)


def test_a_cell_is_one_load_and_one_window(made):
    for cell in made(SMALL).cells:
        assert [point.concurrency for point in scenario.points(cell.scenario)] == [
            cell.values["load.concurrency"]
        ]
        assert cell.scenario.measure.repeats == 1
        assert cell.scenario.engine.kind == "simulated"
        assert (cell.model, cell.weights, cell.gpu) == (cell.values["model"], "auto", None)


@pytest.mark.parametrize(
    ("said", "repeats"),
    [
        ("measure.repeats = 3", 3),
        ("measure.target_ci_frac = '5%'", None),
        ("measure.max_seconds = '90s'", None),
        ("measure.window_s = 3", 1),
    ],
)
def test_windows_are_repeated_where_the_file_says_so(made, said, repeats):
    assert {cell.scenario.measure.repeats for cell in made(f"{SMALL}{said}").cells} == {repeats}
    key, value = said.split(" = ")
    forced = made(SMALL, f"{key}={value.strip(chr(39))}")
    assert ids(forced) == ids(made(f"{SMALL}{said}"))


def test_loads_that_a_scenario_brings_along_are_cells(made):
    found = made('[axes]\nmodel = "tiny-moe"\nscenario = ["chat", "open", "batch"]')
    assert [cell.values for cell in found.cells] == [
        *[{"model": "tiny-moe", "scenario": "chat", "load.concurrency": n} for n in (1, 8, 32, 128)],
        *[{"model": "tiny-moe", "scenario": "open", "load.requests_per_s": n} for n in (1, 2, 4)],
        {"model": "tiny-moe", "scenario": "batch"},
    ]
    assert found.axes["load.concurrency"] == (1, 8, 32, 128)
    assert found.axes["load.requests_per_s"] == (1, 2, 4)
    assert {len(scenario.points(cell.scenario)) for cell in found.cells} == {1}


def test_a_search_is_one_cell(made):
    found = made('[axes]\nmodel = ["tiny-moe"]\n[set]\nload.mode = "open"\nsearch.find = "knee"\n')
    assert [cell.values for cell in found.cells] == [{"model": "tiny-moe"}]
    assert found.cells[0].scenario.search.find == "knee"


def test_what_is_excluded_is_counted(made):
    whole = made(SMALL)
    found = made(f"{SMALL}[[exclude]]\nmodel = 'tiny-dense'\nload.concurrency = [4, 8]\n")
    assert found.excluded == 2
    assert ids(found) == ids(whole)[:4]


def test_a_load_that_a_scenario_brings_along_can_be_excluded(made):
    found = made('exclude = { load.concurrency = 128 }\n[axes]\nmodel = "tiny-moe"\nscenario = "chat"')
    assert [cell.values["load.concurrency"] for cell in found.cells] == [1, 8, 32]
    assert found.excluded == 1


def test_what_cannot_be_combined_can_be_excluded(made):
    text = (
        'exclude = [{ scenario = "batch", load.concurrency = [1, 8] }]\n[axes]\nmodel = "tiny-moe"\n'
        'scenario = ["batch", "chat"]\nload.concurrency = [1, 8]'
    )
    assert {cell.values["scenario"] for cell in made(text).cells} == {"chat"}


def test_when_sets_what_some_cells_need(made):
    found = made(f"{SMALL}[[when]]\ncells.load.concurrency = [4, 8]\nset.measure.window_s = '3s'\n")
    assert [cell.scenario.measure.window_s for cell in found.cells] == [2, 3, 3, 2, 3, 3]
    untouched, changed = (made(SMALL).cells[n].id for n in (0, 1))
    assert found.cells[0].id == untouched
    assert found.cells[1].id != changed


def test_what_is_set_for_some_cells_does_not_leak_into_others(made):
    text = f"{SMALL}workload.input_tokens = {{ mean = 20 }}\n[[when]]\ncells.model = 'tiny-moe'\n"
    found = made(f"{text}'set'.'workload.input_tokens.spread' = 0.5")
    assert {(cell.model, cell.scenario.workload.input_tokens.spread) for cell in found.cells} == {
        ("tiny-moe", 0.5),
        ("tiny-dense", 0.0),
    }


def test_an_exclusion_may_name_a_list_that_is_one_value(made):
    text = "[axes]\nmodel = 'a'\nload.concurrency = 1\ntelemetry.devices = [[0, 1], [0], 1]\n"
    found = made(f"exclude = {{ telemetry.devices = [0, 1] }}\n{text}")
    assert [cell.values["telemetry.devices"] for cell in found.cells] == [[0], 1]
    both = made(f"exclude = {{ telemetry.devices = [[0, 1], 1] }}\n{text}")
    assert [cell.values["telemetry.devices"] for cell in both.cells] == [[0]]


def test_load_from_several_machines_is_of_every_cell(made):
    assert {cell.scenario.load.machines for cell in made(f"clients = 2\n{SMALL}").cells} == {2}
    assert {cell.scenario.load.machines for cell in made(SMALL).cells} == {1}


def test_when_is_stronger_than_set_and_an_override_than_both(made):
    text = f"{SMALL}measure.window_s = 4\n[[when]]\ncells.model = 'tiny-moe'\nset.measure.window_s = 5\n"
    assert {(c.model, c.scenario.measure.window_s) for c in made(text).cells} == {
        ("tiny-moe", 5),
        ("tiny-dense", 4),
    }
    assert {c.scenario.measure.window_s for c in made(text, "measure.window_s=6").cells} == {6}


# ------------------------------------------------------------------------------------------- spelling


@pytest.mark.parametrize(
    "other",
    [
        '"load.concurrency" = [1, 4, 8]',
        "load = { concurrency = [1, 4, 8] }",
        "[axes.load]\nconcurrency = [1, 4, 8]",
        "load.concurrency = [8, 1, 4]",
    ],
)
def test_spelling_does_not_matter(made, other):
    assert {*ids(made(SMALL.replace("load.concurrency = [1, 4, 8]", other)))} == {*ids(made(SMALL))}


def test_ids_are_of_what_is_measured(made):
    text = """
    [axes]
    model = ["Qwen/Qwen3-8B"]
    gpu = ["h100"]
    measure.window_s = ["30s"]
    scenario = ["decode"]
    load.concurrency = 8
    """
    same = text.replace("Qwen/Qwen3-8B", "qwen3-8b").replace("h100", "H100").replace('"30s"', "30.0")
    assert ids(made(text)) == ids(made(same))
    for old, new in [("8B", "4B"), ("h100", "a100"), ("30s", "31s"), ("decode", "chat"), ("= 8", "= 9")]:
        assert ids(made(text.replace(old, new))) != ids(made(text)), new
    assert ids(made(text, "weights=random")) != ids(made(text))
    assert ids(made(text, "engine.args.max_num_seqs=4")) != ids(made(text))


def test_a_whole_length_replaces_and_a_part_of_one_is_merged(made):
    text = '[axes]\nmodel = "tiny-moe"\nload.concurrency = 1\n[set]\n'  # chat: 512 ± half
    whole = made(f"{text}workload.input_tokens = {{ mean = 64 }}").cells[0].scenario.workload.input_tokens
    part = made(f"{text}workload.input_tokens.spread = 0.1").cells[0].scenario.workload.input_tokens
    assert (whole.mean, whole.spread) == (64, 0.0)
    assert (part.mean, part.spread) == (512, 0.1)


def test_values_of_an_axis_may_be_tables(made):
    text = '[axes]\nmodel = "tiny-moe"\nload.concurrency = 1\n'
    found = made(f"{text}workload.input_tokens = [64, {{ mean = 64, spread = 0.5 }}]")
    assert [cell.values["workload.input_tokens"] for cell in found.cells] == [64, {"mean": 64, "spread": 0.5}]
    apart = made(f"{text}workload.input_tokens.mean = [64, 128]\nengine.args.max_num_seqs = [4, 8]")
    assert list(apart.axes)[2:] == ["workload.input_tokens.mean", "engine.args.max_num_seqs"]
    assert [cell.scenario.engine.args["max_num_seqs"] for cell in apart.cells] == [4, 8, 4, 8]


def test_files_are_looked_for_beside_the_one_that_names_them(written, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (tmp_path / "mine.csv").write_text("seconds,input_tokens,output_tokens\n0,8,8\n1,8,8\n")
    written(
        scenario_text := "[workload]\ninput_tokens = 8\noutput_tokens = 8\n[load]\nconcurrency = 2\n",
        "s.toml",
    )
    assert scenario_text
    path = written(
        'scenario = "s.toml"\nprice = "mine.csv"\n[axes]\nmodel = ["./model", "tiny-moe"]\n'
        '[[when]]\ncells.model = "./model"\nset.load.trace = "mine.csv"\nset.load.mode = "replay"\n'
    )
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    file = grids.read(path)
    assert file.axes["model"] == [str(folder), "tiny-moe"]
    assert (file.scenario, file.price) == (str(tmp_path / "s.toml"), str(tmp_path / "mine.csv"))
    assert file.when[0].set["load.trace"] == str(tmp_path / "mine.csv")
    assert file.when[0].cells["model"] == str(folder)


# ----------------------------------------------------------------------------------------- overrides


def test_overrides_reach_the_file_the_axes_and_the_scenario(made):
    found = made(
        SMALL, "starts=5", "model=tiny-moe", "load.concurrency=1,4", "weights=random", "workload.seed=3"
    )
    assert found.file.starts == 5
    assert found.axes == {"model": ("tiny-moe",), "load.concurrency": (1, 4)}
    assert {(cell.weights, cell.scenario.workload.seed) for cell in found.cells} == {("random", 3)}
    assert made(SMALL, "gpu=H100").axes["gpu"] == ("H100",)


def test_an_override_that_narrows_an_axis_leaves_exclusions_of_its_other_values(made):
    text = f"{SMALL}[[exclude]]\nmodel = 'tiny-dense'\nload.concurrency = 8\n"
    text += "[[when]]\ncells.model = 'tiny-dense'\nset.workload.seed = 1\n"
    assert made(text, "model=tiny-moe").excluded == 0


# ------------------------------------------------------------------------------------------- bad input

AXES = '[axes]\nmodel = ["tiny-moe", "tiny-dense"]\nscenario = ["smoke"]\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("axes = 3", ["mine.toml: axes: expected a table", "got 3"]),
        ("starts = 2", ["axes is missing"]),
        ("[axes]\nload.concurrency = [1]", ["[axes]: model: is missing"]),
        ("[axes]\nmodel = []", ["[axes]: model: has no values"]),
        ("[axes]\nmodel = [3]", ["[axes]: model: expected text, got 3"]),
        ("[axes]\nmodel = ['a', 'a']", ["[axes]: model", "'a' and 'a' are the same value"]),
        ("[axes]\nmodel = ['qwen3-8b', 'Qwen/Qwen3-8B']", ["the same value"]),
        (f"{AXES}load.concurency = [1]", ["[axes]: load.concurency", "did you mean 'concurrency'"]),
        (f"{AXES}concurrency = [1]", ["[axes]: concurrency", "did you mean 'load.concurrency'"]),
        (f"{AXES}models = [1]", ["[axes]: models", "did you mean 'model'"]),
        (f"{AXES}name = ['a']", ["[axes]: name", "leave it out"]),
        (f"{AXES}load = [1, 2]", ["[axes]: load: is a table", "load.mode"]),
        (f"{AXES}load.concurrency = []", ["[axes]: load.concurrency: has no values"]),
        (f"{AXES}load.concurrency = [1, 1]", ["1 and 1 are the same value"]),
        (f"{AXES}load.concurrency = [[1, 2]]", ["one load a value"]),
        (f"{AXES}load.concurrency = [1, 0]", ["[axes]: load.concurrency", "≥ 1", "got 0"]),
        (f"{AXES}load.concurrency = [1, 'x']", ["[axes]: load.concurrency", "whole numbers", "'x'"]),
        (f"{AXES}measure.window_s = ['1 fortnight']", ["measure.window_s", "'fortnight'"]),
        (f"{AXES}measure.window_s = ['60s', '1min']", ["'60s' and '1min' are the same value"]),
        (f"{AXES}gpu = ['H1000']", ["[axes]: gpu: unknown GPU 'H1000'", "profile list gpus"]),
        (f"{AXES}weights = ['hub', 'rand']", ["[axes]: weights", "'rand'", "'random'"]),
        (f"{AXES}engine.kind = ['vlm']", ["engine.kind", "'vllm'"]),
        (f"{AXES}engine.routing = [['model', 'uniform']]", ["engine.routing: one a cell; make it an axis"]),
        (
            "[axes]\nmodel = 'a'\nscenario = ['chatt']",
            ["mine.toml: scenario: unknown scenario 'chatt'", "did you mean 'chat'"],
        ),
        (
            "[axes]\nmodel = 'a'\nscenario = ['batch']\nload.concurrency = [1]",
            ["[axes]: load.concurrency: a load of mode 'batch' has none", "sweep file of their own"],
        ),
        (
            "[axes]\nmodel = 'a'\nscenario = ['chat', 'batch']\nload.concurrency = [8]",
            ["[axes]: load.concurrency: only mode 'closed' has it", "scenario=batch"],
        ),
        (f"{AXES}[set]\nscenario = 'chat'", ["[set]: scenario", "stands at the top of the file"]),
        (f"{AXES}[set]\nmodel = 'chat'", ["[set]: model", "stands in [axes]"]),
        (f"{AXES}[set]\nload.concurency = 1", ["[set]: load.concurency", "did you mean"]),
        (f"{AXES}[set]\nmeasure.window_s = 0", ["[set]: measure.window_s", "> 0"]),
        (
            f"{AXES}load.concurrency = [1]\n[set]\nload.concurrency = 2",
            ["[set]: load.concurrency", "an axis"],
        ),
        (f"{AXES}workload.input_tokens.mean = [1]\n[set]\nworkload.input_tokens = 2", ["is an axis"]),
        (f"{AXES}[[when]]\ncells.model = 'tiny-moe'\nset.scenario = 'chat'", ["when[0].set: scenario"]),
        (
            f"{AXES}[[when]]\ncells.model = 'tiny'\nset.workload.seed = 1",
            ["when[0].cells: model", "tiny-moe"],
        ),
        (f"{AXES}[[when]]\ncells.gpu = 'H100'\nset.workload.seed = 1", ["when[0].cells: gpu: is no axis"]),
        (f"{AXES}[[when]]\ncells = {{}}\nset.workload.seed = 1", ["when[0].cells: names no axis"]),
        (
            f"{AXES}[[when]]\ncells.model = 'tiny-moe'\nset.workload.seed = 1\n"
            "[[when]]\ncells.scenario = 'smoke'\nset.workload.seed = 2",
            ["when[1]: workload.seed is set by when[0] too", "(of the cells with model=tiny-moe)"],
        ),
        (f"exclude = {{}}\n{AXES}", ["exclude[0]: names no axis"]),
        (f"exclude = {{ modle = 'a' }}\n{AXES}", ["exclude[0]: modle", "did you mean 'model'"]),
        (
            f"exclude = {{ model = 'tiny' }}\n{AXES}",
            ["'tiny' is no value of that axis", "tiny-moe, tiny-dense"],
        ),
        (f"exclude = {{ scenario = 'smoke' }}\n{AXES}", ["leaves out all 2 cells"]),
        (f"starts = 0\n{AXES}", ["starts", "≥ 1", "got 0"]),
        (f"retries = -1\n{AXES}", ["retries", "≥ 0"]),
        (f"start = 2\n{AXES}", ["unknown key start", "did you mean 'starts'"]),
        (f"pack = 'yes'\n{AXES}", ["pack: expected true or false, got 'yes'"]),
        (f"name = 'a b'\n{AXES}", ["name: 'a b'"]),
        (f"interleave = 'modle'\n{AXES}", ["interleave: 'modle' is no axis", "did you mean 'model'"]),
        (f"clients = 2\n{AXES}[set]\nload.machines = 2", ["clients: is load.machines of all cells"]),
        (f"weights = 'rand'\n{AXES}", ["weights: no such kind 'rand'"]),
        (f"scenario = 'open'\n{AXES}", ["scenario: is an axis too"]),
        (f"{AXES}'load.think_s' = [1]\nload.think_s = [1]", ["load.think_s: is said twice"]),
        ("[axes]\nmodel = 'a'\nload.mode = ['batch']", ["load.requests: missing", "mode 'batch'"]),
        (f"{AXES}workload.seed = {[*range(400)]}\nload.concurrency = {[*range(1, 200)]}", ["159,200 cells"]),
    ],
)
def test_refused_before_anything_starts(made, text, words):
    said = refused(lambda: made(text))
    assert not [word for word in words if word not in said], said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("starts", ["expected key=value"]),
        ("starts=0", ["--set: starts", "≥ 1"]),
        ("axes=1", ["--set axes=1", "load.concurrency"]),
        ("modle=a", ["--set: modle", "did you mean 'model'"]),
        ("load.concurrency=0", ["load.concurrency", "≥ 1"]),
        ("measure.window_s=0", ["--set: measure.window_s"]),
        ("model=", ["model", "expected text"]),
    ],
)
def test_overrides_refused(made, override, words):
    said = refused(lambda: made(SMALL, override))
    assert not [word for word in words if word not in said], said


def test_two_names_of_one_scenario_are_one_measurement(made, written):
    text = "[workload]\ninput_tokens = 8\noutput_tokens = 8\n[load]\nconcurrency = 2\n"
    for name in ("a.toml", "b.toml"):
        written(text, name)
    said = refused(lambda: made('[axes]\nmodel = "tiny-moe"\nscenario = ["a.toml", "b.toml"]'))
    assert "the same measurement" in said


# ----------------------------------------------------------------------------------------- properties

LOADS = st.lists(st.integers(1, 512), min_size=1, max_size=5, unique=True)
SEEDS = st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)
MODELS = st.lists(st.sampled_from(["a", "b", "tiny-moe"]), min_size=1, max_size=3, unique=True)


def sweep(models, loads, seeds, **more) -> File:
    axes = {"model": models, "load.concurrency": loads, "workload.seed": seeds}
    return File(axes=axes, scenario="smoke", set={"engine.kind": "simulated"}, **more)


@settings(max_examples=15, deadline=None)
@given(MODELS, LOADS, SEEDS, st.data())
def test_growth_keeps_what_there_was(models, loads, seeds, data):
    """However an axis grows and wherever, the cells that there were have the ids they had."""
    before = {cell.id: cell for cell in grids.grid(sweep(models, loads, seeds), "x").cells}
    longer = data.draw(st.permutations(sorted({*loads, *data.draw(LOADS)})))
    more = data.draw(st.permutations(sorted({*models, "a"})))
    after = {cell.id: cell for cell in grids.grid(sweep(more, longer, seeds), "x").cells}
    assert before.keys() <= after.keys()
    assert len(after) == len(more) * len(longer) * len(seeds)
    assert all(after[each].scenario == cell.scenario for each, cell in before.items())


@pytest.mark.parametrize(
    "axis", ["scenario = ['chat', 'smoke']", "weights = ['random', 'auto']", "workload.seed = [1, 0]"]
)
def test_an_axis_that_is_added_keeps_what_there_was(made, axis):
    grown = made(SMALL.replace('scenario = "smoke"', "").replace("[axes]", f"[axes]\n{axis}"))
    there = SMALL if axis.startswith("scenario") else SMALL.replace('"smoke"', '"chat"')
    assert {*ids(made(there))} < {*ids(grown)}


@settings(max_examples=15, deadline=None)
@given(MODELS, LOADS, SEEDS, st.data())
def test_exclusions_take_what_they_say_and_nothing_else(models, loads, seeds, data):
    whole = grids.grid(sweep(models, loads, seeds), "x")
    model, some = data.draw(st.sampled_from(models)), data.draw(st.lists(st.sampled_from(loads), min_size=1))
    table = {"model": model, "load": {"concurrency": some}}
    kept = [
        cell.id
        for cell in whole.cells
        if not (cell.model == model and cell.values["load.concurrency"] in some)
    ]
    file = sweep(models, loads, seeds, exclude=(table,))
    if not kept:
        assert "leaves out all" in refused(lambda: grids.grid(file, "x"))
        return
    found = grids.grid(file, "x")
    assert ids(found) == kept
    assert found.excluded == len(whole.cells) - len(kept)


def test_a_grid_travels():
    """It goes to other machines whole."""
    found = grids.grid(sweep(["a"], [1, 2], [0]), "x")
    for cell in found.cells:
        assert msgspec.json.decode(msgspec.json.encode(cell), type=type(cell)) == cell


# ------------------------------------------------------------------------------------- names of scenarios


def named(made, axes: str) -> list[str]:
    text = SMALL.replace("load.concurrency = [1, 4, 8]", axes).replace(', "tiny-dense"', "")
    return [cell.scenario.name for cell in made(text).cells]


def test_scenarios_are_named_by_what_no_column_tells(made):
    assert named(made, "workload.output_tokens = [8, 24]\nload.concurrency = [1, 2]") == [
        "smoke-output_tokens8",
        "smoke-output_tokens8",
        "smoke-output_tokens24",
        "smoke-output_tokens24",
    ]
    assert named(made, "engine.dtype = ['float32', 'bfloat16']\nload.concurrency = 1") == ["smoke"] * 2
    assert named(made, "slo.ttft_p99_s = ['500ms', 2]\nload.concurrency = 1") == [
        "smoke-ttft_p99_s0.5",
        "smoke-ttft_p99_s2.0",
    ]


def test_a_cell_keeps_its_name_when_an_axis_is_added(made):
    own = scenario.load("smoke").workload.output_tokens
    first, second = named(made, f"workload.output_tokens = [{own}, 8]\nload.concurrency = 1")
    assert (first, second) == ("smoke", "smoke-output_tokens8")


@pytest.mark.parametrize(
    "value", ["/data/a trace.csv", {"mean": 8, "spread": 0.5}, "x" * 99, [1, 2], "../.."]
)
def test_what_is_no_word_has_a_short_name_of_its_own(value):
    text = axes.in_a_name(value)
    assert len(text) <= 24
    assert "/" not in text
    assert " " not in text
    assert text != axes.in_a_name([value])


def test_a_long_axis_is_read_at_once():
    """Each value against each would be minutes."""
    began = time.monotonic()
    Axis.of("workload.seed", list(range(50_000)), "here")
    assert time.monotonic() - began < 20
    with pytest.raises(InputError, match=r"7 and 7\.0 are the same value"):
        Axis.of("workload.seed", [*range(50_000), 7.0], "here")
