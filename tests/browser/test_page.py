"""The report's page in a real browser: it opens, draws, prints, obeys the theme, and is fit for everybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from profiler.charts import theme
from profiler.report.html import making, render
from profiler.report.html.document import Asked
from tests.browser import pages
from tests.browser.conftest import Open, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTHS = (1280, 768, 400)
FOCUSED = "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
OUTLINE = "getComputedStyle(document.activeElement).outlineStyle"


def scroll_through(page: Page) -> None:
    """Figures are drawn when they come near the screen."""
    page.locator("details.fold").evaluate_all("all => all.forEach(fold => { fold.open = true; })")
    for figure in page.locator("figure[data-chart]").all():
        figure.scroll_into_view_if_needed()
    until(lambda: page.locator("figure[data-drawn]").count() == page.locator("figure[data-chart]").count())


@pytest.mark.parametrize("width", WIDTHS)
def test_every_figure_is_drawn_within_the_screen(opened: Open, report: Path, width: int):
    page = opened(report, width=width)
    scroll_through(page)
    assert page.locator("figure .plot svg").count() == page.locator("figure").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for plot in page.locator(".plot").all():
        box, drawing = plot.bounding_box(), plot.locator("svg").bounding_box()
        assert box
        assert drawing
        assert drawing["width"] <= box["width"] + 1


def test_figures_follow_the_width(opened: Open, report: Path):
    page = opened(report)
    scroll_through(page)
    page.set_viewport_size({"width": 400, "height": 900})
    until(lambda: (page.locator("#plot-bill svg").bounding_box() or {"width": 999})["width"] < 400)
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_far_figures_wait(opened: Open, tmp_path: Path, runs: list[Path]):
    path = tmp_path / "long.html"
    path.write_text(render.html(pages.long(runs, figures=40)))
    page = opened(path)
    page.wait_for_selector("figure[data-drawn]")
    assert page.locator("figure[data-drawn]").count() < 10


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (400, False), (400, True)])
def test_accessible(opened: Open, report: Path, width: int, dark: bool):
    """axe-core finds nothing serious, also in what opens."""
    from axe_playwright_python.sync_playwright import Axe

    page = opened(report, width=width, dark=dark)
    scroll_through(page)
    page.locator("details").evaluate_all("all => all.forEach(details => { details.open = true; })")
    page.locator("[name=price]").fill("3")
    page.wait_for_selector(".is-recomputed")
    found = Axe().run(page).response["violations"]
    serious = [
        (each["id"], [node["html"][:200] for node in each["nodes"]][:3])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_the_keyboard_reaches_everything(opened: Open, report: Path):
    page = opened(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(FOCUSED))
        assert page.evaluate(f"document.activeElement === document.body || {OUTLINE} !== 'none'")
    assert {"theme", "sort", "table wide"} <= reached


# ------------------------------------------------------------------------------------------ its theme


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def rgb(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgb({red}, {green}, {blue})"


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_follows_the_wish_and_the_button_overrules_it(opened: Open, report: Path, dark: bool):
    first, second = ("dark", "light") if dark else ("light", "dark")
    page = opened(report, dark=dark)
    scroll_through(page)
    assert background(page) == rgb(theme.paper(first))  # charts were made for this paper
    assert page.locator("figure").first.get_attribute("data-drawn") == first
    page.get_by_role("button", name=f"Switch to the {second} theme").click()
    page.wait_for_selector(f"figure[data-drawn={second}]")
    assert background(page) == rgb(theme.paper(second))
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert background(page) == rgb(theme.paper(second))


# ------------------------------------------------------------------------------------------- on paper


def test_folded_figures_are_drawn_when_opened_and_in_print(opened: Open, tmp_path: Path, runs: list[Path]):
    path = tmp_path / "folded.html"
    found = pages.long(runs, figures=2)
    (section,) = found.sections
    path.write_text(
        render.html(
            replace(found, sections=(replace(section, folded=section.blocks[1:], blocks=section.blocks[:1]),))
        )
    )
    page = opened(path)
    page.wait_for_selector("figure[data-drawn]")
    assert page.locator("figure[data-drawn]").count() == 1
    page.evaluate(
        "matchMedia('print').addEventListener('change', ({matches}) => { if (matches) window.printed ="
        " document.querySelectorAll('.fold[open] figure[data-drawn]').length; })"
    )
    page.pdf()
    assert page.evaluate("window.printed") == 1
    assert not page.locator(".fold[open]").count()
    page.get_by_text("1 more figure").click()
    until(lambda: page.locator(".fold figure svg").is_visible())


def test_print_has_all_figures_in_light_and_no_controls(opened: Open, report: Path, tmp_path: Path):
    page = opened(report, dark=True)
    page.evaluate(
        "matchMedia('print').addEventListener('change', ({matches}) => { if (matches) window.printed ="
        " [...document.querySelectorAll('figure')].map(({dataset}) => dataset.drawn); })"
    )
    printed = page.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert page.evaluate("window.printed") == ["light"] * 2
    page.emulate_media(media="print")
    assert background(page) == rgb(theme.paper("light"))
    for control in ("#theme", ".tools", ".terms", ".contents", ".table-tools", "details.rows"):
        assert not page.locator(control).first.is_visible()


def test_prints_the_terms_that_were_entered(opened: Open, report: Path):
    page = opened(report)
    page.locator("[name=price]").fill("7")
    page.emulate_media(media="print")
    assert page.locator(".terms-state").is_visible()


# --------------------------------------------------------------------------------------- hostile names

HOSTILE = (
    "<script>window.hit=1</script>",
    '"><img src=x onerror="window.hit=1">',
    "${window.hit=1}",
    "{{7*7}}",
    "</script><script>window.hit=1</script>",
    "</style><svg onload=window.hit=1>",
    "javascript:window.hit=1",
    "__proto__",
    "a\u2028b\u202ec",
)


def told(page: Page) -> str | None:
    """The first thing said of the point under the mouse; the chart may be drawn anew meanwhile."""
    page.mouse.move(0, 0)
    page.locator("#plot-bill .mark-symbol path").first.hover(force=True)
    tip = page.locator(".tip b")
    return tip.first.text_content() if tip.count() else None


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_only_shown(opened: Open, tmp_path: Path, name: str):
    """As a model's name, and wherever else a user's words may stand."""
    runs = pages.sealed(tmp_path, names=(name, "dense"))
    path = tmp_path / "report.html"
    path.write_text(render.html(pages.page(runs, word=name)))
    page = opened(path)
    scroll_through(page)
    page.locator("details").evaluate_all("all => all.forEach(details => { details.open = true; })")
    page.locator("[name=price]").fill("3")
    until(lambda: told(page) == name)
    assert page.evaluate("window.hit") is None
    assert page.locator("img, body > svg").count() == 0
    assert page.locator("h1").text_content() == f"Three models, {name}"
    assert page.locator("#table-loads tbody td", has_text=name if name.isascii() else "c").count() >= 1


def test_hostile_names_in_a_whole_report(opened: Open, tmp_path: Path):
    """The same through everything that ``profile report`` does."""
    runs = pages.sealed(tmp_path, names=HOSTILE[:6])
    path = tmp_path / "report.html"
    making.write(making.report(runs, Asked()), path)
    page = opened(path)
    scroll_through(page)
    assert page.evaluate("window.hit") is None
    assert page.locator("img").count() == 0


# ---------------------------------------------------------------------------------------------- size


@pytest.mark.timing
def test_200_runs_open_within_three_seconds(opened: Open, tmp_path: Path):
    runs = pages.sealed(tmp_path, names=[f"model-{number:03}" for number in range(200)], loads=(2,))
    path = tmp_path / "report.html"
    assert making.write(making.report(runs, Asked(), processes=2), path) < 6e6
    page = opened(path)
    timing: dict[str, Any] = json.loads(
        page.evaluate("JSON.stringify(performance.getEntriesByType('navigation')[0])")
    )
    assert timing["loadEventEnd"] < 3000
    page.locator("figure").first.scroll_into_view_if_needed()
    page.wait_for_selector("figure[data-drawn]", timeout=3000)
