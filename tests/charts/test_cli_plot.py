"""``profile plot`` writes one figure whole, or says in one line why not and leaves nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from profiler.charts.kinds import KINDS
from profiler.cli import entry
from tests.charts.test_ratios import u

REFERENCE = str(Path(__file__).parents[2] / "results" / "reference")


@pytest.fixture
def profile(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr("sys.argv", ["profile", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            entry()
        return ended.value.code, capsys.readouterr()

    return call


@pytest.fixture
def held(tmp_path):
    u(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("ending", "begins"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("csv", b"part,rival,batch")]
)
def test_each_form_is_written_twice_alike(profile, held, tmp_path, ending, begins):
    out = tmp_path / f"x.{ending}"
    assert profile("plot", "advantage", held, "-o", out)[0] == 0
    first = out.read_bytes()
    assert first.startswith(begins)
    assert profile("plot", "advantage", held, "-o", out)[0] == 0
    assert out.read_bytes() == first


def test_help_names_every_kind(profile):
    printed = profile("plot", "--help")[1].out
    assert all(kind in printed for kind in KINDS)


def test_csv_holds_the_ratios(profile, held, tmp_path):
    out = tmp_path / "x.csv"
    profile("plot", "advantage", held, "-o", out)
    rows = list(csv.DictReader(out.open()))
    assert [round(float(row["ratio"]), 6) for row in rows[:4]] == [1.333333, 0.666667, 0.833333, 1.666667]


def test_theme_and_width_are_taken(profile, held, tmp_path):
    out = tmp_path / "x.svg"
    profile("plot", "advantage", held, "-o", out, "--theme", "dark", "--width", "500")
    text = out.read_text()
    assert 'width="500"' in text
    assert "#15181d" in text


REFUSED = {
    "advantagee RUNS -o x.svg": "did you mean 'advantage'?",
    "advantage RUNS -o x.jpg": "x.jpg: its ending says what is written: .svg, .png, .csv",
    "advantage RUNS -o x": "its ending says what is written",
    "advantage RUNS -o none/x.svg": "there is no folder",
    "advantage RUNS -o folder.svg": "is a folder",
    "advantage RUNS -o x.svg --theme drak": "did you mean 'dark'?",
    "advantage RUNS -o x.svg --width 20": "--width 20: between 240 and 4000 pixels",
    "advantage RUNS -o x.svg --baseline thi": "--baseline thi: no run is of this model",
    "advantage RUNS -o x.svg --chart advantage-energy": "no energy was measured",
    "advantage RUNS -o x.svg --chart advantage-sped": "did you mean 'advantage-speed'?",
    "crossover RUNS -o x.svg": "two prompt lengths",
    "advantage nowhere -o x.svg": "is not a run folder",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_drawn_is_one_line_and_no_file(profile, held, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.svg").mkdir()
    code, printed = profile("plot", *(str(held) if word == "RUNS" else word for word in words.split()))
    assert code == 2
    assert REFUSED[words] in printed.err
    assert printed.err.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder.svg", "runs"]


def test_the_other_figures_of_a_kind_are_named_and_drawn(profile, tmp_path):
    out = tmp_path / "x.svg"
    code, printed = profile("plot", "latency", REFERENCE, "-o", out)
    assert code == 0
    assert printed.err.startswith("drawn: latency-ttft; also, with --chart: latency-")
    first = out.read_text()
    assert profile("plot", "latency", REFERENCE, "-o", out, "--chart", "latency-e2e")[0] == 0
    assert out.read_text() != first


def test_another_figure_does_not_stand_in_for_the_one_that_was_asked_for(profile, tmp_path):
    """These runs have no power; they have tokens over time, which are no power."""
    code, printed = profile("plot", "power", REFERENCE, "-o", tmp_path / "x.svg")
    assert code == 2
    assert "with --chart: tokens-" in printed.err
    assert not (tmp_path / "x.svg").exists()


def test_a_reason_that_several_figures_share_is_told_once(profile, tmp_path):
    printed = profile("plot", "roofline", REFERENCE, "-o", tmp_path / "x.svg")[1]
    assert printed.err.count("the ceilings of AMD EPYC are not known") == 1
    assert printed.err.count("Under the roofline: ") == 3


def test_an_ending_in_capitals_is_one(profile, held, tmp_path):
    assert profile("plot", "advantage", held, "-o", tmp_path / "X.SVG")[0] == 0
    assert (tmp_path / "X.SVG").read_bytes().startswith(b"<svg")


def test_a_plan_draws_its_map(profile, tmp_path):
    words = ("plan", "-m", "Qwen/Qwen3-30B-A3B", "-m", "Qwen/Qwen3-14B", "--gpu", "H100", "--format", "csv")
    assert profile(*words, "--plot", tmp_path / "map.csv")[0] == 0
    rows = list(csv.DictReader((tmp_path / "map.csv").open()))
    assert {"M", "d", "?"} <= {row["letter"] for row in rows}
    code, printed = profile(*words[:3], "--gpu", "H100", "--plot", tmp_path / "none.svg")
    assert code == 2
    assert "a map takes a MoE and a dense model" in printed.err
