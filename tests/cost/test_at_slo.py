from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import figures as measured
from profiler import stats, store
from profiler.client import ClientAudit
from profiler.cost import at_slo, promise, question, terms
from profiler.errors import InputError
from profiler.schema import EngineFacts, Estimate, Imported, ImportedPoint, LoadPoint, Price
from tests import make
from tests.cost import choices, load
from tests.cost.choices import TTFT, asked, choice, figures, rate

S = make.S
PRICE = Price(usd_per_hour=3.6, per="machine", source="test")
SPAN_S = 100.0


def window(index, concurrency, ttft_s, late=0, n=800, late_s=2.0):
    """``n`` requests of five tokens in 100 s; the first token comes at ``ttft_s``, of the first ``late`` at
    ``late_s``."""
    start_s = 1000.0 * (index + 1)
    records = []
    for k in range(n):
        own = make.request(index, k, start_s + (k + 0.5) * SPAN_S / n)
        shift = round(((late_s if k < late else ttft_s) - 0.1) * S)
        records.append(
            replace(
                own,
                first_ns=own.first_ns + shift,
                last_ns=own.last_ns + shift,
                done_ns=own.done_ns + shift,
                arrivals_ns=[t + shift for t in own.arrivals_ns],
            )
        )
    point = LoadPoint(mode="closed", concurrency=concurrency)
    return make.window(index, start_s, start_s + SPAN_S, point=point), records


@pytest.fixture
def held(tmp_path):
    """Run folders of windows; ``ask`` gives the question about all of them."""

    class Held:
        def run(self, name, *windows, model="m", **changes):
            facts = replace(make.manifest("x").model, name=model)
            make.writer(tmp_path, list(windows), run_id=name, model=facts, price=PRICE, **changes).seal()

        def ask(self, slo=None, **on):
            runs = store.find([tmp_path])
            return question.asked(runs, terms.read(**on), slo=slo if slo is not None else {"ttft_p99_s": 0.5})

    return Held()


# --------------------------------------------------------------------------------- which load


def test_the_highest_load_that_is_met_with_none_missed_below(held):
    held.run("run", window(0, 1, 0.1), window(1, 8, 0.3), window(2, 32, 0.6), window(3, 64, 0.4))
    (found,) = held.ask().choices
    assert [each.verdict for each in found.standings] == ["met", "met", "missed", "met"]
    assert (found.best.load, found.closest) == (8, None)
    assert found.notes[0].startswith("missed at 32: TTFT p99 600 ms > 500 ms")
    assert any("not monotone: 32 missed, 64 met" in note for note in found.notes)


def test_few_late_requests_of_few_prove_nothing(held):
    """One of 60 late is 1.7 %, but between 0.04 % and 9 %."""
    held.run("run", window(0, 1, 0.1), window(1, 8, 0.3, late=1, n=60))
    (found,) = held.ask().choices
    assert [each.verdict for each in found.standings] == ["met", "undecided"]
    assert found.best.load == 1
    assert any(note.startswith("undecided at 8: TTFT p99") for note in found.notes)


def test_a_second_run_of_the_load_decides_it(held):
    """Neither of 400 requests with none late beyond doubt; late ones add up over runs."""
    held.run("a", window(0, 8, 0.3, late=2, n=400))
    assert held.ask().choices[0].standings[0].verdict == "undecided"
    held.run("b", window(0, 8, 0.3, late=0, n=800))
    (found,) = held.ask().choices
    assert (found.best.load, found.best.runs) == (8, 2)


def test_where_none_keeps_it_the_nearest_is_named(held):
    held.run("run", window(0, 1, 0.6), window(1, 8, 0.9))
    (found,) = held.ask().choices
    assert (found.best, found.closest.load) == (None, 1)
    (row, _) = at_slo.rows(held.ask())
    assert row["usd_per_m_output_tokens"] is None
    assert row["notes"].startswith(
        "no measured load keeps the promise; nearest is 1: TTFT p99 600 ms > 500 ms"
    )


def test_where_all_keep_it_the_capacity_may_be_higher(held):
    held.run("run", window(0, 1, 0.1), window(1, 8, 0.3))
    assert "the capacity may be higher, profile run --find capacity" in held.ask().choices[0].notes[0]


def test_the_users_limits_stand_above_the_scenarios(held):
    plan = replace(make.SCENARIO, slo={"ttft_p99_s": 0.2})
    held.run("run", window(0, 1, 0.1), window(1, 8, 0.3), scenario=plan)
    assert held.ask(slo={}).choices[0].best.load == 1
    assert held.ask(slo={"ttft_p99_s": 0.5}).choices[0].best.load == 8


def test_without_a_promise_it_is_the_highest_load(held):
    held.run("run", window(0, 1, 0.1), window(1, 8, 3.0))
    (found,) = held.ask(slo={}).choices
    assert (found.limits, found.best.load, found.best.good_requests_per_s) == ((), 8, None)
    assert at_slo.rows(held.ask(slo={})) == []


def test_without_a_promise_a_load_that_failed_is_not_taken(held):
    broken, records = window(1, 8, 0.1)
    failed = [replace(each, outcome="http_error", first_ns=None, last_ns=None) for each in records]
    held.run("run", window(0, 1, 0.1), (broken, failed))
    assert held.ask(slo={}).choices[0].best.load == 1


def test_where_the_client_was_the_limit_nothing_is_proven(held):
    slow, records = window(1, 8, 0.9)
    bound = ClientAudit(cpu_frac=1.0, loop_lag_p99_s=0.1, send_lag_p99_s=0.1, chunks=4000, bound_by=("CPU",))
    held.run("run", window(0, 1, 0.1), (replace(slow, audit=bound), records))
    (found,) = held.ask().choices
    assert found.standings[1].verdict == "undecided"
    assert found.notes == ("undecided at 8: the client was the limit (CPU)",)


def test_an_undecided_load_is_nearer_than_a_missed_one(held):
    held.run("run", window(0, 1, 0.6), window(1, 8, 0.1, late=1, n=60))
    (found,) = held.ask().choices
    assert (found.best, found.closest.load) == (None, 8)
    assert found.closest.excess > found.standings[0].excess


def test_runs_of_unlike_promises_are_together_under_the_users(held):
    for name, limit in (("a", 0.2), ("b", 0.3)):
        held.run(name, window(0, 1, 0.1), scenario=replace(make.SCENARIO, slo={"ttft_p99_s": limit}))
    assert len(held.ask(slo={}).choices) == 2
    assert [each.best.runs for each in held.ask().choices] == [2]


def test_an_unknown_limit_is_an_error_with_the_nearest_name(held):
    held.run("run", window(0, 1, 0.1))
    with pytest.raises(InputError, match=r"slo\.tttf_p99_s: no such limit.*ttft_p99_s"):
        _ = held.ask(slo={"tttf_p99_s": 0.5}).choices
    with pytest.raises(InputError, match=r"ttft_p99_s: a limit is a time above 0"):
        _ = held.ask(slo={"ttft_p99_s": 0.0}).choices


def test_unlike_engines_are_unlike_configurations(held):
    held.run("a", window(0, 1, 0.1))
    held.run("b", window(0, 8, 0.3), engine=EngineFacts(kind="vllm", version="1", device="cpu"))
    assert [each.best.load for each in held.ask().choices] == [1, 8]


# ------------------------------------------------------------------------------- what it costs


def test_the_bill_on_all_tokens_and_on_those_of_good_requests(held):
    """1600 requests of five tokens in 100 s are 80 tokens/s, 12.5 USD per million at 3.60 an hour; four
    requests are late."""
    held.run("run", window(0, 8, 0.3, late=4, n=1600))
    (row, own) = at_slo.rows(held.ask())
    assert (row["view"], own["view"]) == (at_slo.EQUAL, at_slo.OWN)
    usd_per_s = 3.6 / 3600
    assert row["usd_per_m_output_tokens"] == pytest.approx(usd_per_s / 80 * 1e6, rel=0.01)
    assert row["good_requests_per_s"] == pytest.approx(1596 / SPAN_S)
    assert row["usd_per_m_good_output_tokens"] == pytest.approx(row["usd_per_m_output_tokens"] * 1600 / 1596)
    assert row["usd_per_1000_good_requests"] == pytest.approx(usd_per_s / (1596 / SPAN_S) * 1e3, rel=0.01)
    half = at_slo.rows(held.ask(utilization="0.5"))[0]
    for name in ("usd_per_m_output_tokens", "usd_per_m_good_output_tokens", "usd_per_1000_good_requests"):
        assert half[name] == pytest.approx(2 * row[name])


def test_how_many_tokens_are_good_is_uncertain_too(held):
    """Few late in one window and many in another: the interval of good tokens is wider than that of all."""
    held.run("run", window(0, 8, 0.3, late=4, n=1600), window(1, 8, 0.3, late=160, n=1600))
    (row, _) = at_slo.rows(held.ask(slo={"ttft_p50_s": 0.5}))
    every, good = (
        row[f"{name}_high"] / row[f"{name}_low"]
        for name in ("output_tokens_per_s", "good_output_tokens_per_s")
    )
    assert good > 1.5 * every


def test_models_side_by_side_on_equal_machines_and_on_their_own_best():
    slow = choice([figures("a", gpu="NVIDIA L4", output_tokens_per_s=rate(100.0))], best=1, limits=(TTFT,))
    fast = choice([figures("a", gpu=load.H100, output_tokens_per_s=rate(400.0))], best=1, limits=(TTFT,))
    other = choice([figures("b", gpu=load.H100, output_tokens_per_s=rate(200.0))], best=1, limits=(TTFT,))
    rows = at_slo.rows(asked(slow, fast, other))
    equal = [row for row in rows if row["view"] == at_slo.EQUAL]
    assert [(row["model"], row["gpu"], row["ratio"]) for row in equal] == [
        ("a", "NVIDIA L4", 1.0),
        ("a", load.H100, 1.0),
        ("b", load.H100, pytest.approx(2.0)),
    ]
    own = [row for row in rows if row["view"] == at_slo.OWN]
    assert [(row["model"], row["gpu"], row["configurations"]) for row in own] == [
        ("a", load.H100, 2),
        ("b", load.H100, 1),
    ]
    assert own[1]["relative_to"] == "a"
    assert own[1]["ratio_low"] < 2 < own[1]["ratio_high"]
    assert all(row.keys() == set(at_slo.COLUMNS) for row in rows)


def test_two_boards_are_not_one():
    one = choice([figures("a", gpus=1)], best=1, limits=(TTFT,))
    two = choice([figures("b", gpus=2)], best=1, limits=(TTFT,))
    rows = at_slo.rows(asked(one, two))
    assert [row["ratio"] for row in rows] == [1.0, 1.0, 1.0, pytest.approx(2.0)]


def test_unlike_promises_are_not_compared():
    loose = choices.Limit("ttft_p99_s", "ttft_s", 0.01, 5.0)
    other = choice([figures("b", output_tokens_per_s=rate(50.0))], 1, (loose,))
    rows = at_slo.rows(asked(choice([figures("a")], 1, (TTFT,)), other))
    assert [row["ratio"] for row in rows] == [1.0] * 4


def test_a_configuration_that_keeps_the_promise_comes_before_a_cheaper_one_that_does_not():
    cheap = choice([figures("a", 8, output_tokens_per_s=rate(900.0))], best=1, limits=(TTFT,))
    dear = choice([figures("a", 1, gpus=2)], best=1, limits=(TTFT,))
    own = [row for row in at_slo.rows(asked(cheap, dear)) if row["view"] == at_slo.OWN]
    assert [(row["gpus"], row["verdict"]) for row in own] == [(2, "met")]


def test_so_it_does_without_prices():
    unheard = {"price": None, "gpu": "Unheard Of 9000"}
    fast = choice([figures("a", 8, output_tokens_per_s=rate(900.0), **unheard)], best=1, limits=(TTFT,))
    slow = choice([figures("a", 1, **unheard)], best=1, limits=(TTFT,))
    own = [row for row in at_slo.rows(asked(fast, slow)) if row["view"] == at_slo.OWN]
    assert [(row["concurrency"], row["verdict"]) for row in own] == [(1, "met")]


def test_without_prices_the_one_that_serves_more_is_the_better():
    held = [
        choice([figures("a", price=None, gpu="Unheard Of 9000", output_tokens_per_s=rate(x))], 1, (TTFT,))
        for x in (100.0, 300.0)
    ]
    own = [row for row in at_slo.rows(asked(*held)) if row["view"] == at_slo.OWN]
    assert (own[0]["output_tokens_per_s"], own[0]["ratio"]) == (300.0, None)
    assert "--price" in own[0]["notes"]


# ------------------------------------------------------------------------------ imported, merged


def imported(**estimates):
    """A load whose requests stayed with the tool that made it."""
    return promise.by_figures(figures("m", 8, **estimates), 8.0, 1, (TTFT,))


@pytest.mark.parametrize(
    ("p99_s", "verdict", "reason"),
    [
        (0.4, "met", None),
        (0.6, "missed", "TTFT p99 600 ms > 500 ms"),
        (None, "undecided", "imported without it"),
    ],
)
def test_imported_loads_are_judged_by_the_quantiles_that_came_with_them(p99_s, verdict, reason):
    found = imported(ttft_s_p99=p99_s)
    assert (found.verdict, found.by_quantiles) == (verdict, True)
    assert reason is None or reason in found.reasons[0]


def test_what_was_imported_without_its_requests_says_so(tmp_path):
    point = LoadPoint(mode="closed", concurrency=8)
    seen = {"output_tokens_per_s": Estimate(100.0), "ttft_s_p99": Estimate(0.4)}
    made = Imported(
        tool="another", file="a.json", sha256="0", points=(ImportedPoint(point=point, figures=seen),)
    )
    make.writer(tmp_path, [], imported=made, price=PRICE).seal()
    ask = question.asked(store.find([tmp_path]), terms.read(), slo={"ttft_p99_s": 0.5})
    (row, _) = at_slo.rows(ask)
    assert (row["concurrency"], row["usd_per_m_output_tokens"]) == (8, pytest.approx(10.0))
    assert row["usd_per_m_good_output_tokens"] is None
    assert "imported without its requests" in row["notes"]


@settings(deadline=None)
@given(
    st.lists(st.floats(10, 1000), min_size=2, max_size=6),
    st.lists(st.floats(10, 1000), min_size=2, max_size=6),
)
def test_two_runs_are_as_all_their_repeats(first, second):
    both = promise.over_runs([stats.over_repeats(first), stats.over_repeats(second)])
    whole = stats.over_repeats([*first, *second])
    assert both.value == pytest.approx(whole.value)
    assert math.log(both.high / both.low) == pytest.approx(math.log(whole.high / whole.low), abs=1e-6)
    assert both.n == whole.n


def test_three_runs_have_an_interval_over_runs():
    each = [Estimate(x, x * 0.999, x * 1.001, 3, "repeats") for x in (90.0, 100.0, 110.0)]
    found = promise.over_runs(each)
    assert (found.n, found.over) == (3, "runs")
    assert found.low == pytest.approx(stats.over_repeats([90.0, 100.0, 110.0]).low)
    assert promise.over_runs(each[:1]) is each[0]


def test_figures_of_several_runs_are_merged_by_name():
    one, other = figures(output_tokens_per_s=100.0), figures(output_tokens_per_s=121.0, ttft_s_mean=None)
    found = promise.merged([one, other])
    assert found.estimates["output_tokens_per_s"].value == pytest.approx(110.0)
    assert found.estimates["ttft_s_mean"].value == pytest.approx(0.2)
    assert promise.merged([one]) is one


def test_figures_of_the_choice_are_those_of_compare(held):
    held.run("run", window(0, 8, 0.3))
    asked_ = held.ask()
    assert asked_.choices[0].found == measured.of_runs(asked_.runs)[0]
