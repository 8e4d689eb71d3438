from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.cost import listed, terms
from profiler.cost.terms import Terms
from profiler.errors import InputError

SHEET = """
basis = "owned"
utilization = "40%"
blend = "2:1"

[owned]
life_years = 5
node_price = 250_000

[rates]
CNY = 0.14
"""


@pytest.fixture
def sheet(tmp_path):
    path = tmp_path / "ours.toml"
    path.write_text(SHEET)
    return path


def test_nothing_said_is_the_default():
    assert terms.read() == Terms() == terms.read(price=None, utilization=None)
    assert (Terms().utilization, Terms().blend, Terms().basis) == (1.0, (0.75, 0.25), "rented")
    assert Terms().whose("owned.life_years") == "default"


def test_a_file_then_words_then_options(sheet):
    found = terms.read([str(sheet), "owned.life_years=6", "rates.EUR=1.1"], basis="spot", pue="1.2")
    assert (found.basis, found.utilization, found.pue) == ("spot", 0.4, 1.2)
    assert (found.owned.life_years, found.owned.node_price) == (6, 250_000)
    assert found.rates == {"CNY": 0.14, "EUR": 1.1}
    assert found.blend == pytest.approx((2 / 3, 1 / 3))
    assert [found.whose(name) for name in ("basis", "owned.life_years", "owned.node_price", "grid")] == [
        "--basis",
        "--terms",
        "ours.toml",
        "default",
    ]


def test_words_may_be_quoted_as_in_a_file():
    found = terms.read(["basis='owned'", 'grid="Germany"', 'blend="1:1"', "owned={life_years = 6}"])
    assert (found.basis, found.grid, found.blend, found.owned.life_years) == (
        "owned",
        "Germany",
        (0.5, 0.5),
        6,
    )


def test_paths_in_a_file_are_beside_it(tmp_path, monkeypatch):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "day.csv").write_text("1\n" * 12 + "3\n" * 12)
    (tmp_path / "ours" / "prices.toml").write_text("")
    (tmp_path / "ours" / "t.toml").write_text('utilization = "day.csv"\nprice = "prices.toml"\n')
    monkeypatch.chdir(tmp_path)
    found = terms.read(["ours/t.toml"])
    assert found.utilization == pytest.approx(2 / 3)
    assert found.price == "ours/prices.toml"
    assert terms.read(utilization="ours/day.csv").load_profile == (1.0,) * 12 + (3.0,) * 12


def test_a_share_said_later_takes_the_place_of_a_profile():
    day = "load_profile=[" + ",".join(["1", "3"] * 12) + "]"
    assert terms.read([day]).utilization == pytest.approx(2 / 3)
    found = terms.read([day], utilization="50%")
    assert (found.utilization, found.load_profile) == (0.5, ())
    assert len(terms.read(["utilization=0.5", day]).load_profile) == 24


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.floats(0, 1e6))
def test_a_ratio_is_made_shares_that_sum_to_one(one, other, third):
    found = terms.read([f"blend={one}:{other}:{third}"]).blend
    assert sum(found) == pytest.approx(1)
    assert found[0] * other == pytest.approx(found[1] * one)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("price=0", "--terms: price 0: a price is a positive number"),
        ("price=nan", "price nan: a price is a positive"),
        ("price=x.toml", "price x.toml: neither a number"),
        ("utilization=0", "utilization 0: expected a share of the paid time in (0, 1]"),
        ("utilization=1.01", "utilization 1.01: expected a share"),
        ("utilization=x.csv", "utilization x.csv: no such file"),
        ("pue=0.99", "pue: expected a number >= 1.0, got 0.99"),
        ("pue=nan", "pue: expected a finite number below 1e+18, got nan"),
        ("pue=low", "pue: expected a number, got 'low'"),
        ("blend=0.7/0.2", "blend 0.7/0.2: shares sum to 0.9, not to 1; a ratio is written 3:1"),
        ("blend=[3, 1]", "shares sum to 4, not to 1"),
        ("blend=3", "blend 3: expected input:output"),
        ("blend=0:0", "blend 0:0: expected input:output"),
        ("blend=-1:2", "blend -1:2: expected input:output"),
        ("basis=rent", "basis rent: no such basis (did you mean 'rented'?)"),
        ("utilisation=0.4", "unknown key utilisation (did you mean 'utilization'?)"),
        ("life_years=4", "unknown key life_years (did you mean 'owned.life_years'?)"),
        ("owned.lifeyears=4", "unknown key owned.lifeyears (did you mean 'owned.life_years'?)"),
        ("said.pue=x", "unknown key said"),
        ("owned=3", "owned: expected a table, got 3"),
        ("owned.residual_frac=1", "owned.residual_frac: expected a number < 1.0, got 1"),
        ("owned.gpus_per_node=2.5", "owned.gpus_per_node: expected a whole number, got 2.5"),
        ("rates.CYN=0.14", "rates.CYN: unknown currency (did you mean 'CNY'?)"),
        ("rates.CNY=0", "rates.CNY: expected USD for one CNY, a number > 0, got 0"),
        ("tariff_usd_per_kwh=-1", "tariff_usd_per_kwh: expected a number > 0.0, got -1"),
        ("grid=-5", "grid -5: expected gCO2e per kWh"),
        ("grid=Narnia", "Narnia"),
        ("load_profile=[1, 2]", "24 hourly weights, found 2"),
        ("=3", "--terms =3: expected key=value"),
        ("owned.=3", "--terms owned.=3: expected key=value"),
        ("ours.toml", "--terms ours.toml: neither key=value nor a TOML file that exists"),
    ],
)
def test_what_cannot_be_meant_is_one_line(word, message):
    with pytest.raises(InputError) as caught:
        terms.read([word])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_is_named_as_it_was_written():
    for options, message in (
        ({"price": "0"}, "--price 0: a price is a positive number"),
        ({"utilization": "140%"}, "--utilization 140%: expected a share"),
        ({"pue": "0.9"}, "--pue: expected a number >= 1.0, got 0.9"),
        ({"blend": "0.5/0.6"}, "--blend 0.5/0.6: shares sum to 1.1"),
        ({"basis": "spto"}, "--basis spto: no such basis (did you mean 'spot'?)"),
    ):
        with pytest.raises(InputError, match=r".") as caught:
            terms.read(**options)
        assert str(caught.value).startswith(message)


def test_a_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "t.toml"
    for content in (b"\xff\xfe", b"basis = ", b"[owned\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"t\.toml: not valid TOML"):
            terms.read([str(path)])
    path.write_text("[owned]\nnode_price = 0\n")
    with pytest.raises(InputError, match=r"^t\.toml: owned\.node_price: expected a number > 0\.0, got 0$"):
        terms.read([str(path)])
    with pytest.raises(InputError, match="cannot be read"):
        terms.read([str(tmp_path)])


def test_a_share_and_a_profile_in_one_breath(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text(f"utilization = 0.5\nload_profile = {[1] * 24}\n")
    with pytest.raises(InputError, match="give one of them"):
        terms.read([str(path)])


def test_a_sheet_of_token_prices_must_be_there(tmp_path):
    sheet = tmp_path / "api.csv"
    sheet.write_text(
        "model,provider,usd_per_m_input,usd_per_m_output,date,source\ngpt-4o,us,2,8,2026-11-01,contract\n"
    )
    found = terms.read([f"api_prices={sheet}"])
    assert listed.prices("gpt-4o", found).offers[0].output == 8
    assert listed.prices("gpt-4o", terms.read()).offers[0].output == 10
    with pytest.raises(InputError, match=r"api_prices nowhere\.csv: no such sheet"):
        terms.read(["api_prices=nowhere.csv"])


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (("load_profile=[" + ",".join(["1e300"] * 12 + ["0"] * 12) + "]",), {}),
        ((), {"utilization": 0.5}),
    ],
)
def test_a_profile_of_any_unit_is_mean_over_peak(words, options):
    assert terms.read(words, **options).paid_share == pytest.approx(0.5)


@pytest.mark.parametrize(
    "word", ["replicas=1" + "0" * 400, "owned.gpus_per_node=1" + "0" * 5000, "x" * 5000, "a\0b=1", "a\0b"]
)
def test_monstrous_words_are_errors(word):
    with pytest.raises(InputError):
        terms.read([word])
    with pytest.raises(InputError):
        terms.read(price=word)
