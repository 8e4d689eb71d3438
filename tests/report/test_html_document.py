"""Runs of known truth → what a report says of them, and in which order."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from profiler import figures, store
from profiler.charts.nouns import Absent, Chart
from profiler.charts.ratios import Spot
from profiler.comparison import Question, money
from profiler.cost import terms
from profiler.errors import InputError
from profiler.report.html import document, drawn, results, tables
from profiler.report.html.document import Asked
from profiler.report.html.nouns import Figure, Form, Gaps, Notes, Paragraph, Section, Table
from profiler.schema import EngineFacts, Estimate, LoadPoint, Model
from tests import make

DENSE = replace(make.FACTS, kind="dense", active_params=1000, routed_expert_params=0)


def held(place: int, load: int, start: int, slowness: float):
    """``load`` requests at a time; a request takes the longer the slower the model."""
    begin_s, period_s = 100.0 * (place + 1), 0.2 * slowness / load
    records = [make.request(place, k, begin_s - 1 + k * period_s) for k in range(int(21.5 / period_s))]
    point = LoadPoint(mode="closed", concurrency=load)
    return make.window(place, begin_s, begin_s + 20, repeat=start, engine_start=start, point=point), records


def sealed(out: Path, name: str, slowness: float, number: int = 0, starts: int = 3, facts=make.FACTS):
    windows = [
        held(place, load, start, slowness * (1 + 0.04 * start))
        for place, (start, load) in enumerate((s, load) for s in range(starts) for load in (1, 4))
    ]
    run = make.writer(
        out,
        windows,
        run_id=f"{name.rpartition('/')[2]}-{number}",
        model=Model(name=name, weights="random", facts=facts),
        host=replace(make.HOST, gpus=(make.GPU,)),
        engine=EngineFacts(kind="transformers", version="5", device="cuda", gpus=(make.GPU.uuid,)),
        unix_ns=number,
    )
    run.seal()
    return store.load(run.folder)


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    out = tmp_path_factory.mktemp("trio")
    return [
        sealed(out, "lab/moe", 1.0),
        sealed(out, "lab/dense", 2.0, facts=DENSE),
        sealed(out, "lab/other", 4.0, facts=DENSE),
    ]


def made(runs, **asked):
    return document.document(runs, figures.of_runs(runs), (), Asked(**asked))


@pytest.fixture(scope="module")
def page(trio):
    return made(trio, question=Question(terms=terms.read(price="2")))


def sections(page):
    return {each.id: each for each in page.sections}


def tables_of(page):
    return {each.id: each for each in page.blocks() if isinstance(each, Table)}


def test_it_begins_with_the_ratio_and_its_interval(page):
    figure = r"([\d.]+) \(([\d.]+)–([\d.]+)\)"
    found = re.match(
        rf"lab/moe gives {figure} times the output tokens/s of lab/dense and {figure} times those of "
        rf"lab/other with 1 in flight, and {figure} and {figure} with 4\.$",
        page.lead,
    )
    ratios = [float(each) for each in found.groups()]
    for truth, value, low, high in zip((2, 4, 2, 4), ratios[::3], ratios[1::3], ratios[2::3], strict=True):
        assert low < value < high
        assert value == pytest.approx(truth, rel=0.05)
    assert page.title == "moe, dense and other"


def test_it_says_what_was_measured_on_what(page):
    facts = {each.name: each.text for each in page.facts}
    assert facts["Models"].startswith("lab/moe: MoE, 1.00 k parameters, 100 active; lab/dense: dense,")
    assert facts["Requests"] == "10 tokens in, 5 out"
    assert facts["Load"] == "test: 1 and 4 in flight"
    assert facts["Measured"].startswith("3 runs, 9 engine starts, 18 windows, ")
    assert facts["When"].startswith("2026-01-01 (UTC)")
    assert any("random weights" in line for line in page.warnings)


def test_figures_come_before_tables_and_caveats_and_are_counted_through(page):
    order = [each.id for each in page.sections]
    assert order.index("advantage") < order.index("speed") < order.index("runs") < order.index("tables")
    assert order.index("tables") < order.index("caveats") < order.index("hosts")
    numbers = [each.number for each in page.blocks() if isinstance(each, Figure)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [each.number for each in tables_of(page).values()] == [*range(1, len(tables_of(page)) + 1)]
    ids = [each.chart.id for each in page.blocks() if isinstance(each, Figure)]
    assert len(ids) == len(set(ids))


def test_a_model_has_one_colour_on_the_whole_page(page):
    models = {"lab/moe", "lab/dense", "lab/other"}

    def domains(value):
        if isinstance(value, dict):
            if isinstance(value.get("domain"), list) and models & {*map(str, value["domain"])}:
                yield tuple(value["domain"])
            for each in value.values():
                yield from domains(each)
        elif isinstance(value, list):
            for each in value:
                yield from domains(each)

    found = {
        each for block in page.blocks() if isinstance(block, Figure) for each in domains(block.chart.spec)
    }
    assert found == {("lab/moe", "lab/dense", "lab/other")}


def test_every_row_can_be_priced_again(page, trio):
    table = tables_of(page)["loads"]
    (form,) = (each for each in page.blocks() if isinstance(each, Form))
    keys = [line.key for line in table.lines]
    assert keys == [row.key for row in form.money.rows] == list(table.data.keys)
    assert set(keys) == {money.key(each) for each in figures.of_runs(trio)}
    costs = [cell for line in table.lines for cell in line.cells if cell.money == "usd_per_m_output_tokens"]
    assert len(costs) == 6
    assert all(cell.spread for cell in costs)
    place = table.data.fields.index("usd_per_m_output_tokens")
    assert [row[place] for row in table.data.rows] == [cell.value for cell in costs]


def test_best_values_are_marked_and_intervals_apart(page):
    table = tables_of(page)["loads"]
    place = [head.key for head in table.heads].index("output_tokens_per_s")
    model = [head.key for head in table.heads].index("model")
    best = [line.cells[model].text for line in table.lines if line.cells[place].is_best]
    assert best == ["lab/moe", "lab/moe"]
    assert all(line.cells[place].spread.startswith("±") for line in table.lines)


def test_what_is_not_measured_is_said_once_and_is_no_number(page):
    gaps = [item for each in page.blocks() if isinstance(each, Gaps) for item in each.items]
    assert any("energy" in item.text for item in gaps)
    missing = sections(page)["missing"].blocks[0].items
    assert len({(each.name, each.text) for each in missing}) == len(missing)
    table = tables_of(page)["loads"]
    assert "power_w_mean" not in {head.key for head in table.heads}


def test_a_baseline_adds_its_table_and_a_wrong_one_is_refused(trio):
    page = made(trio, question=Question(baseline="lab/dense"))
    table = tables_of(page)["over"]
    assert {head.label for head in table.heads} >= {"tokens/s out"}
    assert page.lead.startswith("lab/moe gives ")
    assert "lab/other" not in page.lead
    with pytest.raises(InputError, match="no such model"):
        made(trio, question=Question(baseline="nobody"))
    by_column = made(trio, question=Question(baseline="kind=dense", where=("model!=lab/other",)))
    assert "over" in tables_of(by_column)


def test_rows_that_are_not_asked_for_take_their_runs_along(trio):
    page = made(trio, question=Question(where=("model!=lab/other",)))
    assert page.title == "moe and dense"
    assert len(tables_of(page)["loads"].lines) == 4
    assert len(tables_of(page)["runs"].lines) == 2


def test_one_run_is_a_page_of_its_own(trio):
    page = made(trio[:1])
    assert page.lead.startswith("lab/moe gave 2")
    ids = [each.id for each in page.sections]
    assert "runs" not in ids
    assert {"speed", "distributions", "time"} <= set(ids)


def test_nothing_measured_is_a_page_that_says_so(tmp_path):
    run = make.writer(tmp_path, [])
    run.close()
    page = made([store.load(run.folder)])
    assert page.lead == results.NOTHING
    caveats = [line for each in page.blocks() if isinstance(each, Notes) for line in each.lines]
    assert any("before its first window was finished" in line for line in caveats)


def test_no_line_depends_on_today(trio, monkeypatch):
    import datetime

    from profiler.report import table

    class Later(datetime.date):
        @classmethod
        def today(cls):
            return cls(2031, 1, 1)

    dated = Question(terms=terms.read())
    before = made(trio, question=dated)
    assert "median of" in {each.name: each.text for each in before.facts}["Cost"]
    monkeypatch.setattr(table.datetime, "date", Later)
    assert made(trio, question=dated) == before


def test_of_many_runs_the_last_whole_one_of_each_kind_is_shown_in_detail(tmp_path):
    runs = [sealed(tmp_path, f"m{n % 8}", 1.0, number=n, starts=1) for n in range(16)]
    shown = drawn.in_detail(runs)
    assert [run.folder.name for run in shown] == [f"m{n - 8}-{n}" for n in range(8, 14)]
    page = made(runs)
    told = sections(page)["runs"].blocks[0]
    assert isinstance(told, Paragraph)
    assert "Of 16 runs 6 are shown in detail" in told.text
    assert len(sections(page)["runs"].parts) == drawn.MOST_IN_DETAIL
    assert all(part.folded for part in sections(page)["runs"].parts)
    assert all(block in page.blocks() for part in sections(page)["runs"].parts for block in part.folded)
    assert "lab" not in page.lead
    assert len(tables_of(page)["loads"].lines) == 32


def test_a_page_of_very_many_loads_computes_those_again_that_it_shows(tmp_path, monkeypatch):
    runs = [sealed(tmp_path, f"m{n}", 1.0, number=n, starts=1) for n in range(4)]
    monkeypatch.setattr(tables, "MOST_DATA", 2)
    monkeypatch.setattr(drawn, "OF_ALL", tuple(each._replace(most_runs=2) for each in drawn.OF_ALL))
    page = made(runs)
    known = {item.key for block in page.blocks() if isinstance(block, Form) for item in block.money.rows}
    charts = [block.chart for block in page.blocks() if isinstance(block, Figure)]
    shown = {row["key"] for chart in charts for row in chart.rows if row.get("key")}
    assert shown <= known
    assert len(known) < 8


def test_the_lead_names_the_least_place_of_a_u():
    def spot(batch, value):
        ratio = Estimate(value, value / 1.1, value * 1.1, 4, "starts")
        return Spot(batch=batch, ratio=ratio, moe=value, rival=1.0, starts=4)

    curve = SimpleNamespace(rival="d", spots=[spot(1, 4.0), spot(8, 2.0), spot(64, 3.0)])
    (said,) = re.findall(r"(\S+) \(\S+\) with 8, and", results._ends([curve]))
    assert said == "2.00"


def test_notes_that_most_figures_share_are_said_once():
    def chart(name, *notes):
        return Chart(id=name, title=name, summary="s", columns=(), rows=(), spec={}, notes=notes)

    found = drawn.blocks(
        [
            chart("a", "all", "x"),
            chart("b", "all"),
            chart("c", "all"),
            Absent(id="d", title="D", reason="why"),
        ]
    )
    assert found[0] == Notes(("all",))
    assert [each.notes for each in found if isinstance(each, Figure)] == [("x",), (), ()]
    assert found[1].chart.notes == ("all", "x")  # a downloaded figure says it all
    assert found[-1] == Gaps((drawn.Item("D", "why"),))


def test_a_long_table_says_what_it_leaves_out(trio, monkeypatch):
    monkeypatch.setattr(tables, "MOST_LINES", 2)
    page = made(trio)
    table = tables_of(page)["loads"]
    assert len(table.lines) == 2
    assert "first 2 of 6 rows" in table.more
    assert len(table.data.rows) == 6


def test_compared_is_the_same_without_figures_and_verdicts(trio, page):
    quick = document.compared(
        trio, figures.of_runs(trio), Asked(question=Question(terms=terms.read(price="2")))
    )
    assert not [each for each in quick.blocks() if isinstance(each, Figure)]
    assert (quick.lead, quick.facts, quick.findings) == (page.lead, page.facts, page.findings)
    assert tables_of(quick) == tables_of(page)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("905 ±11%", ("905", "±11%")),
        ("12.3 (11.8 – 12.9)", ("12.3", "(11.8 – 12.9)")),
        ("30 (+2 failed)", ("30", "(+2 failed)")),
        ("n/a", ("n/a", None)),
        ("0.3 ±2% ⚑", ("0.3 ⚑", "±2%")),
    ],
)
def test_an_interval_stands_apart_from_its_figure(text, parts):
    assert tables.split(text) == parts


def test_sections_may_hold_parts():
    inner = Section(id="b", title="b", blocks=(Paragraph("x"),))
    outer = Section(id="a", title="a", parts=(inner,))
    from profiler.report.html.nouns import Document

    assert Document(title="t", kicker="k", lead="l", sections=(outer,)).blocks() == [Paragraph("x")]


def test_unlike_hosts_are_told_apart_before_anything_is_ranked(tmp_path, trio):
    other = make.writer(
        tmp_path,
        [held(0, 1, 0, 1.0)],
        run_id="elsewhere",
        host=replace(make.HOST, packages={"torch": "2.12.1"}),
    )
    other.seal()
    page = made([trio[0], store.load(other.folder)])
    blocks = sections(page)["hosts"].blocks
    assert blocks[0].is_warning
    assert "2 kinds of host or software" in blocks[0].text
    assert [line.cells[0].text for line in tables_of(page)["hosts"].lines] == ["1", "2"]
    assert any(
        "torch 2.13.0 ≠ 2.12.1" in line for each in blocks if isinstance(each, Notes) for line in each.lines
    )
    assert [line.cells[-1].text for line in tables_of(page)["runs"].lines] == ["1", "2"]
