"""Run folders that earlier commits of this program wrote (``runs/README.md``) are read as they were meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import profiler
from profiler import prepare, store
from profiler.cli import app
from profiler.errors import DamagedError, InputError

RUNS = Path(__file__).parent / "runs"
SEALED = sorted(path for each in RUNS.glob("*[!d]") if each.is_dir() for path in each.iterdir())
# What each run's own commit printed: tokens/s and the median time to first token in ms.
FIGURES = {
    "2026-11-21T2257-7b89f8a": (41.5, 104),
    "2026-11-22T0655-a975682": (39.5, 105),
    "2026-11-22T1540-08ace80": (39.5, 102),
    "2026-11-23T0033-bebbf0a": (39.5, 103),
}


def copied(folder: Path, to: Path) -> Path:
    """The one run folder in ``folder``, copied: an index or a repair must not touch what is kept."""
    (run,) = folder.iterdir()
    return Path(shutil.copytree(run, to / folder.name / run.name))


def resume(folder: Path):
    words = ["resume", str(folder), "--quiet"]
    return CliRunner().invoke(app, words, standalone_mode=False, catch_exceptions=False)


def test_every_era_has_its_figures():
    assert {run.parent.name for run in SEALED} == set(FIGURES)


@pytest.mark.parametrize("era", FIGURES)
def test_a_sealed_run_of_an_earlier_day_gives_the_figures_it_gave_then(era, tmp_path):
    folder = copied(RUNS / era, tmp_path)
    run = store.load(folder)
    assert run.is_sealed
    assert run.manifest.schema_version == 1
    assert store.faults(folder) == []
    tokens_per_s, ttft_ms = FIGURES[era]
    (row,) = profiler.compare([folder]).to_dict("records")
    assert row["output_tokens_per_s"] == pytest.approx(tokens_per_s, abs=0.05)
    assert row["ttft_s_p50"] == pytest.approx(ttft_ms / 1e3, abs=0.0005)
    assert row["requests_failed"] == 0


def test_runs_of_all_eras_share_one_table_and_one_page(tmp_path):
    folders = [copied(RUNS / era, tmp_path) for era in FIGURES]
    assert len(profiler.compare(folders)) == len(FIGURES)
    page = tmp_path / "report.html"
    profiler.write_report([folders[0], folders[-1]], page)
    assert page.stat().st_size > 100_000


def test_an_interrupted_run_of_the_last_v1_is_completed_and_keeps_its_window(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "differences", lambda *_: [])  # as on the machine that began it
    folder = copied(RUNS / "2026-11-23T0033-bebbf0a-interrupted", tmp_path)
    before = store.load(folder)
    assert not before.is_sealed
    kept = before.requests["sent_ns"].to_pylist()
    assert len(kept) == 7
    assert resume(folder).exit_code == 0
    after = store.load(folder)
    assert after.is_sealed
    assert after.manifest.schema_version == 2
    assert after.requests["sent_ns"].to_pylist()[: len(kept)] == kept
    assert len(after.manifest.windows) == 2


def test_an_interrupted_run_whose_scenario_meant_something_else_is_refused_untouched(tmp_path):
    folder = copied(RUNS / "2026-11-21T2257-7b89f8a-interrupted", tmp_path)
    journal = (folder / "journal.json").read_bytes()
    with pytest.raises(InputError, match="its plan is not what it was when this run began"):
        resume(folder)
    assert (folder / "journal.json").read_bytes() == journal
    assert len(store.load(folder).requests) >= 1, "what was measured is still there to read"


def test_what_was_counted_fits_in_64_bits_and_what_was_chosen_need_not(tmp_path):
    folder = copied(RUNS / "2026-11-23T0033-bebbf0a", tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model"]["config"] = {"model_max_length": 10**30}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert store.load(folder).is_sealed
    manifest["windows"][0]["point"]["concurrency"] = 10**30
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedError, match="a number that nothing counts to"):
        store.load(folder)


def test_a_run_of_a_future_day_says_that_it_is_one(tmp_path):
    folder = copied(RUNS / "2026-11-23T0033-bebbf0a", tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    with pytest.raises(InputError, match=r"99.*update"):
        store.load(folder)
