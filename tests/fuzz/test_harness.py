"""The fuzzing itself: what it changes, what it notes, what it says of it."""

from __future__ import annotations

import json
import random
import tomllib

import msgspec
import pytest

from tests.fuzz import campaign, page
from tests.fuzz.campaign import Standing
from tests.fuzz.keep import chosen
from tests.fuzz.mutate import FORMS, toml
from tests.fuzz.nouns import CORPUS, FOUND, Target
from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import State, Watched

LOG = """INFO: seed corpus: files: 3
#4\tINITED cov: 10 ft: 11 corp: 3/30b exec/s: 0 rss: 50Mb
#900\tDONE   cov: 66 ft: 205 corp: 38/3155b lim: 8192 exec/s: 4593 rss: 60Mb
stat::number_of_executed_units: 900
stat::peak_rss_mb:              60
"""


def broken(data: bytes) -> None:
    if b"x" in data:
        raise KeyError("x")


def test_a_fault_is_noted_its_shortest_input_kept_and_the_fuzzing_goes_on(tmp_path):
    watched = Watched(Target("t", broken, lambda: iter([])), tmp_path / "state", tmp_path / "found")
    for data in (b"fine", b"a long x one", b"x", b"xx"):
        watched(data)
    state = msgspec.json.decode((tmp_path / "state").read_bytes(), type=State)
    (signature,) = state.faults
    assert signature == "KeyError in fuzz/test_harness.py:broken"
    assert [path.read_bytes() for path in (tmp_path / "found").iterdir()] == [b"x"]
    assert state.slowest_s > 0


def test_executions_are_what_the_fuzzer_counted(tmp_path):
    standing = Standing(runs=[])
    (tmp_path / "state").write_bytes(
        msgspec.json.encode(State(faults={"KeyError in a.py:f": 3}, slowest_s=0.25))
    )
    campaign._note(standing, LOG, tmp_path / "state", "2026-01-01T00:00:00+00:00", 2.0, ["timeout 12ab"])
    (run,) = standing.runs
    assert (run.executions, run.peak_rss_mb, run.slowest_s, run.faults) == (900, 60, 0.25, 2)
    assert (standing.edges, standing.features, standing.corpus) == (66, 205, 38)
    assert standing.faults == ["KeyError in a.py:f", "timeout 12ab"]
    record = {"command": "make fuzz", "utc": "2026-01-01", "machine": {"python": "3.11", "atheris": "3"}}
    record |= {"limits": {"call_s": 20, "memory_mb": 1536}, "targets": {"t": msgspec.to_builtins(standing)}}
    words = "\n".join(page.lines(record))
    assert "900 executions" in words
    assert "| t | 900 | 450 | 66 | 205 | 38 | 2 | 250 ms | 60 MB |" in words
    assert "faults in t" in words
    assert "1 state of the code" in words


@pytest.mark.parametrize("seed", range(30))
def test_changed_trees_still_parse(seed):
    text = next(iter(TARGETS["sweep"].seeds()))
    assert tomllib.loads(toml(tomllib.loads(text.decode()))) == tomllib.loads(text.decode())
    luck, body = random.Random(seed), text
    for _ in range(3):
        body = FORMS["toml"](body, luck, ("model", "set")) or body
        tomllib.loads(body.decode())
    config = next(iter(TARGETS["config"].seeds()))
    json.loads(FORMS["json"](config, luck, ("model_type",)) or b"0")


def test_of_a_grown_corpus_what_runs_most_lines_is_kept():
    target = TARGETS["terms"]
    seed, other = next(iter(target.seeds())), b"owned = 5"
    assert chosen(target, [seed, other, b"owned = 57", b"price = 'x"]) == [other]


def test_what_is_kept_is_small_and_belongs_to_a_target():
    files = [path for folder in (CORPUS, FOUND) for path in folder.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} <= TARGETS.keys()
    assert len(files) <= 400
    assert sum(path.stat().st_size for path in files) <= 1.5e6
