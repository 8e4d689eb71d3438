"""What a request, one kind of a mix and a solved task cost: sealed runs with exact lengths."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from profiler import figures
from profiler.cost import answers, question, terms
from profiler.scores import Score
from profiler.settings import Scenario, Share, Workload
from tests import make

MIX = Workload(
    mix=(
        Share(name="short", weight=3, input_tokens=10, output_tokens=5),
        Share(name="long", weight=1, input_tokens=40, output_tokens=5),
    )
)


def lengthened(record, number):
    """Every fourth request is a long one."""
    return replace(record, share=1, input_tokens=40) if number % 4 == 3 else record


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """One slot, back-to-back requests of 0.2 s, five output tokens each: 36 short ones and 12 long ones."""
    out = tmp_path_factory.mktemp("mixed")
    window, records = make.steady(0, 10.0, requests=48)
    held = [(window, [lengthened(record, n) for n, record in enumerate(records)])]
    scenario: Scenario = replace(make.SCENARIO, name="mix", workload=MIX)
    writer = make.writer(out, held, scenario=scenario)
    writer.samples_path.write_bytes(b"")
    writer.seal()
    from profiler import store

    return store.load(out / "run")


def ask(run, scores=(), **options):
    given = {"price": "3.6"} | options
    return question.asked([run], terms.read((), **given), slo={}, scores=scores)


def test_a_request_costs_the_bill_over_the_requests(mixed):
    rows = answers.request_rows(ask(mixed))
    whole = rows[0]
    assert whole["requests"] == answers.ALL
    assert set(whole) == set(answers.REQUEST_COLUMNS)
    # 3.60 USD an hour, five requests a second.
    assert whole["usd_per_request"] == pytest.approx(0.001 / 5, rel=0.02)
    assert whole["usd_per_1000_requests"] == pytest.approx(1000 * whole["usd_per_request"])
    assert (whole["input_tokens_mean"], whole["output_tokens_mean"]) == (17.5, 5)
    for half, full in zip(answers.request_rows(ask(mixed, utilization="0.5")), rows, strict=True):
        assert half["usd_per_request"] == pytest.approx(2 * full["usd_per_request"])


def test_the_kinds_of_a_mix_at_their_weights_are_the_request(mixed):
    whole, *parts = answers.request_rows(ask(mixed))
    assert [(row["requests"], row["n"]) for row in parts] == [("short", 36), ("long", 12)]
    mean = sum(row["n"] * row["usd_per_request"] for row in parts) / 48
    assert mean == pytest.approx(whole["usd_per_request"], rel=0.02)
    # TTFT of 0.1 s over a mean prompt of 17.5 tokens: 30 tokens more are 0.171 s of the engine.
    more = parts[1]["usd_per_request"] - parts[0]["usd_per_request"]
    assert more == pytest.approx(30 * 0.1 / 17.5 * 0.001, rel=0.01)


def test_without_kinds_of_tokens_a_mix_has_no_cost_of_its_own(mixed):
    asked = ask(mixed)
    (found,) = asked.figures
    blind = {name: each for name, each in found.estimates.items() if name != "ttft_s_mean"}
    asked = replace(asked, figures=[replace(found, estimates=blind)])
    whole, *parts = answers.request_rows(asked)
    assert whole["usd_per_request"] is not None
    assert [row["usd_per_request"] for row in parts] == [None, None]
    assert all("scenario prefill" in row["missing"] for row in parts)


def test_no_price_no_cost_of_a_request_and_the_reason(mixed):
    asked = question.asked([mixed], terms.read(()), slo={})
    (row, *_) = answers.request_rows(asked)
    assert row["usd_per_request"] is None
    assert "--price" in row["price_missing"]


# ------------------------------------------------------------------------------------- solved tasks


def solved(run, *given):
    (row,) = answers.solved_rows(ask(run, given))
    assert set(row) == set(answers.SOLVED_COLUMNS)
    return row


def share(value, low=None, high=None, unit="frac", model="m", benchmark="gsm8k"):
    return Score(
        model=model, benchmark=benchmark, value=value, low=low, high=high, source="mine", unit=unit, n=100
    )


@pytest.mark.parametrize(("value", "unit"), [(0.5, "frac"), (50.0, "percent")])
def test_a_solved_task_costs_an_answer_over_the_share_solved(mixed, value, unit):
    factor = 1 if unit == "frac" else 100
    row = solved(mixed, share(value, 0.4 * factor, 0.625 * factor, unit))
    assert row["usd_per_solved_task"] == pytest.approx(2 * row["usd_per_request"])
    # The answer's own interval is there too: no narrower than the accuracy's alone.
    assert row["usd_per_solved_task_high"] >= row["usd_per_request"] / 0.4 * (1 - 1e-9)
    assert row["usd_per_solved_task_low"] <= row["usd_per_request"] / 0.625 * (1 + 1e-9)
    ends = [row[f"accuracy_frac{end}"] for end in ("", "_low", "_high")]
    assert ends == pytest.approx([0.5, 0.4, 0.625])


def test_errors_of_answer_and_accuracy_add_in_quadrature(mixed, monkeypatch):
    from profiler.schema import Estimate

    monkeypatch.setattr(answers, "per_request", lambda found, hour: Estimate(1.0, 0.8, 1.25, 3, "repeats"))
    row = solved(mixed, share(0.5, 0.4, 0.625))
    ends = (row["usd_per_solved_task_low"], row["usd_per_solved_task_high"])
    # Both are known to a factor of 1.25, together to one of 1.25 ** √2.
    assert ends == pytest.approx((2 / 1.25**2**0.5, 2 * 1.25**2**0.5))


@pytest.mark.parametrize(
    ("given", "telling"),
    [
        (share(0.0, 0.0, 0.04), "no task was solved"),
        (share(1200.0, unit="elo"), "gsm8k is no share of solved tasks but elo"),
    ],
)
def test_no_share_no_cost_of_a_solved_task(mixed, given, telling):
    row = solved(mixed, given)
    assert row["usd_per_solved_task"] is None
    assert row["solved_note"] == telling


def test_a_share_that_may_be_zero_has_no_upper_end(mixed):
    row = solved(mixed, share(0.01, -0.01, 0.03))
    assert row["usd_per_solved_task_high"] is None
    assert row["accuracy_frac_low"] == 0.0


def test_models_without_a_score_are_named_once(mixed):
    asked = ask(mixed, [share(0.5, model="another")])
    assert answers.solved_rows(asked) == []
    assert answers.unmatched(asked) == ["m"]
    assert answers.unmatched(ask(mixed, [share(0.5)])) == []
    assert answers.solved_rows(ask(mixed)) == []


def test_each_benchmark_is_a_row(mixed):
    rows = answers.solved_rows(ask(mixed, [share(0.5), share(0.25, benchmark="mmlu")]))
    assert [row["benchmark"] for row in rows] == ["gsm8k", "mmlu"]
    assert rows[1]["usd_per_solved_task"] == pytest.approx(2 * rows[0]["usd_per_solved_task"])


def test_figures_of_the_fixture_are_what_it_says(mixed):
    (found,) = figures.of_runs([mixed])
    assert found.estimates["ttft_s_mean"].value == pytest.approx(0.1)
    assert found.estimates["engine_busy_frac"].value == pytest.approx(0.9, rel=0.01)
