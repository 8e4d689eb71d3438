"""``profile claims run``: what it says before and while a trial is held, and its exit codes."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from typer.testing import CliRunner

from profiler import trials
from profiler.claims import ledger
from profiler.claims.nouns import Plan as TrialPlan
from profiler.cli import app
from profiler.errors import EngineError, InputError
from profiler.report import trials as report
from profiler.trials import holding
from tests.trials import fake

CLAIM = """
text = "quick is faster than slow"
subject = { names = ["test/quick"] }
baseline = { names = ["test/slow"] }
metric = "output_tokens_per_s"
relation = "more"
source = { name = "a test", date = "2026-01-01" }
conditions = { engine = "simulated", weights = "any" }
cells = [{ batch = [2], input_tokens = [10], output_tokens = [5] }]
[plan]
starts = 4
looks = 2
set = { measure.warmup_s = 0, measure.window_s = 1, measure.min_requests = 2 }
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command with an engine whose truth is ``ratio``."""
    (tmp_path / "quick.toml").write_text(CLAIM)

    def call(*words, ratio=1.5, **options):
        monkeypatch.setattr(holding, "execute", fake.Engine(ratio, **options))
        asked = ["claims", "run", str(tmp_path / "quick.toml"), "--out", str(tmp_path / "results"), *words]
        return CliRunner().invoke(app, asked)

    return call


def the_trial(tmp_path):
    (trial,) = ledger.read_all(tmp_path / "results")
    return trial


@pytest.mark.parametrize(("ratio", "code"), [(1.5, 0), (0.7, 1), (1.03, 3)])
def test_exit_codes_are_those_of_the_verdict(run, ratio, code):
    done = run("--quiet", ratio=ratio, spread=0.005)
    assert done.exit_code == code, done.output


def test_a_dry_run_says_time_money_looks_and_order_and_starts_nothing(run, tmp_path):
    done = run("--dry-run", "--price", "2.5", "--seed", "7")
    assert done.exit_code == 0
    assert "it takes 8 starts, about " in done.stdout
    assert "USD to its end" in done.stdout
    assert "looks after 3 and 4 starts a side" in done.stdout
    assert done.stdout.count("\nblock ") == 4
    assert not list((tmp_path / "results").rglob("*.json"))


def test_it_says_what_it_takes_first_and_every_look_as_it_comes(run, tmp_path):
    said = run().stderr.splitlines()
    trial = the_trial(tmp_path)
    assert said[0].startswith(f"trial {trial.id}: test/quick / test/slow, simulated")
    assert said[1].startswith("it takes 8 starts, about ")
    looks = [line for line in said if line.startswith("look ")]
    assert len(looks) == len(trial.looks)
    assert looks[-1].endswith("every cell has its verdict")
    assert said[-1].startswith(f"trial {trial.id}: {len(trial.runs())} starts, about ")
    assert "announced)" in said[-1]


def test_a_budget_that_ends_before_the_first_look_says_how_far_it_came_and_how_to_go_on(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(holding, "_timed", lambda: nullcontext(lambda: 60.0))  # far longer than announced
    done = run("--budget", "70s")
    trial = the_trial(tmp_path)
    assert done.exit_code == 3
    assert (trial.starts, trial.looks) == (1, ())
    assert f"trial {trial.id}: 1 of the 3 starts a side are held that its first look takes" in done.stdout
    assert "profile claims run quick.toml --out" in done.stdout
    assert "the budget is spent; the same command" in done.stderr
    again = run("--budget", "3min")
    assert "budget: 3 min, of which 2 min are spent" in again.stderr


def test_a_trial_that_has_ended_holds_no_further_blocks_in_a_dry_run_either(run):
    run()
    done = run("--dry-run")
    assert "has ended" in done.stdout
    assert "block 1" not in done.stdout


def test_no_trial_is_sure_to_decide(tmp_path):
    found = trials.outline(
        fake.asked(tmp_path, claim=fake.claim(plan=TrialPlan(starts=50, spread_frac=0.001)))
    )
    assert "in at least 99 % of trials" in "\n".join(report.announced(found.trial))


def test_an_engine_that_dies_is_one_line_and_the_way_on(run, tmp_path):
    def die(number):
        if number == 1:
            raise EngineError("the engine died (exit code 1)", ["importing", "warming up"])

    done = run(before=die)
    assert isinstance(done.exception, EngineError)
    assert done.exception.exit_code == 4
    assert "the same command goes on with it" in done.stderr
    (dropped,) = [line for line in done.stderr.splitlines() if "does not count" in line]
    assert dropped.endswith(": the engine died (exit code 1)")
    again = run()
    assert again.exit_code == 0
    assert f"going on with trial {the_trial(tmp_path).id}: 0 of 4 starts a side are held" in again.stderr


def test_ctrl_c_ends_with_130(run, tmp_path):
    def stop(_number):
        raise KeyboardInterrupt

    assert run(before=stop).exit_code == 130
    with ledger.locked(tmp_path / "results", the_trial(tmp_path)):
        busy = run()
    assert "held by another process" in str(busy.exception)
    assert "the same command goes on" not in busy.stderr


def test_an_ended_trial_prints_its_ruling_again(run):
    first = run()
    again = run()
    assert again.exit_code == first.exit_code == 0
    assert again.stdout == first.stdout
    assert "has ended; another of the same claim needs a seed of its own" in again.stderr


def test_bad_words_are_input_errors(run, tmp_path):
    folder = CliRunner().invoke(app, ["claims", "run", str(tmp_path / "none.toml")])
    for done in (run("--budget", "soon"), run("--engine", "endpoint"), run("--model", "a/b"), folder):
        assert isinstance(done.exception, InputError)
        assert "\n" not in str(done.exception)


def test_the_record_of_a_trial_is_plain_json_and_a_damaged_or_newer_one_is_refused(run, tmp_path):
    run()
    (path,) = (tmp_path / "results" / ledger.FOLDER).glob("*.json")
    written = json.loads(path.read_text())
    assert written["claim"]["id"] == "quick"
    assert len(written["blocks"]) in (3, 4)
    assert {held["leg"]["side"] for held in written["blocks"][0]["held"]} == {"subject", "baseline"}
    path.write_text(json.dumps(written | {"version": ledger.VERSION + 1}))
    with pytest.raises(InputError, match="update it"):
        ledger.read_all(tmp_path / "results")
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        ledger.read_all(tmp_path / "results")
    assert ledger.read_all(tmp_path / "nowhere") == []
