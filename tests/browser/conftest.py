"""A real Chromium, and pages in it that may neither complain nor ask for anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from profiler.report.html import render
from tests.browser import pages
from tools import install_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).resolve().parent
Open = Callable[..., "Page"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """Ends with this folder's tests: Playwright holds an event loop, which the others need for themselves."""
    from playwright.sync_api import sync_playwright

    found = install_browser.chromium()
    if found is None and install_browser.is_needed():
        pytest.fail("PROFILER_NEEDS_BROWSER=1 and no Chromium here: make browser")
    if found is None:
        pytest.skip("no Chromium here: make browser")
    with sync_playwright() as playwright:
        # Containers have neither the sandbox's namespaces nor much shared memory.
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Open]:
    """``opened(path, width=1280, dark=False)`` → the page, ready.  At the end of the test: the console said
    nothing, nothing threw, nothing was asked of a network, and the policy stopped nothing."""
    said: list[str] = []
    contexts = []

    def open_page(path: Path, width: int = 1280, dark: bool = False, **more: Any) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", **more
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"thrown: {error}"))
        page.on(
            "request",
            lambda request: _is_inside(request.url, path) or said.append(f"asked for {request.url}"),
        )
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for it: Playwright's own ``wait_for_function`` asks again by eval, which the policy forbids."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def _is_inside(url: str, path: Path) -> bool:
    return url.partition("#")[0] == path.as_uri() or url.startswith(("blob:", "data:"))


@pytest.fixture(scope="package")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return pages.sealed(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="package")
def report(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render.html(pages.page(runs)))
    return path
