"""docs/reliability.md says what its records say, and the records are of the matrix as it is declared."""

from __future__ import annotations

import copy

import pytest

from tests.harden import matrix, page
from tests.harden.nouns import PHASES, Case

RECORDED = page.read(matrix.RECORD.name)


def test_the_page_is_made_of_the_records():
    assert page.PAGE.read_text() == page.text(), "renew it: python -m tests.harden.page"


@pytest.mark.skipif(RECORDED is None, reason="the matrix was never run")
def test_every_declared_row_was_run():
    declared = {
        row.name: {phase: isinstance(row.cases[phase], Case) for phase in PHASES} for row in matrix.rows()
    }
    assert RECORDED is not None
    recorded = {
        row["name"]: {phase: isinstance(row["cells"][phase], dict) for phase in PHASES}
        for row in RECORDED["rows"]
    }
    assert recorded == declared, "run it anew: make harden"


@pytest.mark.skipif(RECORDED is None, reason="the matrix was never run")
def test_no_recorded_cell_failed():
    assert RECORDED is not None
    failed = [
        (row["name"], phase)
        for row in RECORDED["rows"]
        for phase, cell in row["cells"].items()
        if isinstance(cell, dict) and cell["failures"]
    ]
    assert not failed


def test_a_failed_cell_shows():
    said = "error: a | <b>; see `profile list | less`"
    cell = {"skipped": None, "failures": [], "code": 0, "said": said, "kept": "complete, 2 windows"}
    row = {"name": "fault", "group": "wire", "does": "it", "cells": dict.fromkeys(PHASES, cell)}
    record = {
        "command": "make harden",
        "utc": "now",
        "commit": "abc",
        "machine": {"cores": 2, "python": "3.11"},
        "took_s": 1,
        "rows": [row, copy.deepcopy(row)],
    }
    good = "\n".join(page._matrix(record))
    assert "8 cells tried in 1 s, 0 failed" in good
    assert good.count("✓ 0") == 8
    assert r"error: a \| \<b\>; see `profile list \| less`" in good
    record["rows"][1]["cells"] = {
        **dict.fromkeys(PHASES, "nothing to strike"),
        "window": {**cell, "failures": ["bad"]},
    }
    bad = "\n".join(page._matrix(record))
    assert "5 cells tried in 1 s, 1 failed" in bad
    assert bad.count("✗ 0") == 1
    assert "✗ bad" in bad
    assert bad.count("– (1)") == 3
    assert "1. nothing to strike" in bad
