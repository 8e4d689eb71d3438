"""A few of the moments of ``python -m tests.harden.kill``, and the section it makes of its record."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from profiler import records, store
from tests import make
from tests.harden import kill


@pytest.mark.timing
def test_nothing_is_lost_at_a_few_moments(tmp_path):
    """Of their own process: this one may have threads, and what is forked from it would lack them."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.harden.kill", "4", "--log", str(tmp_path / "log")],
        capture_output=True,
        text=True,
        check=False,
        cwd=kill.ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {each["kind"] for each in found} == {"run", "resume", "sealing"}
    assert any(each["requests"] for each in found)


def test_moments_are_drawn_alike_and_cover_all_kinds():
    assert kill.drawn(20, 0) == kill.drawn(20, 0) != kill.drawn(20, 1)
    kinds = [each.kind for each in kill.drawn(200, 0)]
    assert {kind: kinds.count(kind) for kind in kill.WORDS} == {
        "run": 100,
        "resume": 40,
        "disk": 20,
        "sealing": 40,
    }


def test_what_is_lost_or_looks_whole_and_is_not_is_seen(tmp_path):
    run = make.writer(tmp_path, [make.steady(0, 10.0, 5), make.steady(1, 30.0, 6)])
    before = kill.kept(tmp_path)
    assert before.requests == 11
    assert list(kill._lost("then", before, kill.kept(tmp_path))) == []
    assert list(kill._looks_whole_and_is_not(tmp_path)) == []
    records.write_records(run.records_path(1), make.steady(1, 30.0, 7)[1])
    run.update(checksums=run._summed(store.part(1)))
    (lost,) = kill._lost("then", before, kill.kept(tmp_path))
    assert "window 1 of run are others" in lost
    (gone,) = kill._lost("then", before, kill.Kept({("run", 0): before.windows["run", 0]}, 5))
    assert "lost" in gone
    run.seal()
    (short,) = kill._looks_whole_and_is_not(tmp_path)
    assert "run is complete with the windows" in short


def test_the_section_names_each_failure():
    found = [
        {
            "number": n,
            "kind": kind,
            "ended_before": n == 0,
            "windows": n,
            "requests": 10 * n,
            "failures": ["moment 3 (sealing 0.5): it is lost"] if kind == "sealing" else [],
            "took_s": 2.0,
        }
        for n, kind in enumerate(kill.WORDS)
    ]
    text = "\n".join(kill.lines(kill.record(found, 7)))
    assert text.startswith("## Killed at any moment\n")
    assert "`python -m tests.harden.kill 4 --seed 7`" in text
    assert "| all | 4 | 1 | 3 | 6 | 60 | 1 |" in text
    assert "* ✗ moment 3 (sealing 0.5): it is lost" in text
