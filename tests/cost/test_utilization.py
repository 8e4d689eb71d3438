from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.cost import utilization
from profiler.errors import InputError

DAY = (*[1.0] * 6, *[2.0] * 6, *[4.0] * 6, *[1.0] * 6)  # mean 2, peak 4


@pytest.mark.parametrize(
    ("given_", "share"), [("0.4", 0.4), (0.4, 0.4), ("40%", 0.4), ("40 %", 0.4), ("1", 1.0), ("100%", 1.0)]
)
def test_a_number_or_a_percentage(given_, share):
    assert utilization.read(given_, "--utilization", Path()) == (pytest.approx(share), ())


@pytest.mark.parametrize("given_", ["0", "-0.1", "1.2", "101%", "nan", "inf", "-5%"])
def test_outside_the_paid_time(given_):
    with pytest.raises(InputError, match=r"^--utilization .*: expected a share of the paid time in \(0, 1\]"):
        utilization.read(given_, "--utilization", Path())


def text(rows):
    return "".join(f"{row}\n" for row in rows)


@pytest.mark.parametrize(
    "content",
    [
        text(DAY),
        text(["requests", *DAY]),
        text(["hour,weight", *(f"{hour},{weight}" for hour, weight in enumerate(DAY))]),
        text(f"{hour},{DAY[hour]}" for hour in reversed(range(24))),
        "\ufeff" + text(DAY) + "\n\n",
    ],
)
def test_a_day_in_a_file(tmp_path, content):
    path = tmp_path / "day.csv"
    path.write_text(content)
    assert utilization.read("day.csv", "--utilization", tmp_path) == (0.5, DAY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found 0"),
        (text(DAY[1:]), "24 hourly weights, found 23"),
        (text([0] * 24), "all 24 weights are 0"),
        (text([*DAY[1:], -1]), "hour 23: a weight is a number ≥ 0, got -1"),
        (text([*DAY[1:], "nan"]), "hour 23: a weight"),
        (text([*DAY[1:], "many"]), "row 24: expected hour,weight or one weight, got 'many'"),
        (text([*DAY[1:], "1,2"]), "row 24: expected"),
        (text(f"{hour},1" for hour in range(1, 25)), "each hour of 0 to 23 once, got '24'"),
        (text(f"{hour // 2},1" for hour in range(24)), "each hour of 0 to 23 once, got '0'"),
        (text(f"{hour},1" for hour in range(23)), "found 23"),
    ],
)
def test_what_is_no_day(tmp_path, content, message):
    path = tmp_path / "day.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        utilization.read(str(path), "--utilization", Path())
    assert "day.csv" in str(caught.value)
    assert message in str(caught.value)


def test_no_text_at_all(tmp_path):
    (tmp_path / "day.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"day\.csv: not a CSV"):
        utilization.read("day.csv", "--utilization", tmp_path)


@given(st.lists(st.floats(0.01, 1e6), min_size=24, max_size=24), st.floats(0.01, 100), st.integers(0, 23))
def test_the_unit_and_the_first_hour_do_not_matter(day, unit, shift):
    share = utilization.of_profile(day, "day")
    assert 1 / 24 <= share <= 1
    assert utilization.of_profile([unit * each for each in day], "day") == pytest.approx(share)
    assert utilization.of_profile(day[shift:] + day[:shift], "day") == pytest.approx(share)
    assert utilization.of_profile([7] * 24, "day") == 1
