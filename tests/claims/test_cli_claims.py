"""``profile claims``: the docket, a claim in detail, its exit codes and its records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from profiler.claims import docket, reading
from profiler.claims.nouns import Setting
from profiler.cli import app
from profiler.cli.claims import exit_code
from profiler.errors import InputError
from profiler.report import claims as report
from tests.claims import cases
from tests.claims.test_evidence import sealed

SPEED = """\
text = "sparse is faster | than *thick*"
metric = "output_tokens_per_s"
relation = "more"
factor = {factor}
not_comparable = ["other boards"]

[source]
name = "a test"
date = "2026-01-01"

[subject]
names = ["sparse/one"]

[baseline]
names = ["thick/two"]

[[cells]]
batch = [1, 4]
input_tokens = [10]
output_tokens = [5]
"""
PARAMS = """\
text = "a mixture computes less"
metric = "active_params"
relation = "less"

[source]
name = "a test"
date = "2026-01-01"

[subject]
names = ["tiny-moe"]

[baseline]
names = ["{baseline}"]

[conditions]
weights = "any"
"""


def profile(*words):
    return CliRunner().invoke(app, ["claims", *map(str, words)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three starts a side; sparse is exactly twice as fast, each pair of starts a little slower."""
    out = tmp_path_factory.mktemp("runs")
    for n in range(3):
        for model, speed in (("sparse/one", 2.0), ("thick/two", 1.0)):
            sealed(out, f"{model.partition('/')[0]}-{n}", model, speed * (1 - n / 200))
    return out


def written(folder, name, text):
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("factor", "verdict", "code"),
    [(1.74, "supported", 0), (1.2, "supported", 0), (3.0, "direction only", 1), (2.06, "undecided", 3)],
)
def test_the_exit_code_is_the_verdict(tmp_path, runs, factor, verdict, code):
    done = profile(runs, "--claim", written(tmp_path, "fast", SPEED.format(factor=factor)))
    assert done.exit_code == code
    assert f": {verdict.upper()}\n" in done.stdout
    assert f"claimed: output_tokens_per_s of the subject is at least {factor:g} times" in done.stdout
    assert "sparse/one / thick/two" in done.stdout


def test_without_a_claim_the_docket_is_printed_whatever_it_says(runs):
    done = profile(runs)
    assert done.exit_code == 0
    shown = done.stdout
    for claim in reading.shipped():
        assert claim.id in shown.replace("\n", "")
    assert f"{len(reading.shipped())} claims" in shown


def test_claims_without_runs_say_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = profile("--claim", written(tmp_path, "fast", SPEED.format(factor=2)))
    assert done.exit_code == 3
    assert "UNDECIDED" in done.stdout
    assert "profile claims run fast.toml" in done.stdout


def test_the_runs_of_the_results_folder_are_at_hand(tmp_path, runs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(runs)
    assert profile("--claim", written(tmp_path, "fast", SPEED.format(factor=1.7))).exit_code == 0


@pytest.mark.parametrize(("baseline", "code"), [("tiny-dense", 0), ("tiny-dense-active", 1)])
def test_what_needs_no_load_needs_no_runs(tmp_path, monkeypatch, baseline, code):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "active", PARAMS.format(baseline=baseline))
    assert profile("--claim", path).exit_code == code


def test_several_claims_fail_together(tmp_path, runs):
    for name, factor in (("held", 1.5), ("failed", 3.0), ("open", 2.06)):
        written(tmp_path, name, SPEED.format(factor=factor))
    assert profile(runs, "--claim", tmp_path).exit_code == 1
    both = [word for name in ("held", "open") for word in ("--claim", tmp_path / f"{name}.toml")]
    assert profile(runs, *both).exit_code == 3
    assert [
        exit_code(each) for each in ([], ["supported"], ["not comparable"], ["undecided", "refuted"])
    ] == [3, 0, 3, 1]


def test_json_holds_everything(tmp_path, runs):
    done = profile(runs, "--claim", written(tmp_path, "fast", SPEED.format(factor=1.74)), "--format", "json")
    found = json.loads(done.stdout)
    assert found["counted"]["supported"] == 1
    (ruling,) = found["rulings"]
    assert ruling["case"]["claim"]["factor"] == 1.74
    assert len(ruling["findings"]) == 2
    first = ruling["findings"][0]
    assert first["ratio"]["low"] < 2.0 < first["ratio"]["high"]
    assert len(first["evidence"]["subject"]["values"]) == 3


def test_markdown_is_tame(tmp_path, runs):
    done = profile(runs, "--claim", written(tmp_path, "fast", SPEED.format(factor=1.74)), "--format", "md")
    assert "“sparse is faster \\| than \\*thick\\*”" in done.stdout
    assert "| 1 | 10 | 5 |" in done.stdout
    assert "would not be comparable: other boards" in done.stdout
    assert done.exit_code == 0


def test_a_record_is_written_and_verified(tmp_path, runs):
    claim, record = written(tmp_path, "fast", SPEED.format(factor=1.74)), tmp_path / "record.json"
    assert profile(runs, "--claim", claim, "--record", record).exit_code == 0
    assert f"--claim {claim}" in json.loads(record.read_text())["command"]
    assert "sparse" in record.with_suffix(".md").read_text()
    done = profile(runs, "--verify", record)
    assert (done.exit_code, done.stdout) == (0, f"{record}: the same rulings, of the same runs\n")
    less = profile(runs / "sparse-0", runs / "thick-0", "--verify", record)
    assert less.exit_code == 1
    assert "is not at hand" in less.stdout


def test_a_record_and_its_text_are_two_files(tmp_path, runs):
    done = profile(runs, "--record", tmp_path / "record.md")
    assert isinstance(done.exception, InputError)
    assert not (tmp_path / "record.md").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--format", "csv"), "no such format"),
        (("--claim", "no-such"), "unknown claim 'no-such'"),
        (("no-such-folder",), "no-such-folder"),
        (("--verify", "a.json", "--claim", "b"), "the record says which claims"),
    ],
)
def test_bad_words_are_one_line(words, why):
    done = profile(*words)
    assert isinstance(done.exception, InputError)
    assert why in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.parametrize("word", ["qwen1.5-moe-1.74x", "./ours.toml"])
def test_a_claim_in_the_place_of_a_run_is_told(word):
    found = CliRunner().invoke(app, ["claims", word])
    assert isinstance(found.exception, InputError)
    assert f"--claim {Path(word)} judges it" in str(found.exception)


def test_a_first_word_that_is_no_command_is_a_run(tmp_path, runs, monkeypatch):
    monkeypatch.chdir(runs.parent)
    (tmp_path / "run").symlink_to(runs)
    claim = written(tmp_path, "fast", SPEED.format(factor=1.74))
    assert profile(tmp_path / "run", "--claim", claim).exit_code == 0
    assert "no-such" in str(profile("run", "no-such").exception)


# ------------------------------------------------------------------------------------ the text


def test_the_docket_says_where_each_ruling_was_made():
    here, there = (
        Setting(subject="a", baseline="b", machine=name, engine="vllm 0.24") for name in ("H100", "L40S")
    )
    found = [
        docket.judge.ruling(cases.case(cases.evidence(2.0), setting=here, looks=None)),
        docket.judge.ruling(cases.case(cases.evidence(0.5), setting=there)),
        docket.judge.ruling(cases.case(impossible="training")),
    ]
    shown = report.markdown(found, in_detail=False)
    assert "| test | a / b | H100, vllm 0.24 | ✓ supported | 1 of 1 | 2.00 \\[" in shown
    assert "L40S, vllm 0.24" in shown
    assert "judged at 98 %" in shown
    assert "1 claim in 3 settings: 1 refuted, 1 supported, 1 not testable here" in shown


def test_of_much_that_is_missing_the_first_and_the_command_are_said():
    lines = tuple(f"no run at batch {n}" for n in range(20))
    found = docket.judge.ruling(cases.case(missing=(*lines, "profile claims run test")))
    said = [line for line in report.markdown([found], in_detail=True).splitlines() if "missing" in line]
    assert [line.removeprefix("* missing: ") for line in said] == [
        *lines[:4],
        "and 16 more (--format json has them all)",
        "profile claims run test",
    ]


def test_a_look_says_how_far_its_trial_is():
    found = docket.judge.ruling(cases.case(cases.evidence(2.0), looks=(0.5,)))
    assert "look 1 of its trial, 50 % of the planned starts in" in report.markdown([found], in_detail=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relation": "less"}, "is less than that of the baseline, practical margin 3 %"),
        ({"relation": "less", "factor": 2.0}, "is at least 2 times less than that of the baseline"),
        ({"relation": "about", "factor": 1.74}, "is about 1.74 times that of the baseline"),
        ({"relation": "equal", "margin_frac": 0.1}, "is that of the baseline, practical margin 10 %"),
        ({"metric": "training_cost", "untestable": "training"}, "training_cost of the subject is more"),
    ],
)
def test_what_is_claimed_in_words(changes, words):
    assert words in report.stated(cases.claim(**changes))
