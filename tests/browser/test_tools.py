"""What a reader does with the page: change the terms, order tables, add columns, take data away."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from profiler.charts import drawing
from profiler.comparison import money
from profiler.cost.terms import Terms
from profiler.report.table import significant
from tests.browser import pages
from tests.browser.conftest import Open, until

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SVG = "{http://www.w3.org/2000/svg}"


def download(page: Page, button: Locator) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        button.click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def cells(page: Page, column: str) -> dict[str, tuple[str, float | None]]:
    """Of each row, by its key: what a money column says, and the full figure behind it."""
    found: list[Any] = page.locator(f'#table-loads td[data-money="{column}"]').evaluate_all(
        "all => all.map(({dataset, textContent, parentNode}) =>"
        " [parentNode.dataset.row, textContent, dataset.value ?? null])"
    )
    return {row: (text, None if value is None else float(value)) for row, text, value in found}


# ---------------------------------------------------------------------------------------- its money


@pytest.mark.parametrize(
    ("entered", "terms"),
    [
        ({"price": "4"}, {"price": 4.0}),
        ({"price": "0.3", "utilization": "0.4"}, {"price": 0.3, "utilization": 0.4}),
        ({"blend": "0.5"}, {"blend": (0.5, 0.5)}),
        ({"price": "2.5"}, {}),  # as it was given
    ],
)
def test_terms_recompute_as_python_does(
    opened: Open, report: Path, runs: list[Path], entered: Any, terms: Any
):
    page = opened(report)
    for name, value in entered.items():
        page.locator(f"[name={name}]").fill(value)
    lines = pages.lines_of(runs, Terms(**{"price": pages.PRICE_USD_PER_HOUR} | terms))
    for column in ("usd_per_m_output_tokens", "usd_per_m_input_tokens", "usd_per_m_blended_tokens"):
        shown = cells(page, column)
        assert len(shown) == len(lines)
        for line in lines:
            text, value = shown[money.key(line.found)]
            truth = line.row()[column]
            assert value == (None if truth is None else pytest.approx(truth, rel=1e-9))
            assert text.replace("★", "").split()[0] == significant(truth)


def test_the_intervals_are_those_of_the_table(opened: Open, report: Path):
    """What the page writes after a change and back is what Python wrote."""
    page = opened(report)
    before = cells(page, "usd_per_m_output_tokens")
    page.locator("[name=price]").fill("2.50")  # another text, the same price
    assert page.locator(".is-recomputed").count() > 0
    assert {row: text for row, (text, _) in cells(page, "usd_per_m_output_tokens").items()} == {
        row: text.replace("★", "") for row, (text, _) in before.items()
    }
    page.get_by_role("button", name="As given").click()
    until(lambda: page.locator(".is-recomputed").count() == 0)
    assert cells(page, "usd_per_m_output_tokens") == before


def test_charts_and_files_follow_the_terms(opened: Open, report: Path, runs: list[Path]):
    page = opened(report)
    page.locator("#fig-bill").scroll_into_view_if_needed()
    page.wait_for_selector("#fig-bill[data-drawn]")
    before = page.locator("#plot-bill").inner_html()
    page.locator("[name=price]").fill("400")
    until(lambda: page.locator("#plot-bill").inner_html() != before)
    chart = pages.money_chart(pages.lines_of(runs, Terms(price=400.0)))
    _, data = download(
        page, page.get_by_role("button", name="Download “Figure 1. Cost of output tokens by load” as CSV")
    )
    ours, theirs = (list(csv.DictReader(io.StringIO(text))) for text in (data.decode(), drawing.csv(chart)))
    cost = "usd_per_m_output_tokens"
    assert [float(row.pop(cost)) for row in ours] == pytest.approx(
        [float(row.pop(cost)) for row in theirs], rel=1e-9
    )
    assert ours == theirs
    _, table = download(page, page.locator("#block-loads .table-tools > button"))
    got = [float(row[cost]) for row in csv.DictReader(io.StringIO(table.decode()))]
    assert got == pytest.approx(
        [line.row()[cost] for line in pages.lines_of(runs, Terms(price=400.0))], rel=1e-9
    )


@pytest.mark.parametrize(
    ("field", "text"), [("price", "-1"), ("price", "0"), ("utilization", "7"), ("blend", "1.2")]
)
def test_wrong_terms_say_so_and_change_nothing(opened: Open, report: Path, field: str, text: str):
    page = opened(report)
    before = cells(page, "usd_per_m_output_tokens")
    page.locator(f"[name={field}]").fill(text)
    said = page.locator(".terms-state").text_content() or ""
    assert said
    assert "as it was before" in said
    assert cells(page, "usd_per_m_output_tokens") == before


# ---------------------------------------------------------------------------------------- its tables


def column(page: Page, head: str) -> list[str]:
    return [text.replace("★", "").strip() for text in page.locator("#table-loads tbody tr").evaluate_all(
        "(rows, head) => { const heads = [...rows[0].closest('table').tHead.rows[0].cells];"
        " const at = heads.findIndex(cell => cell.textContent.trim() === head);"
        " return rows.map(row => row.cells[at].firstChild.textContent); }", head)]  # fmt: skip


@pytest.mark.parametrize("by_keyboard", [False, True])
def test_columns_are_ordered_both_ways(opened: Open, report: Path, by_keyboard: bool):
    page = opened(report)
    head = page.locator("#table-loads thead th", has_text="tokens/s out")
    for direction, is_down in (("ascending", False), ("descending", True)):
        if by_keyboard:
            head.get_by_role("button").focus()
            page.keyboard.press("Enter")
        else:
            head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == direction
        values = [float(text.replace(",", "")) for text in column(page, "tokens/s out")]
        assert values == sorted(values, reverse=is_down)
        assert len(set(values)) > 3
    assert page.locator("#table-loads [aria-sort]").count() == 1


def test_what_was_not_measured_comes_last(opened: Open, report: Path):
    page = opened(report)
    head = page.locator("#table-loads thead th", has_text="USD/M in")
    for _ in range(2):
        head.get_by_role("button").click()
        values = column(page, "USD/M in")
        assert "n/a" in values
        assert values == sorted(values, key=lambda text: text == "n/a")


@pytest.mark.parametrize(("name", "factor"), [("usd_per_request", 2), ("e2e_s_p50", 1)])
def test_columns_can_be_added_and_follow_the_terms(
    opened: Open, report: Path, runs: list[Path], name: str, factor: float
):
    page = opened(report)
    page.locator("[name=price]").fill(str(2 * pages.PRICE_USD_PER_HOUR))
    page.get_by_text("More columns").first.click()
    box = page.locator("#block-loads .columns").get_by_label(name, exact=True)
    box.check()
    added = page.locator(f'#table-loads td[data-added="{name}"]')
    lines = pages.lines_of(runs, Terms(price=pages.PRICE_USD_PER_HOUR))
    given = [line.row()[name] for line in lines]

    def shown() -> list[float]:
        return [float(cell.get_attribute("data-value") or "nan") for cell in added.all()]

    assert shown() == pytest.approx([factor * value for value in given])
    page.get_by_role("button", name="As given").click()
    until(lambda: page.locator(".is-recomputed").count() == 0)
    assert shown() == pytest.approx(given)
    box.uncheck()
    assert added.count() == 0


# ----------------------------------------------------------------------------------------- its files


def figure_button(page: Page, kind: str) -> Locator:
    """Once the page stands still: drawing a figure may move what a click is on its way to."""
    page.locator("#fig-speed").scroll_into_view_if_needed()
    page.wait_for_selector("#fig-speed[data-drawn]")
    return page.locator("#fig-speed").get_by_role("button", name=f"as {kind}")


def test_csv_is_what_python_writes(opened: Open, report: Path, runs: list[Path]):
    page = opened(report)
    name, data = download(page, figure_button(page, "CSV"))
    assert name == "speed.csv"
    chart = pages.curve(pages.lines_of(runs, Terms(price=pages.PRICE_USD_PER_HOUR)))
    ours, theirs = (list(csv.reader(io.StringIO(text))) for text in (data.decode(), drawing.csv(chart)))
    assert ours[0] == theirs[0]
    assert [[row[0], *map(float, row[1:])] for row in ours[1:]] == [
        [row[0], *map(float, row[1:])] for row in theirs[1:]
    ]


def test_svg_stands_by_itself(opened: Open, report: Path):
    page = opened(report, dark=True)
    name, data = download(page, figure_button(page, "SVG"))
    drawn = ElementTree.fromstring(data)
    assert name == "speed.svg"
    assert drawn.tag == f"{SVG}svg"
    assert "Output tokens a second by load" in (drawn.findtext(f"{SVG}title") or "")
    assert "one window a load" in (drawn.findtext(f"{SVG}desc") or "")
    assert not list(drawn.iter(f"{SVG}script"))
    assert drawn.find(f"{SVG}rect").get("fill") == "#ffffff"  # opaque and light, whatever the page is


def test_png_has_two_pixels_for_one(opened: Open, report: Path):
    page = opened(report, width=400)
    name, data = download(page, figure_button(page, "PNG"))
    assert name == "speed.png"
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") >= 2 * 700  # as wide from a telephone as from a desk


def test_the_data_of_a_figure_as_a_table(opened: Open, report: Path, runs: list[Path]):
    page = opened(report)
    rows = page.locator("#fig-speed details.rows")
    rows.locator("summary").click()
    chart = pages.curve(pages.lines_of(runs, Terms(price=pages.PRICE_USD_PER_HOUR)))
    assert rows.locator("tbody tr").count() == len(chart.rows)
    assert rows.locator("thead th").all_text_contents()[2] == "output tokens (tokens/s)"


def test_numbers_are_written_as_in_python(opened: Open, report: Path):
    values = [0.000123456, 0.0421, 0.999, 0.9996, 1.005, 9.995, 12.34, 123.456, 1234.5, 1234567.8, 99999.5, 3]
    page = opened(report)
    got = page.evaluate("values => values.map(value => tables.significant(value))", values)
    assert json.loads(json.dumps(got)) == [significant(value) for value in values]
