"""``profile cost`` as a user sees it: sections, formats, wrong words."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from profiler.cli import app
from profiler.cost import terms
from profiler.errors import InputError
from profiler.report import cost as report
from profiler.report import sections
from profiler.report.cost import VIEWS
from tests.cost.test_answers import mixed  # noqa: F401
from tests.cost.test_invoice import ask
from tests.cost.test_kinds import chat

PRICE = ("--price", "3.6")


def invoke(run, *words):
    return CliRunner().invoke(app, ["cost", str(run.folder), *words])


def told(run, *words):
    done = invoke(run, *words)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(run, *words):
    """The one line a user gets."""
    done = invoke(run, *words)
    assert isinstance(done.exception, InputError), done.output
    (line,) = str(done.exception).splitlines()
    return line


def test_all_sections_as_a_table(mixed):  # noqa: F811
    text = told(mixed, *PRICE, "--utilization", "0.4", "--show", "all")
    for title in ("Kinds of tokens (scenario mix)", "Invoice (scenario mix)", "Requests (scenario mix)"):
        assert title in text
    assert "Solved tasks" not in text  # nobody gave an accuracy
    for telling in (
        "input by TTFT at concurrency 1 of this run",
        "blended: 0.75 input + 0.25 output",
        "3.6 USD per machine-hour, given with --price",
        "utilisation 0.4 (--utilization)",
        "of one window: precision within that run only",
        "not used",
        "one hour that is paid for, 0.4 of it at work",
    ):
        assert telling in text
    assert text.count("given with --price") == 1  # what holds for several sections is said once


def test_the_answer_first(mixed, tmp_path):  # noqa: F811
    """Without --show one row a model, and what an option was given for; the rest is named."""
    text = told(mixed, *PRICE)
    assert "What it costs (scenario mix)" in text
    assert "Invoice" not in text
    assert "m: mix at 1, the highest load measured" in text
    assert text.rstrip().endswith("flips, sensitivity or all")
    assert len(text.splitlines()) < 60
    scores = tmp_path / "scores.csv"
    scores.write_text("model,benchmark,score,date,source,n\nm,gsm8k,0.5,2026-11-01,mine,100\n")
    more = told(mixed, *PRICE, "--accuracy", str(scores), "--api", "gpt-4o", "--slo-ttft-p99", "1h")
    for title in ("What it costs", "Solved tasks", "Against an API", "At the latency promise"):
        assert title in more


def test_the_summary_is_what_the_sections_say(mixed):  # noqa: F811
    found = json.loads(told(mixed, *PRICE, "--utilization", "0.4", "--format", "json"))
    (row,) = found["summary"]["rows"]
    of_kinds = next(each for each in found["kinds"]["rows"] if each["unit"] == "USD")
    assert {name: row[name] for name in of_kinds} == of_kinds
    assert row["usd_per_1000_requests"] == found["requests"]["rows"][0]["usd_per_1000_requests"]


def test_it_is_readable_at_100_columns(mixed, tmp_path):  # noqa: F811
    scores = tmp_path / "scores.csv"
    scores.write_text("model,benchmark,score,date,source,n\nm,gsm8k,0.5,2026-11-01,mine,100\n")
    shown = [word for name in ("kinds", "invoice", "requests", "solved") for word in ("--show", name)]
    text = told(mixed, *PRICE, "--accuracy", str(scores), *shown)
    assert "solved task" in text
    tables = [line.rstrip() for line in text.splitlines() if line.startswith(" ")]
    assert max(map(len, tables)) <= 100


def test_json_has_every_column_of_every_section(mixed):  # noqa: F811
    found = json.loads(told(mixed, *PRICE, "--format", "json"))
    assert list(found)[:4] == ["summary", "kinds", "invoice", "requests"]
    for name, section in found.items():
        assert section["title"] == VIEWS[name].title
        for row in section["rows"]:
            assert set(row) >= set(VIEWS[name].columns), name
    lines = found["invoice"]["rows"]
    assert sum(row["usd"] for row in lines[:-1]) == pytest.approx(3.6)
    assert any("given with --price" in line for line in found["requests"]["lines"])


def test_csv_is_one_table_and_markdown_all(mixed):  # noqa: F811
    rows = list(csv.DictReader(io.StringIO(told(mixed, *PRICE, "--show", "invoice", "--format", "csv"))))
    assert tuple(rows[0]) == tuple(VIEWS["invoice"].columns)
    assert [row["line"] for row in rows] == ["input", "output", "idle", "paid hour"]
    text = told(mixed, *PRICE, "--format", "md", "--show", "kinds")
    assert text.startswith("## Kinds of tokens (scenario mix)\n\n| load | model | per M | input |")
    assert "\n* " in text


def test_without_a_price_usd_is_na_and_says_how_to_give_one(mixed):  # noqa: F811
    text = told(mixed, "--show", "kinds", "--show", "requests")
    assert "USD n/a" in text
    assert "--price" in text
    assert "n/a" in text
    bare = invoke(mixed, "--show", "invoice")
    assert bare.exit_code == 3  # nothing could be said
    assert "--price" in bare.stdout


def test_lines_of_an_empty_table_are_not_lost_in_csv(mixed):  # noqa: F811
    done = invoke(mixed, "--show", "invoice", "--format", "csv")
    assert done.exit_code == 3
    assert "USD n/a" in done.stderr


def test_scores_of_other_models_are_one_line(mixed, tmp_path):  # noqa: F811
    scores = tmp_path / "scores.csv"
    scores.write_text("model,benchmark,score,date,source\nother,gsm8k,0.5,2026-11-01,mine\n")
    done = invoke(mixed, *PRICE, "--accuracy", str(scores), "--show", "solved")
    assert "no score of m in the file, which has other: solved tasks n/a" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (("--format", "html"), "--format html: no such format"),
        (("--show", "kind"), "--show kind: no such section (did you mean 'kinds'?)"),
        (("--format", "csv"), "--format csv holds one table: choose it with --show summary|kinds|invoice"),
        (("--price", "0"), "price"),
        (("--price", "-2"), "price"),
        (("--utilization", "0"), "--utilization"),
        (("--utilization", "1.5"), "--utilization"),
        (("--pue", "0.9"), "pue"),
        (("--basis", "stolen"), "basis"),
        (("--terms", "blend=1:1:1:1"), "blend"),
        (("--terms", "nowhere.toml"), "neither key=value nor a TOML file"),
        (("--accuracy", "nowhere.json"), "no such file of scores"),
        (("--slo-ttft-p99", "fast"), "--slo-ttft-p99: expected a time"),
        (("--slo-wit-p99", "1s"), "no such limit"),
        (("--prise", "3"), "no such option: --prise (did you mean '--price'?)"),
    ],
)
def test_wrong_words_are_one_line(mixed, words, telling):  # noqa: F811
    assert telling in refused(mixed, *words)


def test_exit_code_2_and_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "profiler", "cost", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


# ------------------------------------------------------------------------------------- a real run

CACHED = """
name = "{name}"
about = "a test"
[workload]
input_tokens = 400
output_tokens = 1
{prefix}
[load]
concurrency = [1]
[measure]
warmup_s = 0.5
window_s = 2.5
min_requests = 1
repeats = 1
[telemetry]
idle_s = 0
warm_max_s = 0
"""
# An engine that takes 20 ms for a prompt and 0.1 ms for each of its tokens that no prompt had before it.
LAW = ("ttft_s=0.02", "prefill_s_per_token=0.0001", "prefix_cache_block_tokens=16")


@pytest.mark.timing
def test_a_run_with_shared_prefixes_beside_one_without_gives_cached_input_its_price(tmp_path):
    words = [word for each in LAW for word in ("--set", f"engine.args.{each}")]
    base = [sys.executable, "-m", "profiler", "run", "-m", "sim", "--engine", "simulated", "--quiet"]
    jobs = []
    for name, prefix in (("fresh", ""), ("shared", "shared_prefix_tokens = 320")):
        (tmp_path / f"{name}.toml").write_text(CACHED.format(name=name, prefix=prefix))
        line = [*base, "-s", f"{name}.toml", *words, "--price", "3.6"]
        jobs.append(subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.DEVNULL))
    assert [job.wait(120) for job in jobs] == [0, 0]
    done = CliRunner().invoke(app, ["cost", str(tmp_path / "results"), "--format", "json", "--show", "kinds"])
    rows = json.loads(done.stdout)["kinds"]["rows"]
    (row,) = (row for row in rows if row["scenario"] == "shared" and row["quantity"] == "engine time")
    # 60 ms a fresh prompt; of 400 tokens 320 cached ones leave 28 ms: a cached token takes 20 ms / 400.
    assert row["per_m_input_tokens"] == pytest.approx(150, rel=0.1)
    assert row["per_m_cached_input_tokens"] == pytest.approx(50, rel=0.1)


# ------------------------------------------------------------------------------------- rendering


def section(*keys):
    view = sections.View("T", ("load", "x"), lambda q: [], (), lambda q, r: (), groups=("load",))
    return sections.Section("t", view, [{"load": key, "x": n} for n, key in enumerate(keys)], ())


def test_a_rule_stands_between_groups_unless_each_is_a_single_row():
    assert sections._ends(section(1, 1, 8, 8)) == [False, True, False, False]
    assert sections._ends(section(1, 8, 32)) == [False, False, False]


def test_a_price_that_does_not_hold_for_all_loads_says_for_which():
    facts = {"scenario": "s", "concurrency": 8, "load_requests_per_s": None}
    found = [
        replace(each, facts=each.facts | facts | {"model": name})
        for name, each in (("a", chat(power_w_mean=400.0)), ("b", chat(power_w_mean=500.0)))
    ]
    own = terms.read(("owned.node_price=300000",), basis="owned")
    lines = list(report._money(replace(ask(*found), terms=own)))
    powers = [line for line in lines if "W a node" in line]
    assert [line.split(": ")[0] for line in powers] == ["a, s at 8", "b, s at 8"]
    assert [line for line in lines if line.startswith("at 100 % utilisation")]
