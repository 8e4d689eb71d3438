"""What the doctor says of the load generator itself."""

from __future__ import annotations

import contextlib

import pytest

from profiler import doctor
from profiler.errors import LoadError
from profiler.schema import Calibration


def found(chunks_per_s=1_000.0, **changes):
    values = {
        "chunks_per_s": chunks_per_s,
        "concurrency": 16,
        "requests": 30,
        "chunks": 1_000,
        "ttft_mean_error_frac": 0.001,
        "ttft_p99_error_frac": 0.002,
        "ttft_mean_error_s": 0.0001,
        "itl_mean_error_frac": 0.0,
        "itl_p99_error_frac": 0.03,
        "server_late_p99_s": 1e-5,
        "client_cpu_frac": 0.05,
        "client_cpu_s_per_chunk": 50e-6,
    }
    return Calibration(**values | changes)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, True),
        ({"ttft_mean_error_frac": 0.02, "ttft_mean_error_s": 0.00019}, True),
        ({"ttft_mean_error_frac": -0.009, "ttft_mean_error_s": -0.01}, True),
        ({"ttft_mean_error_frac": -0.02, "ttft_mean_error_s": -0.01}, False),
        ({"itl_p99_error_frac": 0.051}, False),
        ({"itl_p99_error_frac": None}, None),
        ({"ttft_mean_error_frac": None, "ttft_mean_error_s": None}, None),
    ],
)
def test_what_is_exact(changes, verdict):
    assert doctor.exact(found(**changes)) is verdict


def test_the_verdict_ends_at_the_first_rate_that_is_not_exact():
    bad = {"itl_p99_error_frac": 0.2}
    *_, verdict = doctor.client_lines([found(1_000), found(5_000), found(20_000, **bad)])
    assert verdict.endswith("up to 5,000 chunks/s")
    *_, verdict = doctor.client_lines([found(1_000), found(5_000, **bad), found(20_000)])
    assert verdict.endswith("up to 1,000 chunks/s")
    *_, verdict = doctor.client_lines([found(1_000), found(20_000)])
    assert verdict.endswith("up to 20,000 chunks/s, the most tried")
    *_, verdict = doctor.client_lines([found(**bad)])
    assert "not exact" in verdict


def test_a_row_and_what_is_missing():
    _, head, row, _ = doctor.client_lines([found(itl_p99_error_frac=None, client_cpu_s_per_chunk=None)])
    assert row.split() == ["1,000", "16", "+0.10", "%", "+0.20", "%", "n/a", "n/a"]
    assert len(head) == len(row)
    *_, why, verdict = doctor.client_lines([LoadError("the load process died")])
    assert why.strip() == "not measured: the load process died"
    assert verdict.endswith("n/a")


def test_a_load_generator_that_fails_ends_the_trials(monkeypatch):
    def fails_at_5000(_worker, chunks_per_s, *_):
        if chunks_per_s == 5_000:
            raise LoadError("died")
        return found(chunks_per_s)

    monkeypatch.setattr(doctor, "load_process", lambda: contextlib.nullcontext(None))
    monkeypatch.setattr(doctor, "calibrate_worker", fails_at_5000)
    first, failure = doctor.trials()
    assert first.chunks_per_s == 1_000
    assert str(failure) == "died"


@pytest.mark.timing
def test_the_section_is_there(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "TRIALS", ((500, 8),))
    monkeypatch.setattr(doctor, "TRIAL_S", 0.3)
    *_, row, verdict = doctor.text().splitlines()
    assert "exact" in verdict
    assert float(row.split()[0]) == pytest.approx(500, rel=0.15)
    assert capsys.readouterr().err.startswith("measuring the load generator itself")
