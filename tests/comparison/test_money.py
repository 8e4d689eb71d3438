"""What a page computes at what a reader enters is what the command says on those terms."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler.comparison import Question, answer, money
from profiler.cost import terms
from profiler.schema import Estimate, Price
from tests.comparison.lines import figures
from tests.money_script import Page

H100 = "NVIDIA H100 80GB HBM3"
OFFERED = Price(
    usd_per_hour=2.5, per="gpu", source="t", low_usd_per_hour=2.0, high_usd_per_hour=9.0, date="2026-01-01"
)
MACHINE = Price(usd_per_hour=3.6, per="machine", source="t")
EXACT = 1e-9


def is_equal(a, b):
    return a == b if None in (a, b) else math.isclose(a, b, rel_tol=EXACT)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.close()


def known(low, high):
    """A figure of that size with an interval of some kind; now and then none."""
    return st.integers(0, 5).flatmap(lambda n: estimates(st.floats(low, high)) if n else st.none())


@st.composite
def estimates(draw, like):
    value = draw(like)
    low, high = draw(st.sampled_from([(0.9, 1.2), (0.5, 1.01), (None, None), (0.8, None), (-0.1, 2.0)]))
    return Estimate(value, low and value * low, high and value * high, 3, "repeats")


@st.composite
def loads(draw):
    """A load point of a run, on one GPU, on four, or on none; with what was measured of it, or without."""
    gpu, gpus = draw(st.sampled_from([(H100, 1), (H100, 4), (None, 0), ("Unheard Of 9000", 2)]))
    measured = {
        "input_tokens_per_s": draw(known(1, 50)),
        "requests_per_s": draw(known(0.1, 9)),
        "ttft_s_mean": draw(known(1e-3, 0.1)),
        "input_tokens_mean": draw(known(10, 500)),
        "output_tokens_mean": draw(known(1, 30) | estimates(st.just(1.0))),
        "energy_j_per_output_token": draw(known(1e-3, 90)),
        "energy_host_j_per_output_token": draw(known(1e-3, 90)),
        "power_idle_w": draw(known(1, 900)),
        "power_w_mean": draw(known(1, 900)),
        "output_tokens_per_s": draw(known(1, 1e4)),
    }
    own = draw(st.none() | st.sampled_from([OFFERED, MACHINE]))
    return {
        "gpu": gpu,
        "gpus": gpus,
        "concurrency": draw(st.sampled_from([1, 8])),
        "model": draw(st.sampled_from(["m", "n", "qwen3-30b-a3b"])),
        "pue": draw(st.none() | st.just(1.3)),
        "energy_boundary": draw(st.none() | st.just("gpu")),
        "estimates": {name: each for name, each in measured.items() if each is not None},
    }, MACHINE if own and gpu is None else own


def found_of(drawn):
    found = []
    for place, (facts, own) in enumerate(drawn):
        each = figures(f"run{place}", **facts | {"alike": facts["model"]})
        held = {"output_tokens_per_s": None} | facts["estimates"]
        kept = {name: value for name, value in held.items() if value is not None}
        found.append(replace(each, estimates=kept, price=own))
    return found


BASES = (
    ("rented", ()),
    ("rented", ("redundant_replicas=1", "replicas=3")),
    ("spot", ("spot.restart_s=300",)),
    ("reserved", ()),
    ("owned", ("owned.node_price=300000",)),
    ("owned", ("owned.node_price=9000", "owned.node_w=700", "owned.hosting_per_kw_month=90")),
    ("owned", ()),
    ("electricity", ("grid=300",)),
    ("api", ()),
)
bases = st.sampled_from(BASES)
utilizations = st.floats(0.05, 1.0) | st.just(1.0)
BLENDS = ((0.75, 0.25), (0.0, 1.0), (1.0, 0.0), (0.02, 0.98), (0.5, 0.3, 0.2))
blends = st.sampled_from(BLENDS)


entries = st.fixed_dictionaries(
    {},
    optional={
        "price": st.floats(0.01, 50.0),
        "utilization": utilizations,
        "pue": st.floats(1.0, 2.0),
        "tariff_usd_per_kwh": st.floats(0.01, 1.0),
        "blend": blends,
    },
)


def differences(page, found, basis, stated, entered):
    """Of the page's columns those that are not the command's, by model: (page, command)."""
    name, words = basis

    def lines(**options):
        blend = {"blend": "/".join(map(repr, options["blend"]))} if "blend" in options else {}
        on = terms.read(words, basis=name, **options | blend)
        return answer(found, Question(terms=on, baseline=found[0].model)).lines, on

    held, on = lines(**stated)
    got = page("recompute", money.of_lines(held, on), entered)
    wanted, _ = lines(**stated | entered)
    return {
        (before.found.run, column): (got[money.key(before.found)][column], line.row().get(column))
        for before, line in zip(held, wanted, strict=True)
        for column in money.COLUMNS
        if not is_equal(got[money.key(before.found)][column], line.row().get(column))
    }


@settings(deadline=None, max_examples=100)
@given(
    drawn=st.lists(loads(), min_size=1, max_size=4),
    basis=bases,
    stated=st.fixed_dictionaries({}, optional={"price": st.just(1.7), "pue": st.just(1.2)}),
    entered=entries,
)
def test_the_page_says_what_the_command_says(page, drawn, basis, stated, entered):
    assert not differences(page, found_of(drawn), basis, stated, entered)


WHOLE = {
    "output_tokens_per_s": Estimate(900.0, 800.0, 1100.0, 3, "repeats"),
    "input_tokens_per_s": Estimate(40.0, 35.0, 44.0, 3, "repeats"),
    "requests_per_s": Estimate(3.0, 2.5, 3.4, 3, "repeats"),
    "ttft_s_mean": Estimate(0.09, 0.08, 9.0, 3, "repeats"),
    "input_tokens_mean": Estimate(20.0, 20.0, 20.0, 3, "repeats"),
    "output_tokens_mean": Estimate(30.0, 29.0, 31.0, 3, "repeats"),
    "energy_j_per_output_token": Estimate(0.4, 0.0, 0.5, 3, "repeats"),
    "power_idle_w": Estimate(90.0, 0.1, 400.0, 3, "repeats"),
}


@pytest.mark.parametrize("basis", BASES, ids=lambda basis: " ".join([basis[0], *basis[1]]))
def test_every_column_that_is_known_is_the_commands(page, basis):
    shared = {"gpu": H100, "gpus": 2, "concurrency": 1, "energy_boundary": "gpu", "pue": 1.3}
    found = [
        figures(
            run, model=model, **shared, estimates=WHOLE | {"output_tokens_per_s": Estimate(rate, low, high)}
        )
        for run, model, rate, low, high in (
            ("a", "qwen3-30b-a3b", 900.0, 800.0, 1100.0),
            ("b", "qwen3-30b-a3b", 950.0, 900.0, None),
            ("c", "n", 500.0, 499.0, 501.0),
        )
    ]
    found = [replace(each, price=OFFERED) for each in found]
    unread = {name: each for name, each in WHOLE.items() if name != "input_tokens_per_s"}
    found.append(figures("d", model="qwen3-235b-a22b", **shared, estimates=unread))
    for blend in BLENDS:
        entered = {"blend": blend}
        assert not differences(page, found, basis, {}, entered)
        assert not differences(page, found, basis, {}, entered | {"utilization": 0.3})
        assert not differences(page, found, basis, {}, entered | {"price": 4.0, "pue": 1.1})


def test_nothing_entered_is_as_stated(page):
    found = [figures("a", 100, half=5), figures("b", 50, half=5, model="n")]
    lines = answer(found, Question(terms=terms.read(utilization=0.4), baseline="m")).lines
    got = page("recompute", money.of_lines(lines, terms.read(utilization=0.4)), {})
    for line in lines:
        row = got[money.key(line.found)]
        assert row["usd_per_m_output_tokens"] == pytest.approx(
            line.row()["usd_per_m_output_tokens"], rel=EXACT
        )
    assert got[money.key(found[1])]["usd_per_m_output_tokens_ratio"] == pytest.approx(2, rel=EXACT)


def test_a_baseline_that_is_not_shown_is_computed_again_as_well(page):
    found = [figures("a", 100, half=5), figures("b", 50, half=5, model="n")]
    on = terms.read(utilization=0.4)
    (line,) = answer(found, Question(terms=on, baseline="m", where=["model=n"])).lines
    got = page("recompute", money.of_lines([line], on), {"utilization": 0.8})
    assert got[money.key(line.found)]["usd_per_m_output_tokens_ratio"] == pytest.approx(2, rel=EXACT)


def test_a_price_can_be_entered_where_none_was_known(page):
    found = replace(figures("a", 100), price=None)
    lines = answer([found], Question()).lines
    assert lines[0].row()["usd_per_m_output_tokens"] is None
    made = money.of_lines(lines, terms.read())
    assert next(field for field in made.fields if field.name == "price").acts
    assert page("recompute", made, {})[money.key(found)]["usd_per_m_output_tokens"] is None
    got = page("recompute", made, {"price": 0.36})[money.key(found)]
    assert got["usd_per_m_output_tokens"] == pytest.approx(1.0, rel=EXACT)


@pytest.mark.parametrize(
    ("entered", "what"),
    [
        ({"price": 0}, "price"),
        ({"price": -2}, "price"),
        ({"utilization": 0}, "utilisation"),
        ({"utilization": 1.2}, "utilisation"),
        ({"pue": 0.9}, "PUE"),
        ({"tariff_usd_per_kwh": 0}, "electricity"),
        ({"blend": [0.5, 0.2]}, "blend"),
        ({"blend": [-0.5, 1.5]}, "blend"),
        ({}, None),
        ({"price": 2.5, "utilization": 1, "pue": None, "blend": [0.75, 0.25]}, None),
    ],
)
def test_what_cannot_be_is_said(page, entered, what):
    said = page("problem", money.of_lines([], terms.read()), entered)
    assert (said or "").partition(":")[0] == (what or "")


def test_the_key_of_a_load_is_that_of_its_figures():
    found = figures("a", 100)
    facility = {"energy_facility_j_per_output_token": Estimate(1.0)}
    assert money.key(found) == money.key(replace(found, run="elsewhere/a"))
    assert money.key(found) == money.key(replace(found, estimates=found.estimates | facility))
    assert money.key(found) != money.key(figures("a", 101))


def test_fields_that_move_nothing_say_so():
    lines = answer([figures("a", 100)], Question()).lines
    acts = {field.name for field in money.of_lines(lines, terms.read()).fields if field.acts}
    assert acts == {"price", "utilization"}
    on = terms.read(["owned.node_price=9000", "owned.node_w=700"], basis="owned")
    lines = answer([figures("a", 100)], Question(terms=on)).lines
    acts = {field.name for field in money.of_lines(lines, on).fields if field.acts}
    assert acts == {"utilization", "pue", "tariff_usd_per_kwh"}


@pytest.mark.parametrize(
    ("gpus", "unit"),
    [
        ([H100], "USD per GPU-hour"),
        ([None], "USD per machine-hour"),
        ([H100, None], "USD per GPU-hour or machine-hour"),
    ],
)
def test_a_price_is_entered_in_the_unit_of_the_machines(gpus, unit):
    lines = answer([figures(f"run-{gpu}", 100, gpu=gpu, gpus=1) for gpu in gpus], Question()).lines
    assert money.of_lines(lines, terms.read()).fields[0].unit == unit


def test_pooled_lines_are_refused():
    found = [figures("a", 100), figures("b", 90)]
    lines = answer(found, Question(by=["model"])).lines
    with pytest.raises(ValueError, match="pooled"):
        money.of_lines(lines, terms.read())
