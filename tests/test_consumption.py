"""Gross, net, host, facility and marginal energy of runs whose power is known, and what refuses them."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import comparison, consumption, metrics, store
from profiler.errors import InputError
from profiler.schema import MADE_UP, Baseline, EngineFacts, Estimate, Gpu, LoadPoint, ProbeStatus
from profiler.settings import Telemetry
from profiler.site import Site
from profiler.windows import WindowView
from tests import make

BOARD, OTHER = "GPU-1", "GPU-2"
ENGINE = EngineFacts(kind="vllm", version="1", device="cuda", gpus=(BOARD,))
HOST = msgspec.structs.replace(make.HOST, gpus=(make.GPU,))
BUSY_W, IDLE_W, PACKAGE_W, DRAM_W = 300.0, 100.0, 80.0, 20.0
TOKENS_PER_S = 25  # of make.steady
WINDOW_S = (60.0, 80.0)
LOADED = Baseline(kind="loaded", engine_start=0, start_ns=40 * make.S, end_ns=50 * make.S)
BARE = Baseline(kind="bare", engine_start=0, start_ns=10 * make.S, end_ns=20 * make.S)
RAPL = {"rapl:package-0": PACKAGE_W, "rapl:package-0/dram": DRAM_W}


def board_rows(uuid=BOARD, busy_w=BUSY_W, idle_w=IDLE_W, gain=1.0, until_s=95):
    """A board that idles and, from 55 s on, works; its counter moves every 0.1 s, and shows ``gain`` times
    the truth."""
    rows, joules = [], 0.0
    for tick in range(until_s * 10):
        t, watts = tick / 10, busy_w if tick >= 550 else idle_w
        rows += [
            (t, f"gpu:{uuid}", "energy_mj", round(gain * joules * 1e3)),
            (t, f"gpu:{uuid}", "energy_seen_within_s", 0.01),
            (t, f"gpu:{uuid}", "power_w", watts),
        ]
        joules += watts / 10
    return rows


def slow_rows(name, value, from_s=0, to_s=95, uuid=BOARD):
    return [(t / 2, f"gpu:{uuid}", name, value) for t in range(from_s * 2, to_s * 2)]


def rapl_rows(zones=None):
    return [
        (float(t), zone, name, value)
        for zone, watts in (RAPL if zones is None else zones).items()
        for t in range(95)
        for name, value in (("energy_uj", watts * 1e6 * t), ("max_energy_range_uj", 6e10))
    ]


def sealed(tmp_path, rows, windows=None, **changes):
    """A run of one window, 20 s at 25 tokens/s, whose samples are ``rows``."""
    held = windows or [make.steady(0, WINDOW_S[0], requests=100)]
    run = make.writer(tmp_path, held, **({"engine": ENGINE, "host": HOST, "baselines": (LOADED,)} | changes))
    run.samples_path.write_bytes(make.sample_lines(rows))
    run.seal()
    return store.load(run.folder)


def row(run, **options):
    (found,) = comparison.rows([run], **options)
    return found


def scenario(**telemetry):
    return msgspec.structs.replace(make.SCENARIO, telemetry=Telemetry(**telemetry))


def test_the_boundaries_are_kept_apart(tmp_path):
    found = row(sealed(tmp_path, [*board_rows(), *rapl_rows()], scenario=scenario(pue=1.25)))
    host = BUSY_W + PACKAGE_W + DRAM_W
    expected = {
        "power_w_mean": BUSY_W,
        "power_idle_w": IDLE_W,
        "energy_j_per_output_token": BUSY_W / TOKENS_PER_S,
        "energy_net_j_per_output_token": (BUSY_W - IDLE_W) / TOKENS_PER_S,
        "energy_host_j_per_output_token": host / TOKENS_PER_S,
        "energy_facility_j_per_output_token": 1.25 * host / TOKENS_PER_S,
        "energy_counter_j": BUSY_W * 20,
        "energy_integral_j": BUSY_W * 20,
        "pue": 1.25,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-3)
    assert found["energy_disagreement_frac"] < 1e-3
    assert (found["energy_boundary"], found["idle_kind"]) == ("gpu", "loaded")
    assert 0 < found["energy_statistical_frac"] < 0.02
    assert found["energy_systematic_frac"] == 0.05
    assert found["energy_trouble"] is None


def test_what_is_missing_is_none_and_says_why(tmp_path):
    found = row(sealed(tmp_path, board_rows(), baselines=()))
    assert found["energy_j_per_output_token"] == pytest.approx(BUSY_W / TOKENS_PER_S, rel=1e-3)
    for name in ("net", "host", "facility"):
        assert found[f"energy_{name}_j_per_output_token"] is None
    assert "net J/token n/a: no idle baseline was held" in found["notes"]
    assert (
        "host J/token, facility J/token n/a: cpu package: no cpu package energy was sampled" in found["notes"]
    )


def test_the_probe_says_in_its_own_words_why_there_is_no_host(tmp_path):
    probes = (
        ProbeStatus(probe="nvml", usable=True, detail="1 GPU"),
        ProbeStatus(probe="rapl", usable=False, detail="the counters are readable by root only"),
    )
    found = row(sealed(tmp_path, board_rows(), probes=probes))
    assert (
        "host J/token, facility J/token n/a: rapl: the counters are readable by root only" in found["notes"]
    )


def test_no_pue_is_no_facility_and_one_given_when_reading_wins(tmp_path):
    run = sealed(tmp_path, [*board_rows(), *rapl_rows()], scenario=scenario(pue=1.5))
    assert row(run, pue="1.1")["energy_facility_j_per_output_token"] == pytest.approx(
        1.1 * 400 / 25, rel=1e-3
    )
    without = row(sealed(tmp_path / "b", [*board_rows(), *rapl_rows()]))
    assert without["energy_facility_j_per_output_token"] is None
    assert f"facility J/token n/a: {consumption.NO_PUE}" in without["notes"]


@pytest.mark.parametrize("pue", ["0.99", "-1", "nan", "inf", "1,2", ""])
def test_a_pue_below_one_is_refused(tmp_path, pue):
    with pytest.raises(InputError, match="--pue"):
        comparison.rows([], pue=pue)


@pytest.mark.parametrize(("kinds", "used"), [(("bare",), "bare"), (("bare", "loaded"), "loaded")])
def test_the_best_idle_baseline_is_taken_and_named(tmp_path, kinds, used):
    held = [each for each in (BARE, LOADED) if each.kind in kinds]
    slower = [(t, s, n, v) for t, s, n, v in board_rows()]
    found = row(sealed(tmp_path, slower, baselines=tuple(held)))
    assert found["idle_kind"] == used


def test_each_engine_start_has_its_own_idle_power(tmp_path):
    """The second start idles at 100 W as well, but its baseline lies where the board draws 300 W."""
    second = msgspec.structs.replace(LOADED, engine_start=1, start_ns=56 * make.S, end_ns=59 * make.S)
    held = [make.steady(n, 60.0 + 17 * n, requests=55, engine_start=n) for n in range(2)]
    run = sealed(tmp_path, board_rows(), held, baselines=(LOADED, second))
    (point,) = metrics.points(run)
    net = point.estimates["energy_net_j_per_output_token"]
    assert net.value == pytest.approx((200 + 0) / 2 / TOKENS_PER_S, rel=0.02)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ([(45.0, "engine:m", "requests_running", 3)], "the engine had 3 requests running"),
        (slow_rows("utilisation_gpu_pct", 30, 40, 50), "GPU-1 was 30 % busy"),
    ],
)
def test_a_baseline_at_work_is_no_idle_one(tmp_path, more, why):
    found = row(sealed(tmp_path, board_rows() + more, baselines=(BARE, LOADED)))
    assert found["idle_kind"] == "bare"
    assert f"idle, loaded: {why}" in found["notes"]
    alone = row(sealed(tmp_path / "alone", board_rows() + more))
    assert (alone["power_idle_w"], alone["idle_kind"], alone[consumption.NET]) == (None, None, None)
    assert f"net J/token n/a: idle, loaded: {why}" in alone["notes"]
    quiet = [(t, s, n, 0.0) for t, s, n, _ in more]
    assert row(sealed(tmp_path / "quiet", board_rows() + quiet))["idle_kind"] == "loaded"


def test_net_of_one_window_is_known_as_well_as_window_and_baseline(tmp_path):
    run = sealed(tmp_path, board_rows())
    (point,) = metrics.points(run)
    net, site = point.estimates[consumption.NET], Site(run)
    view = WindowView(run.manifest.windows[0], run.requests)
    own_j, idle = site.reading(view).statistical_j, site.reading(LOADED)
    half = (own_j**2 + (idle.statistical_j * 20 / 10) ** 2) ** 0.5 / (20 * TOKENS_PER_S)
    assert (net.low, net.high) == pytest.approx((net.value - half, net.value + half), rel=1e-3)
    assert 0 < half < 0.2
    assert net.over == "window"


def test_net_has_no_interval_where_the_baseline_has_none(tmp_path):
    run = sealed(tmp_path, board_rows())
    site = Site(run)
    site.idle = site.idle._replace(power_w={start: Estimate(5.0) for start in site.idle.power_w})
    view = WindowView(run.manifest.windows[0], run.requests)
    net = consumption.of_point(site, [view]).estimates[consumption.NET]
    assert net.value > 0
    assert (net.low, net.high) == (None, None)


def test_net_of_repeats_is_no_surer_than_the_baseline_they_share(tmp_path):
    """Two windows alike to the last token, less one short baseline."""
    short = msgspec.structs.replace(LOADED, end_ns=LOADED.start_ns + make.S)
    held = [make.steady(n, 57.0 + 16 * n, requests=60) for n in range(2)]
    run = sealed(tmp_path, board_rows(), held, baselines=(short,))
    (point,) = metrics.points(run)
    net = point.estimates[consumption.NET]
    shared_j = Site(run).reading(short).statistical_j * 12 / (12 * TOKENS_PER_S)
    assert net.over == "repeats"
    assert net.value - net.low >= shared_j
    assert net.high - net.value >= shared_j


def test_idle_power_has_an_interval_over_engine_starts(tmp_path):
    second = msgspec.structs.replace(LOADED, engine_start=1, start_ns=25 * make.S, end_ns=35 * make.S)
    found = row(sealed(tmp_path, board_rows(), baselines=(LOADED, second)))
    assert found["power_idle_w_low"] <= found["power_idle_w"] <= found["power_idle_w_high"]


def test_heat_refuses_energy_per_token_and_a_power_cap_does_not(tmp_path):
    rows = board_rows()
    capped = row(sealed(tmp_path, rows + slow_rows("clocks_event_reasons", 0x4)))
    assert capped["throttled_power_frac"] == 1
    assert capped["throttled_thermal_frac"] == 0
    assert capped["energy_j_per_output_token"] is not None
    assert capped["energy_trouble"] is None
    assert "clocks were held back by: software power cap" in capped["notes"]

    hot = slow_rows("clocks_event_reasons", 0x24, 70, 75) + slow_rows("clocks_event_reasons", 0, 75)
    found = row(sealed(tmp_path / "hot", rows + hot + slow_rows("clocks_event_reasons", 0, 0, 70)))
    assert found["throttled_thermal_frac"] == pytest.approx(0.25, abs=0.02)
    for name in (consumption.GROSS, consumption.NET, consumption.HOST):
        assert found[name] is None
    assert found["power_w_mean"] == pytest.approx(BUSY_W, rel=1e-3)
    assert "heat held the clocks back for 24% of the window" in found["energy_trouble"]
    assert "heat" in found["notes"]


def test_counter_and_integral_apart_are_both_shown(tmp_path):
    odd = row(sealed(tmp_path, board_rows(gain=1.035)))
    assert odd["energy_disagreement_frac"] == pytest.approx(0.035 / 1.035, rel=0.01)
    assert odd["energy_j_per_output_token"] is not None
    assert "apart" in odd["energy_trouble"]

    broken = row(sealed(tmp_path / "b", board_rows(gain=1.1)))
    assert broken["energy_j_per_output_token"] is None
    assert broken["energy_counter_j"] == pytest.approx(6600, rel=1e-3)
    assert broken["energy_integral_j"] == pytest.approx(6000, rel=1e-3)
    assert "apart" in broken["energy_trouble"]


def test_a_cross_check_of_one_window_only_is_none_of_the_point(tmp_path):
    rows = [each for each in board_rows() if each[2] != "power_w" or each[0] < 75]
    held = [make.steady(n, 57.0 + 16 * n, requests=60) for n in range(2)]
    found = row(sealed(tmp_path, rows, held))
    assert found["energy_counter_j"] == pytest.approx(BUSY_W * 24, rel=1e-3)
    assert found["energy_integral_j"] is None
    assert found["energy_disagreement_frac"] is None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (slow_rows("foreign_processes", 1, 65, 70), r"shared_gpu: others had 1 process\(es\) on GPU-1"),
        (slow_rows("foreign_processes", 2, 41, 45), r"2 process\(es\)"),
        (slow_rows("unexplained_bytes", 2 << 30, 65, 70), r"2.0 GiB of GPU-1 belong to no process"),
        (slow_rows("utilisation_gpu_pct", 40, 10, 20), r"40 % busy before anything"),
    ],
)
def test_other_tenants_are_flagged_and_never_the_best(tmp_path, more, words):
    run = sealed(tmp_path, board_rows() + more, baselines=(BARE, LOADED))
    found = row(run)
    assert found["shared_gpu"] is True
    assert found["energy_j_per_output_token"] is not None
    assert re.search(words, found["energy_trouble"])
    alone = row(sealed(tmp_path / "alone", board_rows(busy_w=400) + slow_rows("foreign_processes", 0)))
    assert alone["shared_gpu"] is False
    assert comparison.best([found, alone], "power_w_mean") != {}
    assert set(comparison.best([found, alone], "power_w_mean").values()) == {1}


def test_small_unexplained_memory_and_nobody_asked_is_not_shared(tmp_path):
    """Little memory that nobody explains proves no sharing, and not that there is none either."""
    found = row(sealed(tmp_path, board_rows() + slow_rows("unexplained_bytes", 400 << 20)))
    assert found["shared_gpu"] is None
    assert row(sealed(tmp_path / "b", board_rows()))["shared_gpu"] is None
    told = board_rows() + slow_rows("unexplained_bytes", 400 << 20) + slow_rows("foreign_processes", 0)
    assert row(sealed(tmp_path / "c", told))["shared_gpu"] is False


def test_a_mig_board_keeps_its_own_energy_and_gives_no_slice_any(tmp_path):
    found = row(sealed(tmp_path, [*board_rows(), (1.0, f"gpu:{BOARD}", "mig_enabled", 1)]))
    assert found["shared_gpu"] is True
    assert found["power_w_mean"] == pytest.approx(BUSY_W, rel=1e-3)
    assert found["energy_j_per_output_token"] is None
    assert "MIG" in found["notes"]


def test_only_the_engines_boards_count(tmp_path):
    """All that are visible are sampled, since the sampler is there before the engine."""
    rows = [*board_rows(), *board_rows(OTHER, busy_w=999.0)]
    assert row(sealed(tmp_path, rows))["power_w_mean"] == pytest.approx(BUSY_W, rel=1e-3)
    unknown = EngineFacts(kind="simulated", version="1", device="none")
    found = row(sealed(tmp_path / "b", rows, engine=unknown))
    assert found["power_w_mean"] == pytest.approx(BUSY_W + 999, rel=1e-3)


def test_an_engine_on_the_cpu_is_not_charged_for_idle_boards_but_its_host_is(tmp_path):
    engine = EngineFacts(kind="transformers", version="1", device="cpu")
    found = row(sealed(tmp_path, [*board_rows(), *rapl_rows()], engine=engine))
    assert found["energy_boundary"] == "cpu package + dram"
    assert found["power_w_mean"] == pytest.approx(100, rel=1e-3)
    assert found["energy_host_j_per_output_token"] == pytest.approx(400 / 25, rel=1e-3)
    assert found["shared_gpu"] is None


TWO_BOARDS = msgspec.structs.replace(
    make.HOST, gpus=(make.GPU, msgspec.structs.replace(make.GPU, uuid=OTHER))
)


def test_the_host_is_all_boards_of_the_machine_and_nothing_else_is(tmp_path):
    rows = [*board_rows(), *board_rows(OTHER, busy_w=70.0, idle_w=70.0), *rapl_rows()]
    rows += slow_rows("memory_used_bytes", 5 << 30) + slow_rows("memory_used_bytes", 7 << 30, uuid=OTHER)
    found = row(sealed(tmp_path, rows, host=TWO_BOARDS))
    assert found["energy_host_j_per_output_token"] == pytest.approx((400 + 70) / 25, rel=1e-3)
    assert found["energy_j_per_output_token"] == pytest.approx(BUSY_W / 25, rel=1e-3)
    assert found["memory_peak_bytes"] == 5 << 30


def test_a_board_that_was_not_read_leaves_no_host(tmp_path):
    found = row(sealed(tmp_path, [*board_rows(), *rapl_rows()], host=TWO_BOARDS))
    assert found["energy_j_per_output_token"] is not None
    assert found["energy_host_j_per_output_token"] is None
    assert "1 of 2 GPUs was not read" in found["notes"]
    engine = EngineFacts(kind="transformers", version="1", device="cpu")
    found = row(sealed(tmp_path / "cpu", rapl_rows(), host=TWO_BOARDS, engine=engine))
    assert found["energy_host_j_per_output_token"] is None
    assert "2 of 2 GPUs were not read" in found["notes"]


def test_a_cpu_without_a_memory_counter_says_so(tmp_path):
    found = row(sealed(tmp_path, [*board_rows(), *rapl_rows({"rapl:package-0": PACKAGE_W})]))
    assert found["energy_host_j_per_output_token"] == pytest.approx(380 / 25, rel=1e-3)
    assert "without DRAM" in found["notes"]


def test_a_short_window_has_power_and_no_energy_per_token(tmp_path):
    found = row(sealed(tmp_path, board_rows(), [make.steady(0, 60.0, requests=40)]))
    assert found["power_w_mean"] == pytest.approx(BUSY_W, rel=1e-3)
    assert found["energy_j_per_output_token"] is None
    assert found["energy_net_j_per_output_token"] is None
    assert "energy per token needs 10 s" in found["notes"]


def test_simulated_boards_are_named_as_such(tmp_path):
    made_up = Gpu(uuid=BOARD, name="H100 (simulated)", memory_bytes=None)
    host = msgspec.structs.replace(HOST, gpus=(made_up,))
    assert "made up" in row(sealed(tmp_path, board_rows(), host=host))["notes"]


def test_a_made_up_powercap_tree_is_named_as_such(tmp_path):
    probes = (ProbeStatus(probe="rapl", usable=True, detail=f"{MADE_UP}, under /tmp/x: package-0"),)
    found = row(sealed(tmp_path, [*board_rows(), *rapl_rows()], probes=probes))
    assert "host and facility J/token are made up" in found["notes"]
    engine = EngineFacts(kind="transformers", version="1", device="cpu")
    run = sealed(tmp_path / "cpu", rapl_rows(), probes=probes, engine=engine, host=make.HOST)
    assert "power and energy are made up" in row(run)["notes"]


def test_remarks_are_notes_and_no_trouble(tmp_path, monkeypatch):
    run = sealed(tmp_path, board_rows())
    read = consumption.energy.gpu_energy
    said = lambda *given: msgspec.structs.replace(read(*given), remarks=("nothing bad",))  # noqa: E731
    monkeypatch.setattr(consumption.energy, "gpu_energy", said)
    found = row(run)
    assert "nothing bad" in found["notes"]
    assert found["energy_trouble"] is None


@pytest.mark.parametrize(("to_c", "said"), [(61, False), (64, True)])
def test_a_board_that_still_warms_up_is_noted(tmp_path, to_c, said):
    """Whole degrees: one of flicker in half of the readings is steady, four of rise are not."""
    rise = [(60 + k / 2, f"gpu:{BOARD}", "temperature_c", 60 + k * (to_c - 60) // 40) for k in range(41)]
    notes = row(sealed(tmp_path, board_rows() + rise))["notes"]
    assert ("a board was not steadily warm: +3" in notes) is said


def test_state_of_the_boards(tmp_path):
    rows = slow_rows("temperature_c", 40, 0, 70) + slow_rows("temperature_c", 60, 70)
    rows += slow_rows("sm_clock_mhz", 345, 0, 60) + slow_rows("sm_clock_mhz", 1980, 60)
    found = row(sealed(tmp_path, board_rows() + rows))
    assert found["temperature_c_mean"] == pytest.approx(50, abs=0.6)
    assert found["sm_clock_mhz_median"] == 1980
    assert found["throttled_thermal_frac"] is None


# ------------------------------------------------------------------------------------- marginal


@given(
    base=st.floats(50, 500),
    slope=st.floats(0.01, 50),
    rates=st.lists(st.floats(1, 1e4), min_size=3, max_size=8, unique_by=lambda x: round(x, 1)),
)
def test_the_marginal_energy_of_a_straight_line_is_its_slope(base, slope, rates):
    points = [(Estimate(rate), Estimate(base + slope * rate)) for rate in rates]
    found = consumption.marginal(points)
    assert found.value == pytest.approx(slope, rel=1e-6, abs=1e-6)
    assert found.low <= found.value <= found.high
    assert found.n == len(rates)


def test_no_slope_without_two_loads():
    one = (Estimate(10.0), Estimate(100.0))
    assert consumption.marginal([one]) is None
    assert consumption.marginal([one, one]) is None
    assert consumption.marginal([one, (None, Estimate(1.0)), (Estimate(20.0), None)]) is None
    two = consumption.marginal([one, (Estimate(20.0), Estimate(150.0))])
    assert (two.value, two.low, two.high) == (pytest.approx(5), None, None)


def test_a_bent_line_has_a_wide_interval():
    bent = [(Estimate(x), Estimate(y)) for x, y in ((1.0, 100.0), (2.0, 300.0), (3.0, 310.0))]
    found = consumption.marginal(bent)
    assert found.value == pytest.approx(105)
    assert found.low < 0 < found.high


def test_the_slope_is_that_of_the_runs_loads(tmp_path):
    eight = LoadPoint(mode="closed", concurrency=8)
    busier, records = make.steady(1, 60.0 + 14, requests=60, point=eight)
    half, halved = make.steady(0, 60.0, requests=60)
    rows = board_rows(busy_w=300)
    rows = [(t, s, n, v) for t, s, n, v in rows if n != "power_w"]
    run = sealed(tmp_path, rows, [(half, halved[::2]), (busier, records)])
    first, second = comparison.rows([run])
    assert first["energy_marginal_j_per_output_token"] == pytest.approx(0, abs=0.3)
    assert second["energy_marginal_j_per_output_token"] == first["energy_marginal_j_per_output_token"]
