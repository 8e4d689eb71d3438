"""``profile sweep`` and ``profile sweep status``: what they say, write and end with."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from profiler.cli import app
from profiler.errors import EngineError
from profiler.storage import open_home
from profiler.sweep import ledger, one
from tests.sweep import few
from tests.trials.fake import Engine

pytestmark = pytest.mark.usefixtures("undisturbed")

MODELS, LOADS = ("test/quick", "test/slow"), (1, 2)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command on an engine that takes no time and fails for the models in ``broken``."""
    monkeypatch.chdir(tmp_path)

    def call(*words, broken=()):
        def execute(plan, show, worker=None, engines=None):
            def before(_):
                if plan.models[0].name in broken:
                    raise EngineError("no such kernel")

            return Engine(2.0, before=before)(plan, show)

        monkeypatch.setattr(one, "execute", execute)
        return CliRunner().invoke(app, ["sweep", *words])

    return call


@pytest.fixture
def file(tmp_path):
    return few.write(tmp_path, MODELS, LOADS, starts=2, head="retries = 1").name


def test_a_sweep_says_what_it_takes_and_what_to_do_with_it(run, file):
    done = run(file)
    assert done.exit_code == 0, done.output
    assert "sweep few: 4 cells (2 model × 2 load.concurrency), 2 engine starts each" in done.stderr
    assert "it takes 4 engine starts in 4 run folders" in done.stderr
    assert "8 of 8 held" in done.stdout
    assert "profile compare results --by model,concurrency" in done.stdout
    assert "profile claims results" in done.stdout


def test_a_dry_run_writes_nothing(run, file, tmp_path):
    done = run(file, "--dry-run")
    assert done.exit_code == 0
    assert "block 1 of 2" in done.stdout
    assert json.loads(run(file, "--dry-run", "--json").stdout)["engine_starts"] == 4
    assert [each.name for each in tmp_path.iterdir()] == [file]


def test_what_fails_too_often_is_exit_code_4_and_told_by_status(run, file):
    done = run(file, "--quiet", broken=("test/slow",))
    assert done.exit_code == 4
    for words in ((file,), ("results",)):
        told = run("status", *words).stdout
        assert "4 " in told
        assert "no such kernel" in told
    assert json.loads(run("status", file, "--json").stdout)["held"] == 4
    assert run(file, "--retry-failed", "--quiet").exit_code == 0
    assert few.cells(open_home("results").folder) == few.whole(MODELS, LOADS, 2)


def test_a_budget_that_ends_it_is_exit_code_3(run, file, monkeypatch):
    def slow(*words, hold=one.hold):
        return tuple(replace(each, took_s=30.0) for each in hold(*words))

    monkeypatch.setattr(one, "hold", slow)
    done = run(file, "--budget", "1min")
    assert done.exit_code == 3, done.output
    assert few.cells(open_home("results").folder) == few.whole(MODELS, LOADS, 1)  # whole blocks


def test_json_is_one_document(run, file):
    done = run(file, "--json")
    document = json.loads(done.stdout)
    assert document["held"] == document["asked"] == 8
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    whats = [each["what"] for each in events if each["event"] == "sweep"]
    assert whats == ["begun", *["start", "held"] * 4, "ended"]
    assert events[-1]["held"] == 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["few.toml", "--set", "load.concurency=2"], "did you mean 'concurrency'"),
        (["none.toml"], "none.toml"),
        (["few.toml", "--budget", "nothing"], "--budget"),
        (["few.toml", "--out", "ftp://there"], "no such kind of address"),
        (["few.toml", "--out", "few.toml/results"], "cannot write"),
        (["few.toml", "--ray", "127.0.0.1:1"], "127.0.0.1:1"),
        (["status", "results"], "no sweep was begun here"),
        (["status", "few.toml"], "was not begun in results"),
    ],
)
def test_bad_input_is_one_line_before_anything_starts(run, file, tmp_path, words, said):
    done = run(*words)
    assert type(done.exception).__name__ == "InputError", done.output
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)
    assert [each.name for each in tmp_path.iterdir()] == [file]


def test_an_engine_that_dies_is_tried_again_and_recorded(tmp_path, monkeypatch):
    """The simulated engine, whose process ends at its first request."""
    monkeypatch.chdir(tmp_path)
    dying = few.toml({"faults": [{"kind": "exit", "every": 1}]})
    when = f'[[when]]\ncells = {{model = "sim:b"}}\nset = {{"engine.args" = {dying}}}'
    few.write(tmp_path, loads=(1,), starts=1, head="retries = 1", tail=when)
    done = CliRunner().invoke(app, ["sweep", "few.toml", "--quiet"])
    assert done.exit_code == 4, done.output
    record = few.record(tmp_path / "results")
    failed = [each for each in record.attempts if each.outcome == "failed"]
    assert len(failed) == 2
    assert all("simulated" in each.why for each in failed)
    assert few.cells(tmp_path / "results") == {("sim:a", 1): 1}
    aside = tmp_path / "results" / ledger.aside_of("few")
    assert {each.name for each in aside.iterdir()} == {run for each in failed for run in each.runs}
