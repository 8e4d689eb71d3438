"""The sections of ``profile cost`` that decide: at the promise, against an API, one model against another,
and what it all depends on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from profiler.charts.words import NA, significant
from profiler.cost import at_slo, break_even, flips, sensitivity
from profiler.cost.question import Question
from profiler.report.sections import View
from profiler.report.table import Row, Shown, age, load_text, number, plain, with_interval

UNIT_STEPS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def _percent(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{row[column]:.3g}" if row[column] > 10 else f"{row[column]:.1%}"


def ratio(row: Row, column: str) -> str:
    """Both ends, which tell whether 1 is between them."""
    value, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return NA
    ends = [NA if end is None else significant(end) for end in (low, high)]
    return significant(value) if low is high is None else f"{significant(value)} ({'–'.join(ends)})"


def _boards(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{row['gpus']} × {row[column]}"


def _load(row: Row, _column: str) -> str:
    return load_text(row) if row["usd_per_m_output_tokens"] or row["verdict"] == "met" else NA


def _working(row: Row) -> str:
    share = row["utilization"]
    return "" if share is None else f", {share * 100:.3g} % of the paid time works"


def tokens(count: float) -> str:
    """``1.23 B``."""
    size, unit = next((each for each in UNIT_STEPS if count >= each[0]), (1.0, ""))
    return f"{significant(count / size)} {unit}".rstrip()


def _tokens(row: Row, column: str) -> str:
    """A volume; at a utilisation below the break-even none is enough."""
    if row[column] is None:
        return "never"
    return tokens(row[column]) if row[column] else "any"


# ------------------------------------------------------------------------------------------- at-slo

AT_SLO_SHOWN = (
    Shown("compared", "view", plain),
    Shown("scenario", "scenario", plain),
    Shown("on", "gpu", _boards, spare=True),
    Shown("model", "model", plain),
    Shown("highest\nload", "load", _load),
    Shown("tokens/s\nout", "output_tokens_per_s", with_interval),
    Shown("good\nreq/s", "good_requests_per_s", with_interval, spare=True),
    Shown("USD/M\nout", "usd_per_m_output_tokens", with_interval),
    Shown("USD/M\ngood out", "usd_per_m_good_output_tokens", with_interval),
    Shown("USD/1000\ngood req", "usd_per_1000_good_requests", with_interval, spare=True),
    Shown("× first", "ratio", ratio),
)
NO_PROMISE = (
    "no latency promise: the scenarios have no SLO and none was given; say one with --slo-ttft-p99 500ms "
    "(metrics ttft, itl, tpot, e2e)"
)


def _at_slo_lines(question: Question, rows: Sequence[Row]) -> Iterator[str]:
    if any(not each.limits for each in question.choices):
        yield NO_PROMISE
    if not rows:
        return
    yield from (f"promise: {each}" for each in dict.fromkeys(row["slo"] for row in rows))
    yield (
        "the highest measured load that keeps every limit: no request was late, or the 95 % interval of the "
        "late share lies within what the limit allows; good: of requests that kept every limit; × first: "
        "cost over the first model's, 95 % interval"
    )
    basis = next((row for row in rows if row["cost_basis"]), None)
    if basis:
        yield f"basis: {basis['cost_basis']}{_working(basis)}"
    for row in rows:
        many = row["configurations"] > 1
        if many and row["view"] == at_slo.OWN:
            yield f"{row['model']}: the cheapest of {row['configurations']} configurations measured"
        if row["notes"]:
            yield f"{row['model']}: {row['notes']}"


# ---------------------------------------------------------------------------------------- break-even


def _even(row: Row, _column: str) -> str:
    value, low, high = (row[f"break_even_utilization{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return "never"
    if value == 0:
        return "at any"
    ends = "" if low is None or high is None else f" ({_share(low)}–{_share(high)})"
    return f"{_share(value)}{ends}" + (": never" if value > 1 else "")


def _share(share: float) -> str:
    return f"{share:.3g} ×" if share >= 10 else f"{share:.3g}" if share > 1 else f"{share:.1%}"


BREAK_EVEN_SHOWN = (
    Shown("scenario", "scenario", plain),
    Shown("model", "model", plain),
    Shown("API\nmodel", "api_model", plain),
    Shown("provider", "provider", plain),
    Shown("USD/h", "usd_per_hour", number, spare=True),
    Shown("API\nUSD/M in", "api_usd_per_m_input", number, spare=True),
    Shown("API\nUSD/M out", "api_usd_per_m_output", number, spare=True),
    Shown("API\nUSD/M mix", "api_usd_per_m_blended", number, spare=True),
    Shown("even at\nutilisation", "break_even_utilization", _even),
    Shown("self ÷\nAPI now", "cost_over_api", number),
    Shown("even at\ntokens/month", "tokens_per_month_first", _tokens),
    Shown("replicas", "replicas_first", plain, spare=True),
    Shown("for good\nfrom", "tokens_per_month_settled", _tokens),
)


def _break_even_lines(question: Question, rows: Sequence[Row]) -> Iterator[str]:
    yield from break_even.missing(question)
    if not rows:
        return
    for model, scenario in dict.fromkeys((row["model"], row["scenario"]) for row in rows):
        yield from _of_providers([r for r in rows if (r["model"], r["scenario"]) == (model, scenario)])
    yield (
        "even at utilisation: share of the paid hours at this load above which self-hosting is cheaper; "
        "volumes are input and output tokens in this mix, over whole replicas, 730 hours a month; beyond the "
        "first the next replica may lose it again, for good it is won from the last"
    )
    yield from dict.fromkeys(
        f"API price of {row['date']}{age(row['date'])}: {row['provider']}, {row['source']}" for row in rows
    )
    yield break_even.NOT_COUNTED


def _of_providers(rows: Sequence[Row]) -> Iterator[str]:
    """The providers together, and what is said once for a model."""
    first = rows[0]
    yield f"{first['model']}: {first['at']}: {_rates(first)}"
    if not first["same_model"]:
        yield f"{first['model']} is set against another model, {first['api_model']}: quality is not matched"
    shares = [row["break_even_utilization"] for row in rows]
    known = [share for share in shares if share is not None]
    if len(known) > 1:
        yield (
            f"{first['model']}: over {len(rows)} providers even at {_share(min(known))} to "
            f"{_share(max(known))}, median {_share(median(known))}"
        )
    if 0 in known:
        yield f"{first['model']}: waiting costs nothing on this basis, as far as was measured"
    offers = [row for row in rows if row["break_even_utilization_cheapest"] is not None]
    if offers:
        low = min(row["break_even_utilization_cheapest"] for row in offers)
        high = max(row["break_even_utilization_dearest"] for row in offers)
        ends = f"{_share(low)} to {_share(high)}"
        yield f"{first['model']}: with the cheapest to the dearest offer of the hour {ends}"
    for row in rows:
        share = row["break_even_utilization"]
        if share is None or share > 1:
            by = "" if share is None else f": at full use it still costs {significant(share)} × as much"
            yield f"{first['model']} never breaks even with {row['provider']}{by}"


def _rates(row: Row) -> str:
    cached = f", {row['cached_frac']:.0%} of the input cached" if row["cached_frac"] else ""
    spare = f", {row['redundant_replicas']} replicas standing by" if row["redundant_replicas"] else ""
    taken, given = (significant(row[f"{kind}_tokens_per_s"]) for kind in ("input", "output"))
    paid = f"{row['cost_basis']}{_working(row)}{spare}"
    return f"{taken} input and {given} output tokens/s a replica{cached}, {paid}"


# --------------------------------------------------------------------------------------------- flips


def _works(row: Row, _column: str) -> str:
    if row["utilization_flip"] is None:
        return NA
    value, low, high = (row[f"utilization_flip{end}"] for end in ("", "_low", "_high"))
    ends = "" if low is None or high is None else f" ({low:.1%}–{high:.1%})"
    return f"{'A' if row['utilization_of'] == row['a'] else 'B'} {value:.1%}{ends}"


def _at(row: Row, column: str) -> str:
    """Both loads at the promise, which a line below the table spells out."""
    return f"{row[column].partition(',')[0]} (SLO)" if row["what"] == flips.AT_PROMISE else str(row[column])


def _cheaper(row: Row, column: str) -> str:
    """``A``, ``B below`` a crossing, or undecided."""
    model, _, where = row[column].partition(" ")
    side = {row["a"]: "A", row["b"]: "B"}.get(model, model)
    return f"{side} {where}".rstrip()


def _tariff(row: Row, _column: str) -> str:
    if row["tariff_cheaper_below"] is None:
        return NA
    if row["tariff_flip_usd_per_kwh"] is None:
        return f"never: {row['tariff_cheaper_below']}"
    return f"{significant(row['tariff_flip_usd_per_kwh'])}, below: {row['tariff_cheaper_below']}"


FLIPS_SHOWN = (
    Shown("scenario", "scenario", plain),
    Shown("A", "a", plain),
    Shown("B", "b", plain),
    Shown("at load", "at", _at),
    Shown("cost A ÷ B", "ratio", ratio),
    Shown("cheaper", "cheaper", _cheaper),
    Shown("even at GPU-hour\nprice A ÷ B", "price_ratio_flip", ratio, spare=True),
    Shown("even when\nworks", "utilization_flip", _works),
    Shown("even at\nUSD/kWh", "tariff_cheaper_below", _tariff),
)


def _flip_lines(_question: Question, rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        yield "one model with a cost: nothing to set it against"
        return
    yield (
        "cheaper: by the 95 % interval of the ratio, undecided where 1 is inside; even at GPU-hour price: A "
        "is the cheaper below it; even when works: share of the paid time at which the cheaper one costs "
        "what the other does" + _working(rows[0])
    )
    for row in rows:
        if row["what"] == flips.AT_PROMISE:
            yield f"{row['a']}, {row['b']}: (SLO): loads {row['at']}"
        machines = [_boards(row | {"gpus": row[f"gpus_{side}"]}, f"gpu_{side}") for side in "ab"]
        if machines[0] != machines[1]:
            yield f"not on equal machines: {row['a']} on {machines[0]}, {row['b']} on {machines[1]}"
    prices = dict.fromkeys(row["price_ratio"] for row in rows if row["price_ratio"] is not None)
    yield from (f"price of A's GPU-hour over B's now: {significant(each)}" for each in prices)
    for a, b, scenario in dict.fromkeys((row["a"], row["b"], row["scenario"]) for row in rows):
        own = [row for row in rows if (row["a"], row["b"], row["scenario"]) == (a, b, scenario)]
        if not any(row["what"] == flips.CROSSING for row in own):
            yield f"{a}, {b}: {_no_crossing(own)}"
    if rows[0]["tariff_usd_per_kwh"] is None:
        yield "electricity tariff n/a: power is in the price of the hour (--basis owned or electricity)"


def _no_crossing(rows: Sequence[Row]) -> str:
    loads = [row["load"] for row in rows if row["what"] == flips.AT_LOAD]
    if len(loads) < 2:
        return "fewer than two loads in common: at which load it flips is n/a"
    verdicts = {row["cheaper"] for row in rows if row["what"] == flips.AT_LOAD}
    over = f"from {loads[0]:g} to {loads[-1]:g}"
    if len(verdicts) == 1 and flips.UNDECIDED not in verdicts:
        return f"{verdicts.pop()} is the cheaper at every load {over}: no flip between them"
    return f"their curves of cost do not cross {over}, which decides nothing where their intervals meet"


# --------------------------------------------------------------------------------------- sensitivity

SENSITIVITY_SHOWN = (
    Shown("scenario", "scenario", plain),
    Shown("model", "model", plain),
    Shown("input", "input", plain),
    Shown("from", "low", number),
    Shown("stated", "base", number),
    Shown("to", "high", number),
    Shown("USD/M out\nat from", "usd_at_low", number),
    Shown("stated", "usd_per_m_output_tokens", number),
    Shown("at to", "usd_at_high", number),
    Shown("swing", "swing_frac", lambda row, column: f"{row[column]:.0%}"),
    Shown("range", "reason", plain, spare=True),
)


def _sensitivity_lines(question: Question, rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        yield from dict.fromkeys(
            note for each in at_slo.best_of_each(question) for note in each.costs.notes if not each.usd_per_m
        )
        return
    yield "one input at a time, the others as stated; swing: from end to end over the stated cost"
    yield from dict.fromkeys(f"{row['model']}: {row['at']}" for row in rows)
    if not any(row["input"] == sensitivity.PRICE for row in rows):
        yield "the price is one number: the cost goes in proportion to it; a sheet of offers gives a range"
    for model, costs in sensitivity.at_utilizations(question):
        steps = ", ".join(f"{significant(usd)} at {share:.0%}" for share, usd in costs)
        yield f"{model}: USD per million output tokens {steps} of the paid time at work"


VIEWS = {
    "at-slo": View(
        "At the latency promise",
        at_slo.COLUMNS,
        at_slo.rows,
        AT_SLO_SHOWN,
        _at_slo_lines,
        ("view", "scenario", "slo", "gpu", "gpus"),
    ),
    "break-even": View(
        "Against an API",
        break_even.COLUMNS,
        break_even.rows,
        BREAK_EVEN_SHOWN,
        _break_even_lines,
        ("scenario", "model"),
    ),
    "flips": View(
        "Where the verdict flips",
        flips.COLUMNS,
        flips.rows,
        FLIPS_SHOWN,
        _flip_lines,
        ("scenario", "a", "b"),
    ),
    "sensitivity": View(
        "What the cost depends on",
        sensitivity.COLUMNS,
        sensitivity.rows,
        SENSITIVITY_SHOWN,
        _sensitivity_lines,
        ("scenario", "model"),
    ),
}
