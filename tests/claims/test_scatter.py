from __future__ import annotations

import math

import msgspec

from profiler import store
from profiler.schema import EngineFacts, Model
from tests import make
from tests.claims.test_evidence import both as one_window_a_start
from tests.claims.test_evidence import claim, held, only
from tests.claims.test_evidence import sealed as starts


def sealed(out, name, model, speeds, starts_s=(20.0,)):
    """A run of one engine start whose windows ran at these speeds."""
    windows = [held(n, speed) for n, speed in enumerate(speeds)]
    windows = [(msgspec.structs.replace(window, repeat=n), each) for n, (window, each) in enumerate(windows)]
    facts = {
        "model": Model(name=model, weights="local", facts=make.FACTS),
        "engine": EngineFacts(kind="transformers", version="5", device="cpu", routing="model"),
        "scenario": msgspec.structs.replace(
            make.SCENARIO, measure=msgspec.structs.replace(make.SCENARIO.measure, repeats=len(speeds))
        ),
        "exclusive": True,
    }
    writer = make.writer(out, windows, run_id=name, starts_s=starts_s, **facts)
    writer.seal()
    return store.load(writer.folder)


def told(tmp_path, starts, windows, **changes):
    """The notes on scatter of a claim whose sides' starts and windows deviate by these factors."""
    runs = [
        sealed(tmp_path, f"{model}-{n}", model, [speed * own * each for each in windows], **changes)
        for model, speed in (("sparse", 2.0), ("thick", 1.0))
        for n, own in enumerate(starts)
    ]
    [cell, _] = only(claim(), runs).evidence
    return [note for note in cell.notes if "scatter" in note]


def test_starts_that_scatter_are_worth_the_next_minute(tmp_path):
    notes = told(tmp_path, (1.0, 1.1, 0.9), (1.0, 1.01, 0.99))
    assert [note.split(":")[0] for note in notes] == ["sparse", "thick"]
    # ln 1.1 and ln 0.9 around 0: sd 0.1; windows: ln 1.01 and ln 0.99: 0.01.  Windows take 10 and 6 s.
    assert notes[0].startswith(
        "sparse: starts scatter by 10.0%, windows of one by 1.0%; at 20 s a start and "
    )
    assert notes[0].endswith("a window, a further start tells most for the time")


def test_windows_that_scatter_are_worth_more_of_them(tmp_path):
    notes = told(tmp_path, (1.0, 1.02, 0.98), (1.0, 1.1, 0.9), starts_s=(600.0,))
    assert notes[1].startswith("thick: starts scatter by 0.0%, windows of one by 10")
    assert notes[1].endswith("more windows a start tell most for the time")


def test_so_many_windows_a_start(tmp_path):
    notes = told(tmp_path, (1.0, 1.1, 0.9), (1.0, 1.1, 0.9), starts_s=(1000.0,))
    start, window = math.sqrt(0.1003**2 - 0.1003**2 / 3), 0.1003
    best = math.ceil(math.sqrt(1000 / 10 * window**2 / start**2))
    assert notes[1].endswith(f"{best} windows a start tell most for the time")


def test_one_window_a_start_tells_nothing_of_windows(tmp_path):
    [cell, _] = only(claim(), one_window_a_start(tmp_path, each=3)).evidence
    assert not [note for note in cell.notes if "scatter" in note]


def test_unknown_times_of_starts_give_no_advice(tmp_path):
    assert told(tmp_path, (1.0, 1.1), (1.0, 1.01), starts_s=()) == []


def test_one_start_tells_nothing_of_starts(tmp_path):
    assert told(tmp_path, (1.0,), (1.0, 1.01)) == []


def of_three_runs(tmp_path, spread):
    """Two starts a run, 1 % apart; runs ``spread`` apart."""
    runs = [
        starts(tmp_path, f"{model}-{n}", model, starts=2, speed=speed * (1 + spread * n))
        for model, speed in (("sparse", 2.0), ("thick", 1.0))
        for n in range(3)
    ]
    [cell, _] = only(claim(), runs).evidence
    return [note for note in cell.notes if "runs scatter" in note]


def test_starts_of_one_run_that_are_alike_tell_less(tmp_path):
    note, _ = of_three_runs(tmp_path, 0.1)
    assert note.startswith("sparse: runs scatter by 9.")
    assert note.endswith("starts of one run by 0.7%: starts in runs of their own tell more")


def test_runs_that_scatter_no_more_than_starts_are_no_matter(tmp_path):
    assert of_three_runs(tmp_path, 0.002) == []
