"""``profile view`` in a real browser: filter, pick, compare, and runs that come while one looks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from profiler.view.folder import Folder
from tests.browser.conftest import until
from tests.view.serving import reference, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Visit = Callable[..., "Page"]


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """``visit(address, width=1280, dark=False)`` → the page; nobody complained or asked elsewhere."""
    said: list[str] = []
    contexts = []

    def open_page(address: str, width: int = 1280, dark: bool = False) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        home = urlsplit(address).netloc
        page.on("console", lambda message: said.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"thrown: {error}"))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith(("blob:", "data:"))
                or urlsplit(asked.url).netloc == home
                or said.append(f"asked for {asked.url}")
            ),
        )
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(folder) as found:
        yield found


def state(page: Page) -> str:
    return page.inner_text("#picks-state")


def test_filter_and_pick(visit: Visit, address: str) -> None:
    page = visit(address)
    assert state(page) == "3 of 3 runs shown, 0 picked"
    assert page.locator("button", has_text="Report").is_disabled()
    page.fill("#filter", "MOE vllm")
    assert state(page) == "1 of 3 runs shown, 0 picked"
    page.check("#pick-all")
    assert state(page) == "1 of 3 runs shown, 1 picked"
    page.fill("#filter", "")
    assert state(page) == "3 of 3 runs shown, 1 picked"
    page.fill("#filter", "no such word")
    assert state(page) == "0 of 3 runs shown, 1 picked"


def test_what_is_picked_is_compared_and_reported(visit: Visit, address: str, folder: Path) -> None:
    page = visit(address)
    page.fill("#filter", "dense")
    page.check("#pick-all")
    page.click("button:has-text('Compare')")
    page.wait_for_selector("html[data-ready]")
    wanted = sorted(name for name in Folder(folder).names() if "dense" in name)
    assert sorted(parse_qs(urlsplit(page.url).query)["run"]) == wanted
    assert page.locator("#table-loads tbody tr").count() == 14
    page.fill("input[name=price]", "3.6")
    until(lambda: page.locator("[data-money=usd_per_m_output_tokens]").first.inner_text() != "n/a")
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    page.click("a:has-text('tiny-moe')")
    page.wait_for_selector("html[data-ready]")
    until(lambda: page.locator("figure[data-drawn]").count() > 0)
    page.click("nav.places a:has-text('Claims')")
    page.wait_for_selector("html[data-ready]")
    assert page.locator("li.claim").count() > 0


def test_picks_count_again_after_going_back(visit: Visit, address: str) -> None:
    page = visit(address)
    page.locator("input[name=run]").first.check()
    page.click("button:has-text('Compare')")
    page.wait_for_selector("#table-loads")
    page.go_back()
    until(lambda: state(page) == "3 of 3 runs shown, 1 picked")
    assert page.locator("button", has_text="Report").is_enabled()


def test_a_run_that_is_sealed_appears_and_picks_stay(visit: Visit, tmp_path: Path) -> None:
    first, second, third = Folder(reference(tmp_path / "all")).names()
    results = tmp_path / "results"
    shutil.copytree(tmp_path / "all" / first, results / first)
    with serving(results) as address:
        page = visit(address)
        page.check(f"input[value='{first}']")
        elsewhere = visit(f"{address}report?run={first}")
        shutil.copytree(tmp_path / "all" / second, results / second)
        until(lambda: state(page) == "2 of 2 runs shown, 1 picked", 15)
        until(lambda: elsewhere.locator("#stale").count() == 1, 15)
        shutil.rmtree(results / second)
        shutil.copytree(tmp_path / "all" / third, results / third)
        until(lambda: page.locator(f"input[value='{third}']").count() == 1, 15)
        assert page.locator(f"input[value='{second}']").count() == 0
        page.close()
        elsewhere.close()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, False), (1280, True)])
def test_the_list_is_fit_for_everybody(visit: Visit, address: str, width: int, dark: bool) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = visit(address, width, dark)
    found = Axe().run(page).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
