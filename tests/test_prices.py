"""Price sheets: what is read, what is refused, what an hour costs on which terms."""

from __future__ import annotations

import datetime
import os
import re
import time
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import catalog, prices
from profiler.catalog import gpu_offers
from profiler.errors import InputError
from profiler.prices import Missing
from profiler.schema import Price

H100 = "NVIDIA H100 80GB HBM3"
HEADER = "gpu,vendor,kind,usd_per_gpu_hour,date,source\n"
AMOUNTS = st.floats(0.01, 100).map(lambda value: round(value, 3))


def row(gpu="H100", usd: object = 2.5, date="2026-11-01", source="my contract", **more: object) -> str:
    fields = {"gpu": gpu, "usd_per_hour": usd, "date": date, "source": source, **more}
    words = (
        f"{key} = {value if isinstance(value, float | int) else repr(value)}" for key, value in fields.items()
    )
    return "[[price]]\n" + "\n".join(word for word in words if not word.endswith("None")) + "\n"


@pytest.fixture
def sheet(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text(row())
    return path


# ------------------------------------------------------------------------------------ a number, a sheet


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf"])
def test_a_price_is_positive(text):
    with pytest.raises(InputError, match="positive"):
        prices.parse(text, None)


def test_a_number_is_per_gpu_where_there_is_one():
    assert prices.parse("2.49", "NVIDIA H100").per == "gpu"
    assert prices.parse("2.49", None).per == "machine"


def test_a_sheet(sheet):
    found = prices.parse(str(sheet), H100)
    assert (found.usd_per_hour, found.date, found.per) == (2.5, "2026-11-01", "gpu")
    assert found.source == "prices.toml: my contract"
    assert found.low_usd_per_hour is None, "one offer is no interval"
    with pytest.raises(InputError, match="no price for 'NVIDIA L4'; it has: H100"):
        prices.parse(str(sheet), "NVIDIA L4")
    assert "no price for 'NVIDIA L4'; it has: H100" in prices.quote("NVIDIA L4", given=str(sheet)).reason
    with pytest.raises(InputError, match="neither a number"):
        prices.parse("nowhere.toml", None)
    with pytest.raises(InputError, match="neither a number"):
        prices.quote(H100, given="nowhere.toml")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (row().replace("source", "sauce"), r"unknown key 'sauce' \(did you mean 'source'\?\)"),
        (row(source=""), "source is missing"),
        (row(date=""), r"date is missing \(when the price was seen: YYYY-MM-DD\)"),
        (row(date="yesterday"), "date is 'yesterday'"),
        (row(usd=0), "usd_per_hour is 0; a price is positive"),
        (row(usd=-2), "positive"),
        (row(usd="cheap"), "usd_per_hour is 'cheap', not a number"),
        (row().replace("2.5", "nan"), "positive"),
        (row().replace("usd_per_hour", "usx_per_hour"), "'usx' is no currency known here"),
        (row(usd=None, price_per_hour=2.0, currency="YEN"), "'YEN' is no currency"),
        (row(usd=None, price_per_hour=2.0), "currency is missing"),
        (row(currency="EUR"), "currency goes with price_per_hour"),
        (row(price_per_hour=2.0, currency="EUR"), "two prices"),
        (row(usd=None), "usd_per_hour is missing"),
        (row(kind="on demand"), r"unknown kind 'on demand' \(did you mean 'on_demand'\?\)"),
        (row() + "[rates]\nEURO = 1.1\n", "'EURO' is no currency"),
        (row() + "[rates]\nEUR = 0.0\n", "EUR is 0"),
        ("[[prices]]\n", "made of"),
        ("price = 3\n", "made of"),
        ("price = [3]\n", "made of"),
        ("rates = 3\n", "made of"),
        ("", "no price in it"),
        ("[[price]\n", "not valid TOML"),
    ],
)
def test_a_wrong_sheet_is_one_clear_line(sheet, wrong, said):
    sheet.write_text(wrong)
    with pytest.raises(InputError, match=rf"prices\.toml.*{said}") as error:
        prices.parse(str(sheet), H100)
    assert "\n" not in str(error.value)


def test_the_error_says_which_row(sheet):
    sheet.write_text(row() + row(gpu="L4", usd=-1))
    with pytest.raises(InputError, match=r"\[\[price\]\] 2 \(L4\): usd_per_hour is -1"):
        prices.parse(str(sheet), H100)
    table = sheet.with_suffix(".csv")
    table.write_text(HEADER + "H100,me,on_demand,2.5,2026-11-01,x\nL4,me,on_demand,0.8,,x\n")
    with pytest.raises(InputError, match=r"prices\.csv: line 3 \(L4\): date is missing"):
        prices.parse(str(table), H100)


def test_bytes_that_are_no_text(sheet):
    sheet.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"prices\.toml"):
        prices.parse(str(sheet), H100)


def test_a_csv_sheet_has_the_catalogs_columns(tmp_path):
    sheet = tmp_path / "prices.csv"
    sheet.write_bytes((catalog.FOLDER / "gpu_prices.csv").read_bytes())
    assert prices.quote(H100, given=str(sheet)).usd_per_hour == prices.quote(H100).usd_per_hour
    sheet.write_text(HEADER + 'H100 SXM,"me, and you",spot,1.5,2026-11-01,x,y\n')
    with pytest.raises(InputError, match="line 2 has more cells"):
        prices.parse(str(sheet), H100)


def test_a_csv_sheet_as_a_spreadsheet_writes_it(tmp_path):
    sheet = tmp_path / "prices.csv"
    sheet.write_bytes(
        b"\xef\xbb\xbf" + b"gpu, usd_per_hour ,date,source\r\nH100, 2.5,2026-11-01,my contract\r\n\r\n"
    )
    assert prices.parse(str(sheet), H100).usd_per_hour == 2.5
    sheet.write_text("gpu;usd_per_hour;date;source\nH100;2,5;2026-11-01;x\n")
    with pytest.raises(InputError, match="separated by semicolons; write commas"):
        prices.parse(str(sheet), H100)
    sheet.write_text(HEADER)
    with pytest.raises(InputError, match="no price in it"):
        prices.parse(str(sheet), H100)


def test_a_toml_date_is_a_date(sheet):
    sheet.write_text(row().replace("'2026-11-01'", "2026-11-01"))
    assert prices.parse(str(sheet), H100).date == "2026-11-01"


# ------------------------------------------------------------------------------------------- which rows


def test_a_simulated_board_has_no_price_but_a_number(sheet):
    board = f"{H100} (simulated)"
    with pytest.raises(InputError, match=r"prices\.toml: .*\(simulated\) is no real board"):
        prices.parse(str(sheet), board)
    assert prices.parse("2.5", board).usd_per_hour == 2.5
    assert prices.parse(str(sheet), H100).usd_per_hour == 2.5
    assert "no real board" in prices.quote(board).reason


def test_a_sheet_names_gpus_by_whole_words_or_by_the_catalog(sheet):
    offers = {"L4": 0.7, "A10": 0.5, "H100 SXM5 80GB": 2.0, "H100": 9.0, "machine": 0.1}
    sheet.write_text("".join(row(gpu=gpu, usd=price) for gpu, price in offers.items()))
    assert prices.parse(str(sheet), "NVIDIA L4").usd_per_hour == 0.7
    assert prices.parse(str(sheet), H100).usd_per_hour == 2.0, "the longest name that fits"
    assert prices.parse(str(sheet), None).usd_per_hour == 0.1
    assert prices.parse(str(sheet), None).per == "machine"
    for other in ("NVIDIA L40S", "NVIDIA A100-SXM4-80GB"):
        with pytest.raises(InputError, match="no price for"):
            prices.parse(str(sheet), other)


@pytest.mark.parametrize(
    ("written", "driver"),
    [
        ("H100 SXM", H100),  # as the catalog's price lists
        ("A100-80GB", "NVIDIA A100-SXM4-80GB"),  # as people write it
        ("GB200 NVL72 (per GPU)", "GB200 NVL72 (per GPU)"),  # as a plan asks
        ("h20", "NVIDIA H20"),
    ],
)
def test_names_of_a_gpu(sheet, written, driver):
    sheet.write_text(row(gpu=written))
    assert prices.parse(str(sheet), driver).usd_per_hour == 2.5


def test_a_vendors_newer_row_replaces_its_older_one(sheet):
    sheet.write_text(row(usd=4.0, date="2026-05-01") + row(usd=3.0))
    assert prices.parse(str(sheet), H100).usd_per_hour == 3.0
    sheet.write_text(row(usd=4.0, vendor="A", date="2026-05-01") + row(usd=2.0, vendor="B"))
    found = prices.parse(str(sheet), H100)
    assert (found.usd_per_hour, found.low_usd_per_hour, found.high_usd_per_hour) == (3.0, 2.0, 4.0)
    assert found.source == "prices.toml: median of 2 on-demand offers (A, B)"
    assert found.date == "2026-05-01 to 2026-11-01"


def test_a_withdrawn_price_is_not_current(sheet):
    sheet.write_text(row(usd=2.0, vendor="A", date="until 2026-11-05") + row(usd=3.0, vendor="B"))
    assert prices.parse(str(sheet), H100).usd_per_hour == 3.0


def test_an_undated_row_counts_only_alone(sheet):
    sheet.write_text(row(usd=1.0, vendor="A", date="undated") + row(usd=3.0, vendor="B"))
    assert prices.parse(str(sheet), H100).usd_per_hour == 3.0
    sheet.write_text(row(usd=1.0, date="undated"))
    assert prices.parse(str(sheet), H100).usd_per_hour == 1.0


def test_kinds_are_kept_apart(sheet):
    sheet.write_text(row(usd=3.0) + row(usd=1.0, kind="spot"))
    assert prices.parse(str(sheet), H100).usd_per_hour == 3.0
    spot = prices.quote(H100, "spot", str(sheet))
    assert (spot.usd_per_hour, spot.kind) == (1.0, "spot")
    missing = prices.quote(H100, "reserved", str(sheet))
    assert "has no reserved price for" in missing.reason
    assert "it has: on_demand, spot" in missing.reason


def test_the_only_kind_of_a_sheet_is_the_price_of_a_run(sheet):
    sheet.write_text(row(usd=1.9, kind="rental_3yr"))
    found = prices.parse(str(sheet), H100)
    assert (found.usd_per_hour, found.kind) == (1.9, "rental_3yr")


# ------------------------------------------------------------------------------------------- currencies


def test_another_currency_needs_a_rate(sheet):
    sheet.write_text(row(usd=None, price_per_hour=3.0, currency="EUR"))
    with pytest.raises(InputError, match=r"is in EUR: give rates\.EUR \(USD for one EUR\)"):
        prices.parse(str(sheet), H100)
    found = prices.quote(H100, given=str(sheet), rates={"EUR": 1.1})
    assert (found.usd_per_hour, found.currency) == (pytest.approx(3.3), "EUR")
    assert "3 EUR at 1.1 USD" in found.source
    sheet.write_text(row(usd=None, eur_per_hour=3.0) + "[rates]\nEUR = 1.2\n")
    assert prices.parse(str(sheet), H100).usd_per_hour == pytest.approx(3.6)
    assert prices.quote(H100, given=str(sheet), rates={"EUR": 1.0}).usd_per_hour == pytest.approx(3.0)


def test_a_gpu_that_is_only_offered_in_yuan(sheet):
    reason = prices.quote("NVIDIA H20").reason
    assert "H20 96GB in USD" in reason
    assert "7.5 CNY: give rates.CNY" in reason
    found = prices.quote("NVIDIA H20", rates={"CNY": 0.14})
    assert found.usd_per_hour == pytest.approx(1.05)
    assert found.currency == "CNY"
    assert "7.5 CNY at 0.14 USD" in found.source
    assert prices.quote("NVIDIA L40S", rates={"CNY": 0.14}) == prices.quote("NVIDIA L40S"), "USD first"


@pytest.mark.parametrize("rates", [{"YUAN": 0.14}, {"CNY": 0.0}, {"CNY": float("nan")}])
def test_a_rate_that_is_none(rates):
    with pytest.raises(InputError, match="rates"):
        prices.quote("NVIDIA H20", rates=rates)


# ---------------------------------------------------------------------------------------- the catalog's


def test_the_catalogs_price_is_the_default_price():
    found = prices.quote("NVIDIA H200", memory_bytes=143771 << 20)
    assert found == catalog.default_price(catalog.named("NVIDIA H200"))
    offers = prices.offers("NVIDIA H200")
    assert found.usd_per_hour == median(offer.price_per_gpu_hour for offer in offers)
    assert found.low_usd_per_hour == min(offer.price_per_gpu_hour for offer in offers)
    assert len({offer.vendor for offer in offers}) == len(offers)


def test_memory_tells_variants_apart():
    assert isinstance(prices.quote("NVIDIA H200", memory_bytes=90 << 30), Missing)


@pytest.mark.parametrize(
    ("gpu", "kind", "said"),
    [
        (
            None,
            "on_demand",
            "without GPU has no list price: give USD per machine-hour .*profile import --gpu",
        ),
        ("NVIDIA A10G", "on_demand", "the catalog knows no 'NVIDIA A10G': give USD per GPU-hour"),
        ("NVIDIA L40S", "reserved", r"no reserved offer of L40S 48GB in USD \(there are: on_demand, spot, s"),
        ("NVIDIA L20", "on_demand", "no on-demand offer of L20 48GB in USD: give"),
    ],
)
def test_no_price_says_why_and_what_to_do(gpu, kind, said):
    assert re.search(said, prices.quote(gpu, kind).reason)


def test_reserved_is_a_rental_for_years_before_a_reservation_of_days():
    assert prices.quote(H100, "reserved").usd_per_hour == 1.3
    assert prices.quote("NVIDIA A100-SXM4-40GB", "reserved").usd_per_hour == 1.844
    assert prices.quote(H100, "reservation").usd_per_hour == 4.916


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="unknown kind of price 'spott'"):
        prices.quote(H100, "spott")


def test_a_price_far_from_the_market_is_doubted_not_refused(sheet):
    node = prices.parse("31.92", H100)
    assert node.usd_per_hour == 31.92
    assert re.search(
        r"31\.92 USD per hour of one H100 SXM5 80GB is 8 × the median of \d+ vendors", node.doubt
    )
    assert prices.parse("3.99", H100).doubt is None
    assert prices.parse("31.92", "Tenstorrent Wormhole").doubt is None, "nothing to compare with"
    sheet.write_text(row(usd=0.4))
    assert "is 1/9.97 of the median" in prices.parse(str(sheet), H100).doubt
    assert prices.quote(H100).doubt is None


def test_rows_that_contradict_each_other_are_doubted(sheet):
    sheet.write_text(row(usd=2.5, vendor="A") + row(usd=2.9, vendor="A", kind="spot"))
    assert prices.quote(H100, "spot", str(sheet)).doubt.startswith(
        "2.9 USD: spot dearer than the same vendor's on-demand 2.5"
    )
    assert prices.parse(str(sheet), H100).doubt is None


# --------------------------------------------------------------------------------------------- the cache


def test_a_changed_sheet_is_read_again(sheet):
    assert prices.parse(str(sheet), H100).usd_per_hour == 2.5
    sheet.write_text(row(usd=2.6))
    os.utime(sheet, ns=(1, 1))
    assert prices.parse(str(sheet), H100).usd_per_hour == 2.6


def test_a_sheet_is_read_once_for_thousands_of_rows(sheet, monkeypatch):
    prices.quote(H100, given=str(sheet))
    monkeypatch.setattr(gpu_offers, "offer", None)
    for _ in range(1000):
        assert prices.quote(H100, given=str(sheet)).usd_per_hour == 2.5


@pytest.mark.timing
def test_thousands_of_quotes_take_no_time(sheet):
    prices.quote(H100)
    began = time.perf_counter()
    for _ in range(10_000):
        prices.quote(H100)
        prices.quote(H100, given=str(sheet))
    assert time.perf_counter() - began < 1.0


# -------------------------------------------------------------------------------------------- properties


@given(st.dictionaries(st.sampled_from("ABCDEFG"), AMOUNTS, min_size=1))
def test_a_price_lies_between_its_offers(vendors):
    offers = [
        catalog.PriceOffer(
            gpu="X", vendor=vendor, kind="on_demand", price_per_gpu_hour=usd, date="2026-11-01", source="s"
        )
        for vendor, usd in vendors.items()
    ]
    found = gpu_offers.price_of(gpu_offers.current(offers), "on_demand", "test: ")
    assert found.low_usd_per_hour <= found.usd_per_hour + 1e-4
    assert found.usd_per_hour <= found.high_usd_per_hour + 1e-4
    assert (found.low_usd_per_hour, found.high_usd_per_hour) == (min(vendors.values()), max(vendors.values()))


@given(AMOUNTS, st.floats(0.001, 100))
def test_a_rate_scales_a_price(amount, rate):
    offer = catalog.PriceOffer(
        gpu="X",
        vendor="V",
        kind="on_demand",
        price_per_gpu_hour=amount,
        currency="CNY",
        date="2026",
        source="s",
    )
    found = gpu_offers.price_of([offer], "on_demand", "test: ", {"CNY": rate})
    assert found.high_usd_per_hour == pytest.approx(amount * rate)


@given(AMOUNTS, st.integers(1, 64))
def test_a_price_per_gpu_is_multiplied_and_a_machines_is_not(usd, gpus):
    per_gpu = Price(usd_per_hour=usd, per="gpu", source="test")
    machine = Price(usd_per_hour=usd, per="machine", source="test")
    assert prices.usd_per_s(per_gpu, gpus) == pytest.approx(gpus * usd / 3600)
    assert prices.usd_per_s(machine, gpus) == pytest.approx(usd / 3600)
    assert prices.usd_per_s(per_gpu, 0) is None
    assert prices.usd_per_s(None, gpus) is None


# --------------------------------------------------------------------------------------------------- age


def test_an_old_price_says_so():
    today = datetime.date(2026, 11, 22)
    fresh = Price(usd_per_hour=1, per="gpu", source="s", date="2026-09-01")
    assert prices.age_note(fresh, today) is None
    old = Price(usd_per_hour=1, per="gpu", source="s", date="2024-12 to 2025-08")
    assert prices.age_note(old, today) == "the price is of 2024-12 to 2025-08, 16 months old"
    undated = Price(usd_per_hour=1, per="gpu", source="s", date="commit 0f40703")
    assert prices.age_note(undated, today) == "the price is undated (commit 0f40703)"
    assert prices.age_note(Price(usd_per_hour=1, per="gpu", source="given with --price"), today) is None
