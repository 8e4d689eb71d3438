"""The record of compatibility, its words, and what is counted."""

from __future__ import annotations

import sys

import pytest

from tests.compat.page import lines
from tools import compat

TRIED = {"passed": 7, "failed": 1, "skipped": 2, "profile_run_rc": 4, "seconds": 9}
HEAD = {"command": "make compat", "utc": "2026-11-23T02:00:00Z", "machine": {"cores": 2, "python": "3.11.7"}}


@pytest.mark.parametrize(
    ("last", "passed", "failed", "skipped"),
    [
        ("3 failed, 71 passed, 2 skipped, 9 deselected in 4.20s", 71, 3, 2),
        ("71 passed in 4.20s", 71, 0, 0),
        ("1 passed, 2 errors in 4.20s", 1, 2, 0),
    ],
)
def test_what_pytest_says_is_counted(last, passed, failed, skipped):
    assert compat.counted(f"...F\n{last}\n") == {"passed": passed, "failed": failed, "skipped": skipped}


@pytest.mark.parametrize("last", ["no tests ran in 0.01s", "", "....                 [100%]"])
def test_where_pytest_counts_nothing_nothing_is_recorded(last):
    with pytest.raises(ValueError, match="counted nothing"):
        compat.counted(last)


def test_a_row_a_version_and_no_section_of_what_was_not_tried():
    text = "\n".join(lines({**HEAD, "pythons": {"3.13": TRIED}}))
    assert text.startswith("## ")
    assert "| 3.13 | 7 | 1 | 2 | 4 |" in text
    assert "transformers, the engine" not in text


def test_interpreters_that_are_absent_are_said_and_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(compat.shutil, "which", lambda name: None)
    assert compat.pythons(tmp_path, ["3.13"], []) == {}
    assert "python3.13: not on this machine" in capsys.readouterr().out


def test_a_failing_test_and_a_deprecation_of_our_own_code_are_seen(tmp_path):
    test = tmp_path / "test_it.py"
    test.write_text("def test_good(): pass\ndef test_bad(): assert False\n")
    found = compat.tested(sys.executable, [str(test)], {})
    assert (found["passed"], found["failed"], found["rc"]) == (1, 1, 1)
    assert found["failures"][0].endswith("test_it.py::test_bad")
