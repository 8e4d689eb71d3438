"""The newest samples of the folder that is open: what is there, and nothing that is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.progress.readings import EVERY_NS, MOST_AGE_NS, NOTHING, Follower
from profiler.samples import Sample, encode
from tests.progress.telling import BOARDS, sampled

NOW, S = 50 * 10**9, 10**9


@pytest.fixture
def path(tmp_path):
    return tmp_path / "telemetry.part"


def add(path, *samples):
    with path.open("ab") as file:
        file.write(encode([Sample(*each) for each in samples]))


def test_what_engine_and_boards_do_now(path):
    now = Follower(sampled(path, NOW)).read(NOW)
    assert (now.power_w, now.power_of, now.is_made_up) == (601, "gpu", False)
    assert (now.running, now.waiting, now.kv_used_frac) == (8, 3, 0.34)
    assert now.hottest_c == 61
    assert now.held_back == ("software power cap",)
    assert not now.is_shared
    assert not now.is_lost


def test_no_file_is_nothing_and_so_is_what_is_old(path):
    follower = Follower(sampled(path, NOW))
    assert follower.read(NOW + MOST_AGE_NS + 1) == NOTHING
    path.unlink()
    assert Follower(sampled(path, NOW)._replace(path=path.with_name("none"))).read(NOW) == NOTHING


def test_a_board_that_does_not_tell_leaves_no_power_at_all(path):
    sources = sampled(path, NOW, gpus=(*BOARDS, "GPU-3"))
    assert Follower(sources).read(NOW).power_w is None
    assert Follower(sources._replace(gpus=BOARDS[:1])).read(NOW).power_w == 300.5
    assert Follower(sources._replace(gpus=None)).read(NOW).power_w == 601, "all that are sampled"


def test_what_a_remote_engine_draws_is_not_known_here(path):
    sources = sampled(path, NOW, gpus=(), reads_power=False)
    add(path, *counted(0, 1, 1000))
    assert Follower(sources).read(NOW).power_w is None


def test_made_up_power_says_so(path):
    assert Follower(sampled(path, NOW, is_made_up=True)).read(NOW).is_made_up


def test_trouble_of_a_board(path):
    follower = Follower(sampled(path, NOW))
    add(
        path,
        (NOW, "gpu:GPU-2", "clocks_event_reasons", 0x40 | 0x1),
        (NOW, "gpu:GPU-1", "foreign_processes", 2),
    )
    add(path, (NOW, "gpu:GPU-1", "lost", 1))
    now = follower.read(NOW)
    assert now.held_back == ("software power cap", "hardware thermal slowdown")
    assert now.is_shared
    assert now.is_lost


WRAPS_AT = 65_532_610_987


def counted(*joules, zone="package-0"):
    """A counter read every second, up to now."""
    first = NOW - (len(joules) - 1) * S
    for n, energy_j in enumerate(joules):
        at_ns = first + n * S
        yield (at_ns, f"rapl:{zone}", "energy_uj", round(energy_j * 1e6) % WRAPS_AT)
        yield (at_ns, f"rapl:{zone}", "max_energy_range_uj", WRAPS_AT)


@given(st.floats(0, WRAPS_AT / 1e6), st.floats(0, 1000))
def test_the_power_of_a_cpu_is_counted_also_where_the_counter_wraps(tmp_path_factory, start_j, watts):
    path = tmp_path_factory.mktemp("rapl") / "samples"
    add(path, *counted(*(start_j + n * watts for n in range(5))), *counted(0, 5, 10, zone="dram-0"))
    now = Follower(sampled(path.with_name("other"), NOW, gpus=())._replace(path=path)).read(NOW)
    assert now.power_w == pytest.approx(watts + 5, abs=0.01)
    assert now.power_of == "cpu"


def test_one_reading_of_a_counter_is_no_power(path):
    sources = sampled(path, NOW, gpus=())
    add(path, *counted(5))
    assert Follower(sources).read(NOW).power_w is None


def test_the_file_is_looked_at_twice_a_second(path):
    follower = Follower(sampled(path, NOW))
    follower.read(NOW)
    add(path, (NOW, "engine:tiny-moe", "requests_running", 9))
    assert follower.read(NOW + EVERY_NS // 2).running == 8
    assert follower.read(NOW + EVERY_NS).running == 9


def test_a_line_that_is_no_sample_stops_nothing(path):
    follower = Follower(sampled(path, NOW))
    with path.open("ab") as file:
        file.write(b"\0\0\0\n")
    assert follower.read(NOW).running == 8


@pytest.mark.parametrize("gpus", [(), BOARDS])
def test_counters_of_hours_are_not_kept(path, gpus):
    """Also where the boards' power is what is shown, and the CPU's counters are of no use."""
    follower = Follower(sampled(path, NOW, gpus=gpus))
    for second in range(40):
        add(path, (NOW + second * S, "rapl:package-0", "energy_uj", second))
        follower.read(NOW + second * S)
    assert len(follower._counters["rapl:package-0"]) <= 4
