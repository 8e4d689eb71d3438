"""The stored help pages are the real ones, and answering from them imports nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from profiler.__main__ import HELP, stored_help
from tools import help_pages


def test_stored_pages_are_current():
    stored = {page.name: page.read_text() for page in Path(HELP).glob("*.txt")}
    assert stored == help_pages.pages(), "run `make help-pages`"


def test_only_help_is_answered_from_store():
    assert "Commands:" in (stored_help(["--help"]) or "")
    assert "--scenario" in (stored_help(["run", "--help"]) or "")
    assert "profile claims run [OPTIONS]" in (stored_help(["claims", "run", "--help"]) or "")
    assert "profile claims [OPTIONS]" in (stored_help(["claims", "results", "--help"]) or "")
    assert stored_help(["run"]) is None
    assert stored_help(["../secret", "--help"]) is None
    assert stored_help(["no-such", "--help"]) is None


def test_help_imports_no_library():
    code = (
        "import sys; sys.argv = ['profile', '--help']\n"
        "from profiler.__main__ import main; main()\n"
        "print({'typer', 'msgspec', 'numpy', 'asyncio'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: profile")
    assert done.stderr.strip() == "set()"


def test_every_command_says_in_a_whole_line_what_it_does():
    page = (Path(HELP) / "profile.txt").read_text()
    assert "..." not in page.split("Commands:")[1]
