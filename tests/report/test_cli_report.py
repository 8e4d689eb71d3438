"""``profile report`` as a user has it: one file, whole or not at all; and ``profiler.write_report``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import profiler
from profiler import cli, store
from profiler.errors import InputError
from profiler.report.html import making, render
from profiler.schema import Model
from tests import make
from tests.report import building

LIMIT_BYTES = 6_000_000
BUILT_S, OPENED_GIB = 10.0, 1.0


def sealed(out: Path, name: str, **changes) -> Path:
    windows = [make.steady(place, 10.0 * (place + 1), requests=20) for place in range(2)]
    run = make.writer(out, windows, run_id=name, model=Model(name=name, weights="random", facts=make.FACTS))
    run.seal()
    return run.folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("results")
    for name in ("a", "b"):
        sealed(out, name)
    return out


def invoke(*words: object):
    return CliRunner().invoke(cli.app, ["report", *map(str, words)])


def test_it_writes_one_page_and_says_so(runs, tmp_path):
    page = tmp_path / "page.html"
    done = invoke(runs, "-o", page, "--price", "2", "--title", "Of <a> & b")
    assert done.exit_code == 0, done.output
    assert re.search(rf"{re.escape(str(page))}: \d+ figures, 3 tables \(\d\.\d MB, ", done.output)
    text = page.read_text()
    assert "<h1>Of &lt;a&gt; &amp; b</h1>" in text
    assert len(text.encode()) < LIMIT_BYTES
    money = json.loads(re.search(r'<script type="application/json" id="money">(.*?)</script>', text)[1])
    assert [row["hour"]["price"] for row in money["rows"]] == [2.0, 2.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html"]


def test_the_same_runs_give_the_same_bytes_in_another_process(runs, tmp_path):
    pages = []
    for seed in ("1", "2"):
        page = tmp_path / f"{seed}.html"
        code = f"import profiler; profiler.write_report([{str(runs)!r}], {str(page)!r}, price=2)"
        subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": seed})
        pages.append(page.read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "x.pdf"), "a report is a page: name it x.html"),
        (("-o", "no-such/x.html"), "there is no folder no-such"),
        (("--price", "free"), "--price free"),
        (("--where", "modle=a"), "modle"),
        (("--where", "model=z"), "no row is left by --where model=z"),
        (("--baseline", "c"), "no such model"),
        (("--score", "no-such"), "no-such"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_long_and_leaves_nothing(
    runs, tmp_path, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(making.docket, "docket", lambda *_: pytest.fail("claims are judged"))
    done = invoke(runs, *words)
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_page(runs, tmp_path):
    (tmp_path / "x.html").mkdir()
    done = invoke(runs, "-o", tmp_path / "x.html")
    assert "is a folder" in str(done.exception)


def test_a_report_that_fails_leaves_the_old_one(runs, tmp_path, monkeypatch):
    page = tmp_path / "report.html"
    page.write_text("old")
    monkeypatch.setattr(render, "html", lambda _: (_ for _ in ()).throw(OSError("full")))
    assert invoke(runs, "-o", page).exit_code != 0
    assert page.read_text() == "old"


def test_as_a_function_it_takes_what_run_returns(runs, tmp_path):
    loaded = store.find([runs])
    page = profiler.write_report(loaded, tmp_path / "r.html", title="Two", where=["model=a"])
    assert "<h1>Two</h1>" in page.read_text()
    assert ">b</t" not in page.read_text()


def test_hostile_names_of_models_stay_words(tmp_path):
    name = '</script><script>alert(1)</script>"><img src=x onerror=alert(1)>{{7*7}}'
    run = make.writer(
        tmp_path,
        [make.steady(0, 10.0)],
        run_id="hostile",
        model=Model(name=name, weights="random", facts=make.FACTS, notes=(name,)),
    )
    run.note(name)
    run.seal()
    text = render.html(making.report([run.folder], making.Asked()))
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.timing
def test_two_hundred_runs_are_a_page_within_ten_seconds_and_a_gibibyte(tmp_path):
    for number in range(200):
        run = make.writer(
            tmp_path / "results",
            [make.steady(place, 10.0 * (place + 1), requests=20) for place in range(2)],
            run_id=f"r{number:03}",
            model=Model(name=f"m{number % 20}", weights="random", facts=make.FACTS),
        )
        run.seal()
    took = building.report(tmp_path / "results", tmp_path / "r.html")
    assert took.seconds < BUILT_S
    assert took.kib / 2**20 < OPENED_GIB
    assert (tmp_path / "r.html").stat().st_size < LIMIT_BYTES
