from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import cost, prefill, prices
from profiler.errors import InputError
from profiler.metrics import PointResult
from profiler.schema import Estimate, LoadPoint, Price

GPU_HOUR = Price(usd_per_hour=3.6, per="gpu", source="test")


def point(output=100.0, inputs=200.0, ttft=0.2, prompt=100.0, answer=50.0, concurrency=1):
    estimates = {
        "output_tokens_per_s": Estimate(output, output * 0.9, output * 1.1, 3, "repeats"),
        "input_tokens_per_s": Estimate(inputs),
        "ttft_s_mean": Estimate(ttft),
        "input_tokens_mean": Estimate(prompt),
        "output_tokens_mean": Estimate(answer),
    }
    return PointResult(LoadPoint(mode="closed", concurrency=concurrency), 3, 10, {}, estimates, {}, ())


def test_the_whole_bill_over_output_tokens():
    # 2 GPUs at 3.60 USD/h are 0.002 USD/s; at 100 tokens/s that is 20 USD per million.
    found = cost.costs(point(), GPU_HOUR, 2, None)["usd_per_m_output_tokens"]
    assert found.value == pytest.approx(20.0)
    assert found.low == pytest.approx(20 / 1.1)
    assert found.high == pytest.approx(20 / 0.9)


def test_a_machine_price_is_not_multiplied():
    machine = Price(usd_per_hour=3.6, per="machine", source="test")
    assert cost.costs(point(), machine, 0, None)["usd_per_m_output_tokens"].value == pytest.approx(10.0)


def test_no_price_no_gpu_or_no_tokens_is_none():
    assert cost.costs(point(), None, 1, None)["usd_per_m_output_tokens"] is None
    assert cost.costs(point(), GPU_HOUR, 0, None)["usd_per_m_output_tokens"] is None
    assert cost.costs(point(output=0.0), GPU_HOUR, 1, None)["usd_per_m_output_tokens"] is None


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(0, 1))
def test_the_kinds_times_their_counts_are_the_bill(output, inputs, share):
    prefill = Estimate(share / inputs)
    found = cost.costs(point(output=output, inputs=inputs), GPU_HOUR, 1, prefill)
    if found["usd_per_m_input_tokens"] is None:
        return
    paid_in = found["usd_per_m_input_tokens"].value
    paid_out = 4 * found["usd_per_m_blended_tokens"].value - 3 * paid_in
    assert (inputs * paid_in + output * paid_out) / 1e6 == pytest.approx(3.6 / 3600, rel=1e-6)


def test_prefill_that_would_exceed_the_bill_is_not_split():
    found = cost.costs(point(), GPU_HOUR, 1, Estimate(1.0))
    assert found["usd_per_m_input_tokens"] is None
    assert found["usd_per_m_blended_tokens"] is None


def test_prefill_is_taken_apart_at_concurrency_one_or_from_answers_of_one_token():
    assert prefill.s_per_token([point(concurrency=8)]) is None
    assert prefill.s_per_token([point(concurrency=8), point()]).value == pytest.approx(0.002)
    alone = point(inputs=4000.0, answer=1.0, concurrency=8)
    assert prefill.s_per_token([point(), alone]).value == pytest.approx(1 / 4000)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf"])
def test_a_price_is_positive(text):
    with pytest.raises(InputError, match="positive"):
        prices.parse(text, None)


def test_a_number_is_per_gpu_where_there_is_one():
    assert prices.parse("2.49", "NVIDIA H100").per == "gpu"
    assert prices.parse("2.49", None).per == "machine"


def test_a_sheet(tmp_path):
    sheet = tmp_path / "prices.toml"
    row = '[[price]]\ngpu="H100"\nusd_per_hour=2.5\ndate="2026-11-01"\nsource="my contract"\n'
    sheet.write_text(row)
    found = prices.parse(str(sheet), "NVIDIA H100 80GB HBM3")
    assert (found.usd_per_hour, found.date, found.per) == (2.5, "2026-11-01", "gpu")
    with pytest.raises(InputError, match="no price for 'NVIDIA L4'; it has: H100"):
        prices.parse(str(sheet), "NVIDIA L4")
    sheet.write_text(row.replace("source", "sauce"))
    with pytest.raises(InputError, match=r"prices\.toml.*sauce"):
        prices.parse(str(sheet), "NVIDIA H100")
    with pytest.raises(InputError, match="neither a number"):
        prices.parse("nowhere.toml", None)


def test_a_simulated_board_has_no_price_but_a_number(tmp_path):
    sheet = tmp_path / "prices.toml"
    sheet.write_text('[[price]]\ngpu="H100"\nusd_per_hour=2.5\ndate="2026-11-01"\nsource="x"\n')
    board = "NVIDIA H100 80GB HBM3 (simulated)"
    with pytest.raises(InputError, match=r"prices\.toml: .*\(simulated\) is no real board"):
        prices.parse(str(sheet), board)
    assert prices.parse("2.5", board).usd_per_hour == 2.5
    assert prices.parse(str(sheet), board.removesuffix(" (simulated)")).usd_per_hour == 2.5


def test_a_sheet_names_gpus_by_whole_words_or_by_the_catalog(tmp_path):
    sheet = tmp_path / "prices.toml"
    offers = {"L4": 0.7, "A10": 0.5, "H100 SXM5 80GB": 2.0, "machine": 0.1}
    sheet.write_text(
        "".join(
            f'[[price]]\ngpu="{g}"\nusd_per_hour={p}\ndate="2026-11-01"\nsource="x"\n'
            for g, p in offers.items()
        )
    )
    assert prices.parse(str(sheet), "NVIDIA L4").usd_per_hour == 0.7
    assert prices.parse(str(sheet), "NVIDIA H100 80GB HBM3").usd_per_hour == 2.0
    assert prices.parse(str(sheet), None).usd_per_hour == 0.1
    for other in ("NVIDIA L40S", "NVIDIA A100-SXM4-80GB"):
        with pytest.raises(InputError, match="no price for"):
            prices.parse(str(sheet), other)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b'[[price]]\ngpu="L4"\nusd_per_hour=nan\ndate="d"\nsource="s"\n']
)
def test_a_broken_sheet_is_one_clear_error(tmp_path, content):
    sheet = tmp_path / "prices.toml"
    sheet.write_bytes(content)
    with pytest.raises(InputError, match=r"prices\.toml"):
        prices.parse(str(sheet), "NVIDIA L4")


def test_unknown_prompt_lengths_leave_the_split_unknown():
    blind = point()
    blind.estimates["input_tokens_mean"] = None
    assert prefill.s_per_token([blind]) is None
