"""A whole run on simulated boards and a simulated powercap tree: every boundary against its true energy."""

from __future__ import annotations

import json

import pytest

import profiler
from profiler import baselines, comparison, measure, store, warming
from profiler.figures import NOTE_SEPARATOR
from profiler.nvml.curves import Following
from profiler.nvml.load import LOAD_VARIABLE, Load
from profiler.nvml.wanted import kinds
from tests.powercap import RANGE_UJ, drawing, zone

PACKAGE_W, DRAM_W, PUE = 90.0, 15.0, 1.25
WINDOW_S, CONCURRENCY = 10.0, 4
# A counter that moves every 10 ms (the tree here) read once a second: what its ends may be off by.
RAPL_FRAC = 0.01


@pytest.fixture(autouse=True)
def _client_is_known(monkeypatch):
    """Weighing the load generator is another test's affair."""
    monkeypatch.setattr(measure, "_calibrate", lambda *_: None)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Two packages with memory, psys over all of them; one counter wraps within the run."""
    root = tmp_path / "powercap"
    zones = {}
    for socket in (0, 1):
        zones[zone(root, f"intel-rapl:{socket}", f"package-{socket}")] = PACKAGE_W
        zones[zone(root, f"intel-rapl:{socket}:0", "dram")] = DRAM_W
    zones[zone(root, "intel-rapl:2", "psys")] = 400.0
    monkeypatch.setenv("PROFILER_POWERCAP", str(root))
    with drawing(zones, offset_uj=RANGE_UJ - round(10 * PACKAGE_W * 1e6)):
        yield root


def measured(tmp_path, monkeypatch, board, *more, **options):
    """The run, its row, and the true energy (J) of the board over any span of it."""
    load_file = tmp_path / "load"
    monkeypatch.setenv("PROFILER_SIMULATED_NVML", board)
    monkeypatch.setenv(LOAD_VARIABLE, str(load_file))
    monkeypatch.setattr(baselines, "SETTLE_S", 0.2)
    (run,) = profiler.run(
        "sim",
        "smoke",
        [
            f"load.concurrency={CONCURRENCY}",
            f"measure.window_s={WINDOW_S}",
            "measure.repeats=1",
            "engine.args.ttft_s=0.02",
            "telemetry.idle_s=1",
            f"telemetry.pue={PUE}",
            *more,
        ],
        engine="simulated",
        out=tmp_path / "results",
        **options,
    )
    load = Load(load_file)
    load.refresh()
    kind = kinds()[board.partition(":")[0].partition("?")[0]]
    curve = Following(load, kind.idle_w, kind.context_w, kind.loaded_w)

    def truth_j(t0_ns, t1_ns):
        return curve.energy_j(t1_ns / 1e9) - curve.energy_j(t0_ns / 1e9)

    (row,) = comparison.rows([run])
    return run, row, truth_j


@pytest.mark.timing
def test_every_boundary_is_its_true_energy(tmp_path, monkeypatch, tree):
    run, row, truth_j = measured(tmp_path, monkeypatch, "h100")
    check_truth(run, row, truth_j, kinds()["h100"])
    assert row["shared_gpu"] is False
    assert row["energy_trouble"] is None or "apart" in row["energy_trouble"]
    kept = json.loads((run.folder / "summary.json").read_text())
    assert kept == json.loads(json.dumps(comparison.rows(store.find([run.folder]))))


@pytest.mark.timing
def test_one_of_two_boards_shared_and_not_yet_warm(tmp_path, monkeypatch, tree):
    """The figures are true of the board that was chosen, and what speaks against them is said."""
    monkeypatch.setattr(warming, "SPAN_S", 1.5)
    monkeypatch.setattr(warming, "EDGE_S", 0.5)
    monkeypatch.setattr(warming, "STEADY_C", 0.0)
    run, row, truth_j = measured(
        tmp_path, monkeypatch, "a100:2?foreign=1", "telemetry.warm_max_s=2", devices="1"
    )
    check_truth(run, row, truth_j, kinds()["a100"], boards=2)
    read = {s for s in run.samples["source"].unique().to_pylist() if s.startswith("gpu:")}
    assert len(read) == 2, "the host's energy is that of all boards"
    assert read > {f"gpu:{uuid}" for uuid in run.manifest.engine.gpus}
    assert row["shared_gpu"] is True
    assert "shared_gpu: others had" in row["energy_trouble"]
    assert "engine start 1: 2 s of load before measuring" in row["notes"]
    assert "not steady" in row["notes"]
    assert run.requests["window"].unique().to_pylist() == [0], "the warming is no window"


def check_truth(run, row, truth_j, kind, boards=1):
    """Each figure of ``row`` against what the boards (all alike, one of them the engine's) and the packages
    really drew."""
    (window,) = run.manifest.windows
    span = window.steady_start_ns, window.steady_end_ns
    duration_s = (span[1] - span[0]) / 1e9
    tokens = row["output_tokens_per_s"] * duration_s

    true_j = truth_j(*span)
    within = row["energy_statistical_frac"] * true_j
    assert row["energy_counter_j"] == pytest.approx(true_j, abs=1.2 * within)
    assert within < 0.05 * true_j
    assert row["energy_integral_j"] == pytest.approx(true_j, rel=0.04)
    assert row["energy_disagreement_frac"] == pytest.approx(
        abs(row["energy_counter_j"] - row["energy_integral_j"]) / row["energy_counter_j"]
    )

    gross = row["energy_j_per_output_token"]
    assert gross == pytest.approx(row["energy_counter_j"] / tokens, rel=1e-6)
    bare, context, loaded = run.manifest.baselines
    idle_w = truth_j(loaded.start_ns, loaded.end_ns) / ((loaded.end_ns - loaded.start_ns) / 1e9)
    assert (row["idle_kind"], row["power_idle_w"]) == ("loaded", pytest.approx(idle_w, rel=0.02))
    assert row["energy_net_j_per_output_token"] == pytest.approx(
        gross - row["power_idle_w"] * duration_s / tokens, rel=1e-6
    )
    for held, watts in ((bare, kind.idle_w), (context, kind.context_w)):
        assert truth_j(held.start_ns, held.end_ns) / (held.end_ns - held.start_ns) * 1e9 == pytest.approx(
            watts, rel=1e-3
        )

    cpu = 2 * (PACKAGE_W + DRAM_W) * duration_s / tokens
    host = row["energy_host_j_per_output_token"]
    others = (boards - 1) * true_j / tokens
    off = RAPL_FRAC * cpu + (boards - 1) * 1.2 * within / tokens
    assert host - gross - others == pytest.approx(cpu, abs=off)
    assert row["energy_facility_j_per_output_token"] == pytest.approx(PUE * host)
    assert "its power and energy are made up" in row["notes"]
    assert "host and facility J/token are made up" in row["notes"]
    half = (row["energy_net_j_per_output_token_high"] - row["energy_net_j_per_output_token_low"]) / 2
    assert within / tokens < half < 0.2 * gross


def test_without_a_source_of_energy_nothing_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PROFILER_SIMULATED_NVML", "h100?driver=absent")
    monkeypatch.setenv("PROFILER_POWERCAP", str(tmp_path / "none"))
    monkeypatch.setattr(baselines, "_wait", lambda *_: pytest.fail("waited"))
    quick = ("load.concurrency=1", "measure.window_s=0.5", "measure.repeats=1", "telemetry.idle_s=10")
    (run,) = profiler.run("sim", "smoke", quick, engine="simulated", out=tmp_path / "results")
    assert run.manifest.baselines == ()
    (row,) = comparison.rows([run])
    (note,) = [each for each in row["notes"].split(NOTE_SEPARATOR) if "energy" in each]
    assert note.startswith("no power or energy: nvml: ")
    assert "rapl: no package energy counter" in note
