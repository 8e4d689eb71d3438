from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import consumption
from profiler.cost import flips, terms
from profiler.cost.flips import Side
from profiler.cost.promise import Choice
from tests.cost import choices, load
from tests.cost.choices import TTFT, asked, choice, figures, rate

RATES = st.floats(1, 1e4)


def side(tokens_per_s=100.0, gpus=1, words=(), model="m", **on):
    more = on.pop("estimates", {})
    found = figures(model=model, gpus=gpus, output_tokens_per_s=rate(tokens_per_s), price=None, **more)
    return Side(found, None, terms.read(words, **on))


def usd(one, **changes):
    return one.usd_per_m(replace(one.terms, **changes)).value


# ------------------------------------------------------------------------------ price, utilisation


@settings(deadline=None)
@given(RATES, RATES, st.integers(1, 8), st.integers(1, 8), st.floats(0.1, 20), st.floats(0.1, 20))
def test_at_the_price_ratio_costs_are_equal_and_differ_on_either_side(a_rate, b_rate, a_gpus, b_gpus, a, b):
    sides = side(a_rate, a_gpus, price=a), side(b_rate, b_gpus, price=b)
    at = flips.price_ratio_flip(*sides, flips.cost_ratio(*sides)).value
    own, other = (lambda p: usd(sides[0], price=str(p))), usd(sides[1])
    assert own(at * b) == pytest.approx(other)
    assert own(at * b * 0.99) < other < own(at * b * 1.01)


def test_the_price_ratio_has_the_ratios_interval_inverted():
    sides = side(200.0, price=4), side(100.0, price=2)
    ratio = flips.cost_ratio(*sides)
    assert ratio.value == pytest.approx(1.0)
    found = flips.price_ratio_flip(*sides, ratio)
    assert found.value == pytest.approx(2.0)  # twice the tokens are worth twice the hour
    assert (found.low, found.high) == (pytest.approx(2 / ratio.high), pytest.approx(2 / ratio.low))


def test_no_hour_no_price_ratio():
    powered = {"estimates": {consumption.GROSS: 1.0, consumption.IDLE: 20.0}}
    sides = side(basis="electricity", **powered), side(basis="electricity", **powered)
    assert flips.price_ratio_flip(*sides, flips.cost_ratio(*sides)) is None


@settings(deadline=None)
@given(RATES, RATES, st.floats(0.05, 1))
def test_at_the_utilisation_costs_are_equal_and_differ_on_either_side(a_rate, b_rate, share):
    sides = (
        side(a_rate, model="a", price=2, utilization=share),
        side(b_rate, model="b", price=2, utilization=share),
    )
    found = flips.utilization_flip(*sides, flips.cost_ratio(*sides))
    low, other = sides if found.model == "a" else sides[::-1]
    assert usd(low) <= usd(other) * (1 + 1e-9)
    assert found.share.value <= share * (1 + 1e-9)
    assert usd(low, utilization=found.share.value) == pytest.approx(usd(other))
    assert usd(low, utilization=found.share.value * 0.99) > usd(other)


def test_the_interval_of_the_utilisation_is_that_of_the_ratio():
    sides = side(200.0, model="a", price=2), side(100.0, model="b", price=2)
    ratio = flips.cost_ratio(*sides)
    for pair in (sides, sides[::-1]):
        found = flips.utilization_flip(*pair, flips.cost_ratio(*pair))
        assert found.model == "a"
        assert (found.share.low, found.share.value, found.share.high) == pytest.approx(
            (ratio.low, ratio.value, ratio.high)
        )


@settings(deadline=None)
@given(st.floats(50, 5000), st.floats(50, 5000), st.floats(0.2, 1))
def test_the_utilisation_of_what_is_owned_waits_at_idle_power(a_rate, b_rate, share):
    """Where waiting is cheaper than working, the share is not simply the ratio of the costs."""
    powered = {"estimates": {consumption.GROSS: 700 / a_rate, consumption.IDLE: 70.0}}
    on = {"basis": "owned", "utilization": share, "words": ["owned.node_price=300000"]}
    sides = side(a_rate, model="a", **powered, **on), side(b_rate, model="b", **powered, **on)
    found = flips.utilization_flip(*sides, flips.cost_ratio(*sides))
    low, other = sides if found.model == "a" else sides[::-1]
    assert usd(low, utilization=min(1.0, found.share.value)) == pytest.approx(usd(other))


# ------------------------------------------------------------------------------------------ tariff


def on_tariff(tokens_per_s, node_price, watts, model):
    """A node of one board, bought."""
    words = [f"owned.node_price={node_price}", "owned.gpus_per_node=1", f"owned.node_w={watts}"]
    return side(tokens_per_s, words=words, model=model, basis="owned")


def test_the_tariff_at_which_two_nodes_cost_the_same():
    cheap_and_hungry = on_tariff(100.0, 10_000, 900, "hungry")
    dear_and_frugal = on_tariff(100.0, 20_000, 300, "frugal")
    found = flips.tariff_flip(cheap_and_hungry, dear_and_frugal)
    assert found.below == "hungry"
    at = found.usd_per_kwh
    assert usd(cheap_and_hungry, tariff_usd_per_kwh=at) == pytest.approx(
        usd(dear_and_frugal, tariff_usd_per_kwh=at)
    )
    for tariff, cheaper in ((at * 0.9, cheap_and_hungry), (at * 1.1, dear_and_frugal)):
        other = dear_and_frugal if cheaper is cheap_and_hungry else cheap_and_hungry
        assert usd(cheaper, tariff_usd_per_kwh=tariff) < usd(other, tariff_usd_per_kwh=tariff)


@settings(deadline=None)
@given(
    st.floats(10, 1000), st.floats(10, 1000), st.floats(1e3, 1e5), st.floats(1e3, 1e5), st.floats(50, 2000)
)
def test_the_tariff_is_where_a_scan_finds_it(a_rate, b_rate, a_price, b_price, watts):
    a, b = on_tariff(a_rate, a_price, watts, "a"), on_tariff(b_rate, b_price, 500, "b")
    found = flips.tariff_flip(a, b)
    scan = [10 ** (n / 10) for n in range(-40, 41)]
    lower = [usd(a, tariff_usd_per_kwh=t) <= usd(b, tariff_usd_per_kwh=t) for t in scan]
    if found.usd_per_kwh is None:
        assert len(set(lower)) == 1
        assert found.below == ("a" if lower[0] else "b")
    elif scan[0] < found.usd_per_kwh < scan[-1]:
        assert lower[0] == (found.below == "a")
        assert lower[-1] != lower[0]
        turn = lower.index(lower[-1])
        assert scan[turn - 1] <= found.usd_per_kwh * 1.001
        assert found.usd_per_kwh <= scan[turn] * 1.001


def test_the_tariff_never_turns_a_bill_of_power_alone():
    a = side(model="a", basis="electricity", estimates={consumption.GROSS: 1.0})
    b = side(model="b", basis="electricity", estimates={consumption.GROSS: 2.0})
    assert flips.tariff_flip(a, b) == (None, "a")
    assert flips.tariff_flip(b, a) == (None, "a")


def test_a_rented_hour_knows_no_tariff():
    assert flips.tariff_flip(side(price=1), side(price=2)) is None


# -------------------------------------------------------------------------------------------- load


def test_curves_cross_between_their_loads():
    # on logarithmic axes the straight lines of 4 → 1 and 2 → 2 over 1 → 16 meet halfway: at load 4
    (found,) = flips.crossings({1: 4.0, 16: 1.0}, {1: 2.0, 16: 2.0})
    assert found.load == pytest.approx(4.0)
    assert (found.low, found.high, found.below) == (1, 16, "b")


def test_a_bracket_is_the_nearest_loads_that_either_was_held_at():
    (found,) = flips.crossings({1: 4.0, 16: 1.0}, {1: 2.0, 2: 2.0, 8: 2.0, 16: 2.0}, ("moe", "dense"))
    assert (found.low, found.high, found.below) == (2, 8, "dense")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({1: 1.0, 8: 1.0}, {1: 2.0, 8: 2.0}),  # never
        ({1: 1.0, 8: 3.0}, {16: 2.0, 32: 2.0}),  # no load in common
        ({1: 1.0}, {1: 2.0, 8: 0.5}),  # one load is no curve
    ],
)
def test_no_crossing_within_what_was_measured(a, b):
    assert flips.crossings(a, b) == []


CURVES = st.dictionaries(st.integers(1, 512).map(float), st.floats(0.01, 100), min_size=2, max_size=6)


@settings(deadline=None)
@given(CURVES, CURVES)
def test_crossings_are_those_of_a_scan(a, b):
    """The difference changes its sign at every crossing and nowhere else (numpy's interpolation)."""

    def gap(load):
        logs = [
            np.interp(math.log(load), [math.log(x) for x in sorted(c)], [math.log(c[x]) for x in sorted(c)])
            for c in (a, b)
        ]
        return logs[0] - logs[1]

    found = flips.crossings(a, b)
    for each in found:
        assert each.low <= each.load <= each.high
        assert gap(each.load) == pytest.approx(0, abs=1e-9)
        assert (gap(each.low) < 0) == (each.below == "a")
        assert gap(each.low) * gap(each.high) < 0
    low, high = max(min(a), min(b)), min(max(a), max(b))
    if low < high:
        loads = sorted(x for x in {*a, *b} if low <= x <= high)
        signs = [gap(x) > 0 for x in loads]
        turns = sum(x != y for x, y in itertools.pairwise(signs))
        if all(abs(gap(x)) > 1e-9 for x in loads):
            assert len(found) == turns
    else:
        assert not found


# ------------------------------------------------------------------------------------------- pairs


def test_every_moe_against_every_dense_model():
    held = [
        choice([figures(name, kind=kind)]) for name, kind in (("d1", "dense"), ("m", "moe"), ("d2", "dense"))
    ]
    assert [(a.found.model, b.found.model) for a, b in flips.pairs(held)] == [("m", "d1"), ("m", "d2")]


def test_of_one_kind_the_first_is_set_against_the_others():
    held = [choice([figures(name)]) for name in ("x", "y", "z")]
    assert [(a.found.model, b.found.model) for a, b in flips.pairs(held)] == [("x", "y"), ("x", "z")]


def curve(model, kind, **tokens_per_s) -> list[load.Figures]:
    return [
        figures(model, int(at[1:]), kind, output_tokens_per_s=rate(each)) for at, each in tokens_per_s.items()
    ]


def test_rows_at_each_load_in_common_and_where_the_verdict_turns():
    moe = choice(curve("moe", "moe", c1=200.0, c8=400.0, c32=500.0))
    dense = choice(curve("dense", "dense", c1=50.0, c8=402.0, c32=2000.0))
    rows = flips.rows(asked(moe, dense, price="3.6"))
    assert [(row["what"], row["at"], row["cheaper"]) for row in rows] == [
        ("load", "1", "moe"),
        ("load", "8", "undecided"),
        ("load", "32", "dense"),
        ("crossing", "7.94, between 1 and 8", "moe below"),
    ]
    assert [row["ratio"] for row in rows] == pytest.approx([0.25, 402 / 400, 4.0, 1.0])
    assert rows[0]["price_ratio_flip"] == pytest.approx(4.0)
    assert (rows[2]["utilization_of"], rows[2]["utilization_flip"]) == ("dense", pytest.approx(0.25))
    assert rows[0].keys() == set(flips.COLUMNS)


@pytest.mark.parametrize(
    ("verdicts", "is_certain"),
    [
        ({8: "a", 16: "b"}, True),
        ({1: "a", 8: "undecided", 16: "undecided", 32: "b"}, True),
        ({8: "undecided", 16: "b", 32: "a"}, False),
        ({1: "b", 8: "a", 16: "undecided"}, False),
    ],
)
def test_a_crossing_is_certain_between_two_verdicts(verdicts, is_certain):
    found = flips.Crossing(10.0, 8.0, 16.0, "a")
    assert flips._is_certain(found, ("a", "b"), verdicts) == is_certain


def test_both_at_their_own_load_within_the_promise():
    moe = choice(curve("moe", "moe", c1=200.0, c8=400.0), best=8, limits=(TTFT,))
    dense = choice(curve("dense", "dense", c1=50.0, c8=600.0), best=1, limits=(TTFT,))
    row = flips.rows(asked(moe, dense, price="3.6"))[0]
    assert (row["what"], row["at"]) == ("promise", "8 and 1, TTFT p99 ≤ 500 ms")
    assert row["ratio"] == pytest.approx(50 / 400)


def test_a_model_that_keeps_no_promise_is_in_no_pair():
    moe = choice(curve("moe", "moe", c1=200.0), best=1, limits=(TTFT,))
    dense = choice(curve("dense", "dense", c8=50.0), best=1, limits=(TTFT,))
    assert isinstance(dense, Choice)
    assert dense.best is None
    assert flips.rows(asked(moe, dense, price="1")) == []


def test_without_a_price_there_is_no_row():
    held = [choice([choices.figures(name, price=None, gpu="Unheard Of 9000")]) for name in "ab"]
    assert flips.rows(asked(*held)) == []
