"""The invoice adds up, whatever the numbers; prices go with the price and against the utilisation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import cost, figures
from profiler.cost import bought, invoice, terms
from profiler.cost.listed import TokenPrice
from profiler.cost.question import Question
from profiler.schema import Estimate
from tests.cost.load import GPU_HOUR, H100
from tests.cost.test_kinds import chat, prefill_run

RATE = st.floats(1, 1e5)
SHARE = st.floats(0.01, 1)
OFFER = TokenPrice(input=0.1, output=0.4, cached=0.025, provider="P", date="2026-11-01")


def ask(*measured, **options) -> Question:
    return Question(
        runs=(),
        figures=measured,
        terms=terms.read((), **options),
        prefill_s=figures.prefill_s(measured),
    )


def usd_of(rows):
    return {row["line"]: row["usd"] for row in rows if row["run"] == "chat"}


def measured(**more):
    found = chat(**more)
    return prefill_run(), replace(found, facts=found.facts | {"run": "chat"})


@given(RATE, RATE, SHARE, SHARE, st.floats(0.01, 100))
def test_the_lines_add_up_to_the_hour(output, inputs, busy, used, price):
    loads = measured(output_tokens_per_s=output, input_tokens_per_s=inputs, engine_busy_frac=busy)
    lines = usd_of(invoice.line_rows(ask(*loads, price=price, utilization=used)))
    total = lines.pop(invoice.TOTAL)
    assert total == pytest.approx(price)
    assert sum(lines.values()) == pytest.approx(price, rel=1e-9)
    assert lines.get(invoice.UNUSED, 0.0) == pytest.approx(price * (1 - used), abs=1e-12)
    assert lines[invoice.STANDING] == pytest.approx(price * used * (1 - busy), abs=1e-12)


def test_an_hour_worked_out_by_hand():
    # 3.60 USD an hour are 0.001 USD/s.  Half of it works: 1800 s with 200 prompt tokens at 1 ms and 100
    # output tokens a second; the engine is busy for 0.9 of that.
    rows = invoice.line_rows(ask(*measured(engine_busy_frac=0.9), price=3.6, utilization=0.5))
    own = {row["line"]: row for row in rows if row["run"] == "chat"}
    assert own["input"]["tokens"] == pytest.approx(360_000)
    assert own["input"]["usd_per_m_tokens"] == pytest.approx(1.0)
    assert own["input"]["usd"] == pytest.approx(0.36)
    assert own["output"]["tokens"] == pytest.approx(180_000)
    assert own["output"]["usd_per_m_tokens"] == pytest.approx(7.0)
    assert own["output"]["usd"] == pytest.approx(1.26)
    assert own["output"]["share_frac"] == pytest.approx(0.35)
    assert own[invoice.STANDING]["usd"] == pytest.approx(0.18)
    assert own[invoice.UNUSED]["usd"] == pytest.approx(1.8)
    assert own[invoice.TOTAL]["usd"] == pytest.approx(3.6)
    for row in own.values():
        assert set(row) == set(invoice.LINE_COLUMNS)


@given(st.floats(0.01, 100), st.floats(1.01, 50), SHARE)
def test_prices_of_all_kinds_are_linear_in_the_price_and_inverse_in_the_utilisation(price, factor, used):
    def usd(**options):
        rows = invoice.kind_rows(ask(*measured(), **options))
        (row,) = (row for row in rows if row["run"] == "chat" and row["quantity"] == "cost")
        names = (*invoice.FIGURES.values(), invoice.BLENDED, invoice.WHOLE)
        return {name: row[name] for name in names if row[name] is not None}

    base = usd(price=price)
    assert set(base) == {
        *("per_m_input_tokens", "per_m_output_tokens"),
        *(invoice.BLENDED, invoice.WHOLE),
    }
    for name, value in usd(price=price * factor).items():
        assert value == pytest.approx(base[name] * factor)
    for name, value in usd(price=price, utilization=used).items():
        assert value == pytest.approx(base[name] / used)


def test_gpu_seconds_are_of_all_boards_and_do_not_depend_on_the_price():
    found = replace(chat(), facts=chat().facts | {"gpus": 4, "run": "chat"})
    for options in ({"price": 1}, {"price": 7, "utilization": 0.3}):
        rows = invoice.kind_rows(ask(prefill_run(), found, **options))
        (row,) = (row for row in rows if row["run"] == "chat" and row["quantity"] == "engine time")
        assert row["unit"] == "GPU-s"
        assert row["per_m_input_tokens"] == pytest.approx(4 * 1000)
        assert set(row) == set(invoice.KIND_COLUMNS)


def test_the_same_figures_as_in_the_cost_table():
    loads = measured()
    question = ask(*loads, price=2.5, utilization=0.7)
    (row,) = (r for r in invoice.kind_rows(question) if r["run"] == "chat" and r["quantity"] == "cost")
    table = cost.columns(loads[1], figures.prefill_s(loads)["chat"], question.terms).estimates
    assert row["per_m_input_tokens"] == pytest.approx(table["usd_per_m_input_tokens"].value)
    assert row["per_m_output_tokens"] == pytest.approx(table["usd_per_m_output_tokens_apart"].value)
    assert row[invoice.BLENDED] == pytest.approx(table["usd_per_m_blended_tokens"].value)
    assert row[invoice.WHOLE] == pytest.approx(table["usd_per_m_output_tokens"].value)


def test_without_a_price_there_is_engine_time_and_a_reason():
    simulated = f"{H100} (simulated)"
    loads = [replace(each, price=None, facts=each.facts | {"gpu": simulated}) for each in measured()]
    question = ask(*loads)
    rows = invoice.kind_rows(question)
    assert {row["quantity"] for row in rows} == {"engine time"}
    assert all("--price" in row["price_missing"] for row in rows)
    assert invoice.line_rows(question) == []


def test_what_no_kind_could_be_told_of_is_one_line():
    found = chat(input_tokens_per_s=None, total_tokens_per_s=None)
    rows = invoice.line_rows(ask(found, price=3.6))
    assert [row["line"] for row in rows] == ["all on output", invoice.TOTAL]
    assert rows[0]["usd"] == pytest.approx(3.6)
    assert rows[0]["missing"]


# ------------------------------------------------------------------------------------- bought tokens


@given(st.floats(0, 0.99), RATE, RATE)
def test_bought_tokens_are_paid_at_list_price_and_never_idle(hits, inputs, outputs):
    found = chat(
        input_tokens_per_s=inputs, output_tokens_per_s=outputs, prefix_cache_hit_frac=hits, requests_per_s=2
    )
    lines = list(invoice._bought_lines(found, OFFER))
    total = lines[-1]["usd"]
    assert sum(line["usd"] for line in lines[:-1]) == pytest.approx(total)
    by_hand = (inputs * ((1 - hits) * 0.1 + hits * 0.025) + outputs * 0.4) * 3600 / 1e6
    assert total == pytest.approx(by_hand)
    assert {line["line"] for line in lines} <= {"input", "cached input", "output", invoice.BOUGHT}


def test_a_provider_without_a_price_for_cached_input_takes_that_of_input():
    plain = TokenPrice(input=0.1, output=0.4, cached=None, provider="P", date="2026-11-01")
    found = chat(prefix_cache_hit_frac=0.5)
    assert bought.of_tokens(found, plain, 1e6, 0).value == pytest.approx(0.1)
    assert bought.of_tokens(found, OFFER, 1e6, 0).value == pytest.approx(0.0625)
    assert bought.per_request(found, OFFER).value == pytest.approx((100 * 0.0625 + 50 * 0.4) / 1e6)
    assert bought.blended(OFFER, (0.5, 0.3, 0.2)) == pytest.approx(0.05 + 0.12 + 0.005)


def test_basis_api_takes_the_middle_provider_of_the_model_named():
    found = replace(chat(), facts=chat().facts | {"run": "chat"}, price=GPU_HOUR)
    question = replace(ask(found, basis="api"), api="Qwen/Qwen3-32B")
    (row,) = invoice.kind_rows(question)
    assert row["cost_basis"] == "api"
    assert row["quantity"] == "cost"
    assert "list price of" in row["price_basis"]
    inputs, outputs, whole = (
        row[f"{n}_tokens"] for n in ("per_m_input", "per_m_output", "whole_per_m_output")
    )
    assert whole == pytest.approx((200 * inputs + 100 * outputs) / 100)
    (unknown,) = {row["price_missing"] for row in invoice.kind_rows(ask(found, basis="api"))}
    assert "no API price for m" in unknown


def test_a_figure_without_an_interval_has_none():
    row = invoice.ends("x", Estimate(2.0), 3.0)
    assert row == {"x": 6.0, "x_low": None, "x_high": None}
