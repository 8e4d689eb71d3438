"""SECURITY.md: every promise names a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
HOLDS = TEXT.partition("## What holds")[2].partition("## What does not hold")[0]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))


def test_there_are_promises_and_what_is_none():
    assert len(NAMED) >= 15
    for heading in ("What is at stake", "Who is trusted with what", "What does not hold", "Reporting"):
        assert f"\n## {heading}\n" in TEXT


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_the_test_that_is_named_is_there(file, test):
    tree = ast.parse((ROOT / file).read_text())
    tests = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    assert tests
    assert test in ("", *tests)


def test_every_promise_names_its_test():
    promises = re.split(r"\n\n(?=\*\*)", HOLDS)[1:]
    assert len(promises) >= 7
    assert [each for each in promises if "`tests/" not in each] == []
    items = [line for line in HOLDS.splitlines() if line.startswith("- ")]
    assert [each for each in items if "`tests/" not in each] == []


def test_every_test_of_security_backs_a_promise():
    named = {file for file, _ in NAMED}
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "tests" / "security").glob("test_*.py")}
    assert files - named == {"tests/security/test_promises.py"}
