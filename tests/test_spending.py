"""Budgets: what is read as one, and what it pays for."""

from __future__ import annotations

import pytest

from profiler import spending
from profiler.errors import InputError
from profiler.spending import Budget


@pytest.mark.parametrize(
    ("text", "seconds", "usd"),
    [
        ("90min", 5400, None),
        ("2h", 7200, None),
        ("5usd", None, 5),
        ("$4.20", None, 4.2),
        ("2h, 5 USD", 7200, 5),
        ("30s,1usd", 30, 1),
    ],
)
def test_budgets_are_read_in_time_and_money(text, seconds, usd):
    found = spending.read(text, usd_per_s=0.001)
    assert (found.seconds, found.usd) == (seconds, usd)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("soon", "--budget soon: expected a time or a sum"),
        ("5x", "--budget 5x: expected a time or a sum"),
        ("manyh", "--budget: expected a time in seconds"),
        ("5", "expected a time or a sum"),
        ("1h,2h", "expected a time or a sum"),
        ("-5usd", "--budget -5usd: expected a sum of money"),
        ("manyusd", "expected a sum of money"),
        ("0usd", "nothing can be held for nothing"),
    ],
)
def test_what_is_no_budget_is_refused_by_name(text, said):
    with pytest.raises(InputError, match=said) as caught:
        spending.read(text, usd_per_s=0.001)
    assert "\n" not in str(caught.value)


def test_a_budget_is_named_as_it_was_written():
    with pytest.raises(InputError, match=r"^mine\.toml: budget 1h,2h: expected"):
        spending.read("1h,2h", None, "mine.toml: budget")


def test_money_needs_a_price():
    with pytest.raises(InputError, match="needs a price of an hour"):
        spending.read("5usd", usd_per_s=None)
    assert spending.read(None, usd_per_s=None) is None


@pytest.mark.parametrize(
    ("budget", "seconds", "usd", "pays"),
    [
        (Budget(), 1e9, 1e9, True),
        (Budget(seconds=10.0), 10.0, 1e9, True),
        (Budget(seconds=10.0), 10.1, None, False),
        (Budget(usd=5.0), 1e9, 5.0, True),
        (Budget(usd=5.0), 1.0, 5.1, False),
        (Budget(usd=5.0), 1e9, None, True),
        (Budget(seconds=10.0, usd=5.0), 11.0, 1.0, False),
    ],
)
def test_a_budget_pays_for_what_is_within_all_of_its_limits(budget, seconds, usd, pays):
    assert budget.pays(seconds, usd) == pays
