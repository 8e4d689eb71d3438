"""The shipped prices and grids: dated, sourced, checked; the checks find the errors that aggregators made."""

from __future__ import annotations

import csv
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import catalog
from profiler.catalog import checks, gpu_offers, rows, token_prices
from profiler.catalog.entries import ApiOffer, Capex, PriceOffer
from profiler.errors import InputError
from profiler.report import listing, price_lists
from profiler.schema import Gpu
from tools import build_catalog

MIB = 1 << 20
TODAY = datetime.date(2026, 11, 22)


def spec(name: str) -> catalog.GpuSpec:
    return next(gpu for gpu in catalog.gpus() if gpu.gpu == name)


def gpu_offer(
    price: float, vendor: str = "V", kind: str = "on_demand", date: str = "2026-11-01"
) -> PriceOffer:
    return PriceOffer(gpu="X", vendor=vendor, kind=kind, price_per_gpu_hour=price, date=date, source="s")


def api_offer(inputs: float, output: float, provider: str, model: str = "some-model", **more) -> ApiOffer:
    fields = {"kind": "list", "per_m_cached_input": None, "date": "2026-01-01", "source": "s", **more}
    return ApiOffer(model=model, provider=provider, per_m_input=inputs, per_m_output=output, **fields)


def doubted(*offers: ApiOffer) -> list[str | None]:
    return [each.doubtful for each in token_prices.checked(offers)]


# ---------------------------------------------------------------------------------------- what is shipped


def test_every_row_is_dated_sourced_and_positive():
    assert len(catalog.gpu_prices()) == 160 + 7
    assert len(catalog.api_prices()) == 115 + 3
    assert len(catalog.capex_rows()) == 12
    for each in (*catalog.gpu_prices(), *catalog.api_prices(), *catalog.capex_rows()):
        assert each.source
        assert each.date
    assert all(each.price_per_gpu_hour > 0 for each in catalog.gpu_prices())
    assert all(0 < each.per_m_input <= each.per_m_output for each in catalog.api_prices())


@pytest.mark.parametrize(
    "name", ["gpu_prices.csv", "gpu_prices_cny.csv", "api_prices.csv", "api_prices_cny.csv"]
)
@pytest.mark.parametrize("lost", ["date", "source"])
def test_a_row_without_date_or_source_is_refused(tmp_path, name, lost):
    found = list(csv.DictReader((catalog.FOLDER / name).open(newline="")))
    found[1][lost] = ""
    path = tmp_path / name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    read = gpu_offers.read if name.startswith("gpu") else token_prices.read
    with pytest.raises(InputError, match=rf"line 3 .*{lost} is missing"):
        read(path)


def test_every_offer_belongs_to_a_gpu_we_know():
    named = {n for gpu in catalog.gpus() for group in gpu.price_names.split("|") for n in group.split(" + ")}
    assert {offer.gpu for offer in catalog.gpu_prices()} - named == {"A40"}, "no specification was found"
    assert {offer.kind for offer in catalog.gpu_prices()} <= gpu_offers.KINDS.keys()


# ------------------------------------------------------------------------------- GPU-hours: which count


def test_default_price_is_the_median_of_current_offers():
    """L40S: Nebius 1.55, RunPod community 0.79 and secure 1.09 of 2026-09; those of 2025-08 are too old."""
    price = catalog.default_price(spec("L40S 48GB"))
    assert price is not None
    assert (price.usd_per_hour, price.low_usd_per_hour, price.high_usd_per_hour) == (1.09, 0.79, 1.55)
    assert (price.per, price.kind, price.currency) == ("gpu", "on_demand", "USD")
    assert price.date == "2026-09-25"
    assert "3 on-demand offers" in price.source
    assert "Nebius" in price.source


def test_a_vendor_counts_once_with_its_newest_offer():
    found = catalog.offers(spec("H100 SXM5 80GB"))
    vendors = [offer.vendor for offer in found]
    assert len(vendors) == len(set(vendors))
    assert next(offer for offer in found if offer.vendor == "RunPod secure").date == "2026-11-09"
    assert not [offer for offer in found if "before June-2025 cut" in offer.vendor]
    assert {offer.kind for offer in found} == {"on_demand"}


def test_undated_offers_do_not_count_beside_dated_ones():
    nebius = [offer for offer in catalog.offers(spec("H100 SXM5 80GB")) if offer.vendor == "Nebius"]
    assert [offer.date for offer in nebius] == ["2026-09-25"]
    assert "2.95" not in str(nebius), "that of a commit without a date"
    assert [offer.date for offer in catalog.offers(spec("RTX A6000 48GB"))] == ["commit 0f40703"], (
        "the only one"
    )


def test_doubtful_offers_do_not_count():
    found = catalog.default_price(spec("B200 SXM 180GB"))
    assert found is not None
    assert found.high_usd_per_hour == 7.15, "not the 'market high' of 14.24"


def test_offers_that_leave_the_variant_open_count_only_alone():
    assert all(offer.gpu == "H100 SXM" for offer in catalog.offers(spec("H100 SXM5 80GB")))
    assert {offer.gpu for offer in catalog.offers(spec("A100 PCIe 40GB"))} == {"A100 40GB"}


def test_price_of_a_gpu_as_the_driver_reports_it():
    here = Gpu(uuid="x", name="NVIDIA H200", memory_bytes=143771 * MIB)
    assert catalog.default_price(here) == catalog.default_price(spec("H200 SXM 141GB"))
    assert catalog.default_price(Gpu(uuid="x", name="NVIDIA A10G", memory_bytes=23028 * MIB)) is None


def test_no_offer_in_usd_is_no_price():
    assert catalog.default_price(spec("H20 96GB")) is None
    assert catalog.offers(spec("H20 96GB"), rates={"CNY": 0.14})[0].price_per_gpu_hour == 7.5


def test_marketplace_averages_and_estimates_are_terms_of_their_own():
    h100 = spec("H100 SXM5 80GB")
    assert [offer.price_per_gpu_hour for offer in catalog.offers(h100, "marketplace")] == [2.4024], (
        "the newest"
    )
    assert {offer.price_per_gpu_hour for offer in catalog.offers(h100, "tco_own")} == {1.3, 1.69}
    assert "CoreWeave" not in {offer.vendor for offer in catalog.offers(h100)}, (
        "an average of H100s of all kinds"
    )


# ------------------------------------------------------------------------------------ GPU-hours: the checks


def test_real_hyperscaler_prices_are_believed():
    dear = {
        o.vendor: o.doubtful
        for o in catalog.gpu_prices()
        if o.gpu == "H100 SXM" and o.price_per_gpu_hour > 10
    }
    assert dear.keys() > {"GCP a3-highgpu-1g", "Azure ND96isr_H100_v5"}
    assert set(dear.values()) == {None}


def test_an_offer_far_from_all_others_is_doubted():
    others = [gpu_offer(price, vendor) for vendor, price in zip("ABC", (2.0, 2.2, 2.4), strict=True)]
    found = checks.doubts([*others, gpu_offer(17.6, "node"), gpu_offer(0.2, "typo"), gpu_offer(9.0, "dear")])
    assert found[:3] == [None] * 3
    assert "8 × the median of 5 other vendors (2.2)" in found[3]
    assert "1/12 of the median" in found[4]
    assert found[5] is None
    assert checks.doubts([gpu_offer(1, "A"), gpu_offer(99, "B")]) == [None, None], "two tell nothing"


def test_a_vendors_own_history_is_no_witness():
    old = [gpu_offer(2.0, "A", date=f"2026-0{month}-01") for month in range(1, 6)]
    assert checks.doubts([*old, gpu_offer(20.0, "B")])[-1] is None


def test_spot_dearer_than_on_demand_is_doubted():
    spot = gpu_offer(3.0, kind="spot")
    assert "spot dearer" in checks.doubts([gpu_offer(2.5), spot])[1]
    assert checks.doubts([gpu_offer(2.5, "other"), spot])[1] is None
    assert checks.doubts([gpu_offer(2.5, date="2025-01"), gpu_offer(3.5), spot])[2] is None, (
        "the newest counts"
    )


# ------------------------------------------------------------------------------------------------- tokens


def test_the_aggregators_known_errors_are_caught():
    """The rows the collected facts were warned of, beside what others ask for the same model."""
    llama = [api_offer(0.59, 0.79, name) for name in ("A", "B", "C")]
    groq = api_offer(0.59, 7.9, "Groq")
    assert [bool(each) for each in doubted(*llama, groq)] == [False, False, False, True]
    assert "13.4 × the input price" in (doubted(groq)[0] or ""), "even alone"

    wrong = {(each.model, each.provider) for each in catalog.api_prices() if each.doubtful}
    assert wrong == {
        ("qwen3-235b-a22b", "Fireworks"),
        ("qwen3-30b-a3b", "Fireworks"),
        ("deepseek-r1", "Fireworks"),
        ("deepseek-r1", "Together"),
        ("llama-3.1-70b-instruct", "SambaNova"),
        ("gpt-oss-120b", "OpenAI"),
        ("gpt-oss-20b", "OpenAI"),
    }


def test_the_same_error_is_caught_without_the_makers_price():
    """0.1/0.1 where others ask 0.2/0.6: a flat price for what nobody else sells flat."""
    others = [
        api_offer(0.2, 0.6, "DeepInfra"),
        api_offer(0.2, 0.8, "Novita"),
        api_offer(0.2, 0.6, "Together"),
    ]
    found = doubted(*others, api_offer(0.1, 0.1, "Fireworks"))
    assert found[:3] == [None] * 3
    assert found[3]


def test_one_price_for_both_is_doubted_where_nobody_else_has_one():
    others = [api_offer(0.2, 0.6, "A"), api_offer(0.2, 0.8, "B"), api_offer(0.25, 0.7, "C")]
    assert "output/input 0.333 × the median of 3 other providers (3)" in (
        doubted(*others, api_offer(0.2, 0.2, "flat"))[-1] or ""
    )
    flat = [api_offer(price, price, name) for name, price in zip("ABC", (0.6, 0.88, 0.89), strict=True)]
    assert doubted(*flat, api_offer(0.4, 0.4, "D")) == [None] * 4, "Llama 70B is sold so by most"


def test_a_withdrawn_price_is_nobodys():
    offers = [
        api_offer(0.14, 0.28, "A", date="until 2026-02-08"),
        api_offer(0.27, 1.1, "A", date="2026-01-01"),
    ]
    assert [offer.per_m_input for offer in token_prices._current(offers)] == [0.27]


def test_who_makes_a_model():
    assert token_prices.maker("Qwen/Qwen3-32B") == "Alibaba"
    assert token_prices.maker("deepseek-ai/DeepSeek-R1") == "DeepSeek"
    assert token_prices.maker("openai/gpt-oss-120b") is None, "open: OpenAI sells none of it"
    assert token_prices.maker("meta-llama/Llama-3.1-8B") is None


def test_the_maker_is_the_yardstick_where_many_are_wrong():
    own = api_offer(0.55, 2.19, "DeepSeek", "deepseek-r1")
    resold = [api_offer(8.0, 8.0, name, "deepseek-r1") for name in ("A", "B", "C")]
    found = doubted(own, *resold)
    assert found[0] is None
    assert all("the maker's (DeepSeek, 0.55)" in (each or "") for each in found[1:])


def test_what_no_offer_can_be():
    assert "output cheaper than input" in (doubted(api_offer(1.0, 0.5, "A"))[0] or "")
    cached = api_offer(1.0, 2.0, "A", per_m_cached_input=1.5)
    assert doubted(cached) == ["cached input dearer than input"]
    early = api_offer(0.1, 0.5, "A", "gpt-oss-120b", date="2025-07-19")
    assert "before the model was published (2025-08)" in (doubted(early)[0] or "")
    assert doubted(api_offer(0.1, 0.5, "A", "gpt-oss-120b", date="2025")) == [None], (
        "a year is not before its August"
    )


@given(st.lists(st.tuples(st.floats(0.1, 1.0), st.floats(1.0, 2.0)), min_size=1, max_size=6))
def test_prices_that_agree_are_never_doubted(pairs):
    offers = [api_offer(inputs, inputs * steep, str(place)) for place, (inputs, steep) in enumerate(pairs)]
    near = all(0.21 <= one.per_m_output / other.per_m_output <= 4.7 for one in offers for other in offers)
    near &= all(0.21 <= one.per_m_input / other.per_m_input <= 4.7 for one in offers for other in offers)
    if near:
        assert doubted(*offers) == [None] * len(offers)


@pytest.mark.parametrize(
    ("name", "providers"),
    [
        ("Qwen/Qwen3-30B-A3B", {"DeepInfra", "Novita"}),
        ("qwen3-30b-a3b", {"DeepInfra", "Novita"}),
        ("Qwen/Qwen3-30B-A3B-FP8", {"DeepInfra", "Novita"}),  # the number format is the same model
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", {"Alibaba"}),  # another model
        ("Qwen/Qwen2.5-72B-Instruct", {"Together", "DeepInfra", "Fireworks", "Hyperbolic"}),  # qwen-2.5-… too
        ("meta-llama/Meta-Llama-3.1-405B-Instruct", {"Together"}),  # the list says …-fp8
        ("openai/gpt-oss-20b", {"Groq", "Novita"}),
        ("gpt-4o", {"OpenAI"}),
        ("claude-3-5-sonnet", {"Anthropic"}),
        ("Qwen/Qwen3-30B-A3B-Base", set()),
        ("Qwen/Qwen3-4B", set()),
    ],
)
def test_who_sells_a_model(name, providers):
    assert {offer.provider for offer in catalog.api_offers(name)} == providers


def test_offers_of_tokens_are_current_and_one_a_provider():
    (deepseek,) = catalog.api_offers("deepseek-ai/DeepSeek-R1")
    assert (deepseek.date, deepseek.usd_per_m_cached_input) == ("2026-08-05", 0.14)
    assert [offer.usd_per_m_output for offer in catalog.api_offers("qwen-max")] == [6.4], "not 30 of 2024"
    assert [offer.usd_per_m_output for offer in catalog.api_offers("qwen-max", kind="batch")] == [3.2]
    assert [offer.usd_per_m_input for offer in catalog.api_offers("deepseek-chat")] == [0.27], (
        "0.14 has ended"
    )


def test_an_offer_in_yuan_needs_a_rate():
    plain = {offer.provider for offer in catalog.api_offers("Qwen/Qwen3-235B-A22B")}
    rated = catalog.api_offers("Qwen/Qwen3-235B-A22B", {"CNY": 0.14})
    assert {offer.provider for offer in rated} - plain == {"Alibaba (China)"}
    (chinese,) = [offer for offer in rated if offer.provider == "Alibaba (China)"]
    assert (chinese.usd_per_m_input, chinese.usd_per_m_output) == (pytest.approx(0.28), pytest.approx(1.12))
    assert chinese.source.endswith("2/8 CNY at 0.14 USD")


def test_own_token_prices_stand_for_the_catalogs(tmp_path):
    sheet = tmp_path / "api.csv"
    sheet.write_text(
        "model,provider,usd_per_m_input,usd_per_m_output,usd_per_m_cached_input,date,source\n"
        "gpt-4o,us,2.0,8.0,0.5,2026-11-01,contract\n"
    )
    (own,) = catalog.api_offers("gpt-4o", sheet=str(sheet))
    assert (own.provider, own.usd_per_m_output, own.usd_per_m_cached_input) == ("us", 8.0, 0.5)
    assert catalog.api_offers("o1", sheet=str(sheet)) == catalog.api_offers("o1")
    table = tmp_path / "api.toml"
    table.write_text(
        '[rates]\nEUR = 2.0\n[[price]]\nmodel = "gpt-4o"\nprovider = "us"\neur_per_m_input = 4.0\n'
        'eur_per_m_output = 2.0\ndate = 2026-11-01\nsource = "x"\n'
    )
    (dear,) = catalog.api_offers("gpt-4o", sheet=str(table))
    assert (dear.usd_per_m_input, dear.usd_per_m_output) == (8.0, 4.0)
    assert "output cheaper than input" in dear.doubtful, "told, and counted: it is the user's"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("m,,1,2,,2026,x", "provider is missing"),
        ("m,p,0,2,,2026,x", "usd_per_m_input is 0; a price is positive"),
        ("m,p,1,,,2026,x", "usd_per_m_output is missing"),
        ("m,p,1,2,,,x", "date is missing"),
        ("m,p,1,2,,2026,", "source is missing"),
    ],
)
def test_wrong_token_prices_are_one_clear_line(tmp_path, row, said):
    sheet = tmp_path / "api.csv"
    header = "model,provider,usd_per_m_input,usd_per_m_output,usd_per_m_cached_input,date,source"
    sheet.write_text(f"{header}\n{row}\n")
    with pytest.raises(InputError, match=rf"api\.csv: line 2 \(m\): {said}"):
        catalog.api_offers("m", sheet=str(sheet))
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        catalog.api_offers("m", sheet=str(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    ("model", "source", "said"),
    [
        (
            "qwen-max (batch -50%)",
            "Alibaba Cloud Model Studio pricing page",
            ("qwen-max", "Alibaba", "batch"),
        ),
        ("qwen3-14b fp8 (DeepInfra)", "x via OpenRouter", ("qwen3-14b", "DeepInfra", "list")),
        ("m", "x llm-stats:novita (fp8)", ("m", "Novita", "list")),
        ("m", "x; orig https://openrouter.ai/deepseek/m", ("m", "OpenRouter", "list")),
        ("deepseek-reasoner (R1)", "simonw/llm-prices", ("deepseek-r1", "DeepSeek", "list")),
    ],
)
def test_who_asks_is_read_from_a_fact(model, source, said):
    fact = {"model": model, "usd_per_m_input": "1", "usd_per_m_output": "2", "date": "2026", "source": source}
    row = build_catalog.api_price(fact)
    assert (row["model"], row["provider"], row["kind"]) == said
    assert build_catalog.api_price(row) == row


# ---------------------------------------------------------------------------------------- hardware, grids


def test_hardware():
    node, share = catalog.capex("NVIDIA H100 80GB HBM3")
    assert (node.usd, node.gpus, node.usd_per_gpu, node.scope) == (300_000, 8, 37_500, "node")
    assert (share.usd_per_gpu, share.scope) == (33_600, "server share")
    assert [each.scope for each in catalog.capex("RTX 4090 24GB")] == ["card"]
    assert catalog.capex("NVIDIA A10G") == ()
    assert all(each.doubtful is None for each in catalog.capex_rows())


def test_hardware_is_checked_against_what_renting_costs():
    def node(usd: float) -> Capex:
        return Capex(item="i", gpu="g", gpus=8, scope="node", usd=usd, date="2025", source="s")

    assert checks.capex_doubt(node(300_000), 4.0) is None
    assert "938 hours of rent" in (checks.capex_doubt(node(30_000), 4.0) or "")
    assert "93,750 hours of rent" in (checks.capex_doubt(node(3_000_000), 4.0) or "")
    assert checks.capex_doubt(node(3_000_000), None) is None


def test_grids_are_sourced_and_of_a_year():
    assert len(catalog.grids()) == 38
    for each in catalog.grids():
        assert each.source
        assert 2023 <= each.year <= 2026
        assert 20 < each.g_co2e_per_kwh < 800
    words = [word for each in catalog.grids() for word in (each.name, *each.aliases.split("|"))]
    assert len({word.casefold() for word in words}) == len(words), "one name, one grid"


def test_a_grid_is_found_by_its_names():
    assert catalog.grid("Germany") == catalog.grid("de") == catalog.grid(" DEU ")
    assert catalog.grid("germany").g_co2e_per_kwh == 342.06
    # EPA eGRID2023: 596.326 lb CO2e/MWh for SRVC, at 453.59237 g a pound.
    assert catalog.grid("us-east-1").g_co2e_per_kwh == pytest.approx(596.326 * 0.45359237, abs=0.05)
    assert catalog.grid("Virginia").scope == "direct"
    with pytest.raises(InputError, match=r"no grid 'Germani' in the catalog \(did you mean 'Germany'\?\)"):
        catalog.grid("Germani")


# ------------------------------------------------------------------------------------------------- dates


@pytest.mark.parametrize(
    ("written", "days"),
    [
        ("2026-11-09", 13),
        ("2026-11", 21),
        ("2025", 690),
        ("2023-07..2025-05", 570),
        ("from 2025-02-08", 652),
        ("commit 0082b04", None),
        ("2026 (undated)", None),
        ("undated docs", None),
        ("2026-13-01", None),
    ],
)
def test_age(written, days):
    assert rows.age_days(written, TODAY) == days


# ----------------------------------------------------------------------------------------------- listing


def test_the_list_of_prices_marks_what_counts_what_is_old_and_what_is_doubtful():
    listed = price_lists.list_prices(TODAY)
    assert len(listed) == len(catalog.gpu_prices())
    marks = {(each["gpu"], each["vendor"], each["date"]): each["mark"] for each in listed}
    assert marks["H100 SXM", "RunPod secure", "2026-11-09"] == "*"
    assert marks["H100 SXM", "RunPod secure", "2026-09-25"] == ""
    assert marks["H100 SXM", "AWS p5 ($98.32/8, before June-2025 cut)", "2023-07..2025-05"] == "!"
    assert marks["B200 SXM", "market high", "2026-04-13"] == "?!"
    assert marks["RTX A6000", "Lambda", "commit 0f40703"] == "*!"
    by_age = {each["date"]: each["age_days"] for each in listed}
    assert (by_age["2026-11-09"], by_age["undated docs"]) == (13, None)


@pytest.mark.parametrize("what", ["prices", "api-prices", "capex", "grids"])
def test_a_list_of_prices_warns_of_old_ones_and_all_fit_a_terminal(what):
    text = listing.render(listing.LISTINGS[what](), as_json=False)
    assert max(map(len, text.splitlines())) <= 100
    assert ("are undated or more than 180 days old" in text) == (what != "grids")


def test_doubts_and_currencies_are_told_below():
    text = listing.render(listing.LISTINGS["api-prices"](), as_json=False)
    assert "qwen3-235b-a22b, Fireworks, 0.1/0.1: output 0.0357 × the maker's (Alibaba, 2.8)" in text
    assert "CNY: counted only with a rate of yours (rates.CNY" in text


def test_columns_stand_under_each_other_whatever_the_script():
    text = listing.render(listing.LISTINGS["prices"](), as_json=False).splitlines()
    chinese = next(line for line in text if "恒源云" in line)
    assert listing._width(chinese.partition("rental_cheapest")[0]) == text[0].index("kind")


def test_json_has_everything():
    for what in ("prices", "api-prices", "capex", "grids"):
        assert all(each["source"] for each in listing.LISTINGS[what]())
        assert "source" not in listing.render(listing.LISTINGS[what](), as_json=False).splitlines()[0]
