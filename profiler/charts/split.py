"""What an input token and what an output token takes, of engine time, energy and money, found in two ways;
and what both come to in the windows of a load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from profiler import alike, split
from profiler.charts import loads
from profiler.charts.decades import amounts
from profiler.charts.encoding import BAR, NUMBER, SHARE, tooltip
from profiler.charts.nouns import Absent, Chart, Column, Row
from profiler.charts.words import interval, model, one_line, significant, slug
from profiler.comparison import money
from profiler.cost import question
from profiler.cost.question import Question
from profiler.cost.terms import Terms
from profiler.figures import NOTE_SEPARATOR
from profiler.schema import Estimate
from profiler.split.ways import POINTS, REGRESSION
from profiler.store import RunResult

TERMS = Terms()
PER_M = 1e6
LEAST_SHARE = 5e-4  # of all: less is rounding
ROOM_PX = 40  # that a percentage needs in a bar
KINDS = {"input": "input tokens", "output": "output tokens after the first"}
PARTS = {"input": "input", "output": "output", "standing": "standing by", "remainder": "the rest"}
WAYS = (POINTS, REGRESSION)
BILL = Column(
    name="usd_per_m_output_tokens",
    label="the whole bill",
    unit="USD per million output tokens",
    is_money=True,
)


class _Quantity(NamedTuple):
    """``factor``: from a token in the unit of the rows to a million tokens in ``unit``."""

    name: str
    title: str
    unit: str
    factor: float


class _Group(NamedTuple):
    """Runs of one engine, the rows of their split, and what each load pays."""

    runs: Sequence[RunResult]
    rows: Sequence[dict[str, Any]]
    asked: Question

    @property
    def key(self) -> str:
        return slug(self.runs[0].folder.name)

    @property
    def title(self) -> str:
        return model(self.runs[0])


def of_runs(runs: Sequence[RunResult], terms: Terms = TERMS) -> tuple[Chart | Absent, ...]:
    """Of runs of one engine together: one may hold prefill alone and another decoding.  Nothing of runs
    without windows of their own (imported).  Raises InputError for terms that are wrong."""
    own = [run for run in runs if run.manifest.windows]
    groups: dict[str, list[RunResult]] = {}
    for run in own:
        groups.setdefault(alike.fingerprint(run), []).append(run)
    return tuple(chart for group in groups.values() for chart in _of_group(group, terms))


def _of_group(runs: Sequence[RunResult], terms: Terms) -> Iterator[Chart | Absent]:
    measured = [each for run in runs for each in loads.measured(run)]
    asked = question.asked(runs, terms, slo={}, measured=measured)
    group = _Group(runs, split.rows(runs, asked.payment), asked)
    if not group.rows:
        why = f"no steady load of these runs decodes (batches are not split): {split.HOW}"
        yield Absent(id=f"split-{group.key}", title=f"Input and output tokens: {group.title}", reason=why)
        return
    for quantity in _quantities(group):
        yield _per_token(group, quantity)
        if quantity.name != "cost":
            yield from _shares(group, quantity)


def _quantities(group: _Group) -> tuple[_Quantity, ...]:
    seconds = "GPU-s" if group.rows[0]["gpus"] else "s"
    return (
        _Quantity("engine time", "Engine time", seconds, PER_M),
        _Quantity("energy", "Energy", "kJ", PER_M / 1e3),
        _Quantity("cost", "Cost", "USD", PER_M),
    )


# ------------------------------------------------------------------------------------------ per token


def _per_token(group: _Group, quantity: _Quantity) -> Chart | Absent:
    name = f"split-{slug(quantity.name)}-{group.key}"
    title = f"{quantity.title} of a million tokens, by kind: {group.title}"
    told = [row for row in group.rows if row["quantity"] == quantity.name]
    both = [row for row in told if row["way"] in WAYS]
    rows = tuple(_figure(group, row, kind, quantity) for row in both for kind in KINDS)
    known = [row for row in rows if row["value"]]
    if not known:
        why = "; ".join(_undecided(both)) or "no price: give one with --price"
        return Absent(id=name, title=title, reason=why)
    return Chart(
        id=name,
        title=title,
        summary=_words(group, quantity, known, told),
        columns=_columns(quantity),
        rows=rows,
        spec=_per_token_spec(group, quantity, known),
        height=280,
        notes=(*_noughts(rows), *_notes(group, both, known, quantity)),
    )


def _columns(quantity: _Quantity) -> tuple[Column, ...]:
    is_money = quantity.name == "cost"
    unit = f"{quantity.unit} per million tokens"
    return (
        Column(name="load", label="load"),
        Column(name="way", label="way"),
        Column(name="kind", label="kind of tokens"),
        Column(name="value", label=quantity.name, unit=unit, is_money=is_money),
        Column(name="low", label="95 % interval from", unit=unit, is_money=is_money),
        Column(name="high", label="95 % interval to", unit=unit, is_money=is_money),
        Column(name="basis", label="rests on"),
        Column(name="undecided", label="why it is missing"),
        *((BILL, Column(name="key", label="row of the report")) if is_money else ()),
    )


def _figure(group: _Group, row: dict[str, Any], kind: str, quantity: _Quantity) -> Row:
    ends = {"value": "", "low": "_low", "high": "_high"}
    figures = {name: row[f"per_{kind}_token{end}"] for name, end in ends.items()}
    return {
        "load": _load(group, row),
        "way": row["way"],
        "kind": KINDS[kind],
        **{name: None if each is None else each * quantity.factor for name, each in figures.items()},
        "basis": row["basis"],
        "undecided": row["undecided"],
        **(_bill(group, row) if quantity.name == "cost" else {}),
    }


def _bill(group: _Group, row: dict[str, Any]) -> Row:
    """The whole bill of the load as the cost table has it, which a page computes again at another price."""
    at = row["concurrency"], row["load_requests_per_s"]
    for run in group.runs:
        for found in loads.measured(run):
            load = found.point.concurrency, found.point.requests_per_s
            if f"{row['runs']} ".startswith(f"{found.run} ") and load == at:
                paid, rate = group.asked.payment(run, found.point), found.estimates.get("output_tokens_per_s")
                usd_per_m = PER_M * paid.usd_per_s / rate.value if paid and rate and rate.value > 0 else None
                return {BILL.name: usd_per_m, "key": money.key(found)}
    return {BILL.name: None, "key": None}


def _load(group: _Group, row: dict[str, Any]) -> str:
    """With the scenario's name where loads are of several."""
    rate = row["load_requests_per_s"]
    word = f"{row['concurrency']:,}" if rate is None else f"{rate:.4g}/s"
    is_one = len({each["scenario"] for each in group.rows}) == 1
    return word if is_one else f"{one_line(row['scenario'])} {word}"


def _words(group: _Group, quantity: _Quantity, known: Sequence[Row], told: Sequence[dict[str, Any]]) -> str:
    """Every figure, and whether the two ways agree."""
    figures = [f"{row['kind']} at {row['load']} {interval(_estimate(row))} by {row['way']}" for row in known]
    ratios = [
        f"{kind} at {_load(group, row)} {significant(row[f'per_{kind}_token'])}"
        for row in told
        if row["way"] == split.RATIO
        for kind in KINDS
    ]
    apart = f" Regression over separate points: {'; '.join(ratios)}." if ratios else ""
    return (
        f"{quantity.title} of a million tokens, {quantity.unit} (95 % intervals): {'; '.join(figures)}."
        f"{apart} {_held(group)}."
    )


def _estimate(row: Row) -> Estimate:
    return Estimate(row["value"], row["low"], row["high"])


def _held(group: _Group) -> str:
    windows = [window for run in group.runs for window in run.manifest.windows]
    return f"{loads.count(len(group.runs), 'run')}, {loads.held(windows)}"


def _noughts(rows: Sequence[Row]) -> Iterator[str]:
    """A regression may find that a kind takes nothing, for which a logarithmic axis has no place."""
    found = [f"{row['kind']} at {row['load']} by {row['way']}" for row in rows if row["value"] == 0]
    if found:
        yield f"0, and so not drawn: {', '.join(found)}"


def _notes(
    group: _Group, both: Sequence[dict[str, Any]], known: Sequence[Row], quantity: _Quantity
) -> Iterator[str]:
    if len({row["way"] for row in known}) > 1:
        yield f"circles: {WAYS[0]}; squares: {WAYS[1]} over slices of the windows"
    yield f"n: {_held(group)}; bars: 95 % intervals{_of_one_start(group)}"
    yield from dict.fromkeys(_rests_on(row["basis"]) for row in known if row["way"] == WAYS[0])
    if quantity.name == "cost":
        yield from dict.fromkeys(one_line(row["price_basis"]) for row in both if row["price_basis"])
        if group.asked.terms.basis == "electricity":
            yield "on the terms as given: these figures are not computed again at another tariff"
    if any(row["low"] is None for row in known):
        yield "a dot without a line has no interval: one window, or too few slices"
    standing = [row for row in both if row["standing"]]
    yield from dict.fromkeys(
        "energy of standing by is in the tokens' figures: no idle baseline"
        if row["standing_w"] is None
        else f"energy above standing by, {row['standing_w']:.4g} W ({row['standing']})"
        for row in standing
    )
    yield from _undecided([row for row in both if row["undecided"]])
    yield from loads.caveats(group.runs)


def _of_one_start(group: _Group) -> str:
    starts = {(id(run), window.engine_start) for run in group.runs for window in run.manifest.windows}
    return ", within one engine start, which say nothing of the next" if len(starts) == 1 else ""


def _rests_on(basis: str) -> str:
    """Without the load, which the figure shows."""
    prefill, _, decode = one_line(basis).partition("; ")
    where = "decode by difference at the load itself" if decode.endswith("by difference") else decode
    return f"{WAYS[0]}: {prefill}; {where}"


def _undecided(rows: Sequence[dict[str, Any]]) -> list[str]:
    """By way, each reason once."""
    told = dict.fromkeys(
        (row["way"], one_line(part))
        for row in rows
        if row["undecided"]
        for part in row["undecided"].split(NOTE_SEPARATOR)
    )
    return [f"{way} undecided: {why}" for way, why in told]


def _per_token_spec(group: _Group, quantity: _Quantity, known: Sequence[Row]) -> dict[str, Any]:
    order = list(dict.fromkeys(row["load"] for row in known))
    x = {"field": "load", "type": "ordinal", "sort": order, "title": _axis(group), "axis": {"labelAngle": 0}}
    x["scale"] = {"paddingInner": 0.5, "paddingOuter": 0.25}
    ends = [row[end] for row in known for end in ("low", "high")]
    y = {
        "field": "value",
        "type": "quantitative",
        "title": f"{quantity.unit} per million tokens",
        **amounts([row["value"] for row in known], ends),
    }
    colour = {"field": "kind", "type": "nominal", "scale": {"domain": list(KINDS.values())}}
    shape = {"field": "way", "type": "nominal", "scale": {"domain": list(WAYS)}, "legend": None}
    whisker = {"y": y | {"field": "low"}, "y2": {"field": "high"}}
    ways = [way for way in WAYS if any(row["way"] == way for row in known)]
    places = [f"{kind}, {way}" for kind in KINDS.values() for way in ways]
    numbers = {"value": NUMBER, "low": NUMBER, "high": NUMBER}
    columns = _columns(quantity)
    is_by_the_hour = quantity.name == "cost" and group.asked.terms.basis != "electricity"
    return {
        **({"usermeta": {"scaled_by": BILL.name}} if is_by_the_hour else {}),
        "transform": [
            {"filter": "datum.value > 0"},
            {"calculate": "datum.kind + ', ' + datum.way", "as": "place"},
        ],
        "encoding": {
            "x": x,
            "xOffset": {"field": "place", "type": "nominal", "scale": {"domain": places}},
            "color": colour,
            "tooltip": [*tooltip(columns, "kind", "load", "way", **numbers), *tooltip(columns, "basis")],
        },
        "layer": [
            {"mark": {"type": "rule", "style": "whisker", "clip": True}, "encoding": whisker},
            {"mark": {"type": "point", "size": 60}, "encoding": {"y": y, "shape": shape}},
        ],
    }


def _axis(group: _Group) -> str:
    return loads.axis([window.point for run in group.runs for window in run.manifest.windows])


# ------------------------------------------------------------------------------------------ shares

SHARES = (
    Column(name="load", label="load"),
    Column(name="way", label="way"),
    Column(name="part", label="part"),
    Column(name="share", label="share of all that was spent"),
    Column(name="from_share", label="drawn from"),
    Column(name="to_share", label="drawn to"),
)


def _shares(group: _Group, quantity: _Quantity) -> Iterator[Chart]:
    """Nothing where no way knows them: the figures say why."""
    own = [row for row in group.rows if row["quantity"] == quantity.name]
    told = [row for row in own if row["remainder_frac"] is not None]
    rows = tuple(part for row in told for part in _parts(group, row))
    if not rows:
        return
    named = dict.fromkeys((row["load"], row["way"]) for row in rows)
    words = [
        f"at {at} by {way}: "
        + ", ".join(
            f"{row['part']} {row['share']:.1%}" for row in rows if (row["load"], row["way"]) == (at, way)
        )
        for at, way in named
    ]
    yield Chart(
        id=f"split-shares-{slug(quantity.name)}-{group.key}",
        title=f"Where {quantity.name} went, by kind of tokens: {group.title}",
        summary=f"Shares of the {quantity.name} of the steady windows {'; '.join(words)}. {_held(group)}.",
        columns=SHARES,
        rows=rows,
        spec=_shares_spec(group, rows),
        height=28 * len(named) + 8,
        notes=tuple(_share_notes(group, told, rows)),
    )


def _share_notes(group: _Group, told: Sequence[dict[str, Any]], rows: Sequence[Row]) -> Iterator[str]:
    yield from dict.fromkeys(_rests_on(row["basis"]) for row in told if row["way"] == WAYS[0])
    if any(row["part"] == PARTS["remainder"] for row in rows):
        yield "the rest is what the parts leave of all that was spent; below 0 the bar goes beyond 100 %"
    yield "no intervals: those of a token of each kind are in the figure before"
    yield from loads.caveats(group.runs)


def _parts(group: _Group, row: dict[str, Any]) -> Iterator[Row]:
    """Side by side; the last, which the others leave, has no place where it is below 0."""
    at = 0.0
    for part, words in PARTS.items():
        share = row[f"{part}_frac"]
        if abs(share) < LEAST_SHARE:
            continue
        drawn = (at, at + share) if share > 0 else (None, None)
        at += share
        own = {"load": _load(group, row), "way": row["way"], "part": words, "share": share}
        yield own | dict(zip(("from_share", "to_share"), drawn, strict=True))


def _shares_spec(group: _Group, rows: Sequence[Row]) -> dict[str, Any]:
    several = len({row["way"] for row in rows}) > 1
    order = list(dict.fromkeys(f"{row['load']}{', ' + row['way'] if several else ''}" for row in rows))
    bar = f"datum.load{' + ' + repr(', ') + ' + datum.way' if several else ''}"
    most = max(1.0, *(row["to_share"] or 0.0 for row in rows))
    x = {
        "field": "from_share",
        "type": "quantitative",
        "title": None,
        "scale": {"domain": [0, most], "nice": False},
        "axis": {"format": ".0%", "grid": False, "tickCount": 5},
    }
    domain = [words for words in PARTS.values() if any(row["part"] == words for row in rows)]
    rest = PARTS["remainder"]
    solids = [each for each in domain if each != rest]
    look = {"field": "part", "type": "nominal", "scale": {"domain": solids}}
    y = {"field": "bar", "type": "ordinal", "sort": order, "title": _axis(group)}
    tips = tooltip(SHARES, "load", "way", "part", share=SHARE)
    solid = {"transform": [{"filter": f"datum.part != '{rest}'"}], "mark": BAR}
    room = f"(datum.to_share - datum.from_share) / {most!r} * width > {ROOM_PX}"
    edge = {"data": {"values": [{}]}, "mark": {"type": "rule", "style": "reference"}}
    return {
        "transform": [
            {"filter": "isValid(datum.from_share)"},
            {"calculate": bar, "as": "bar"},
            {"calculate": "(datum.from_share + datum.to_share) / 2", "as": "middle"},
        ],
        "encoding": {"tooltip": tips},
        "layer": [
            solid | {"encoding": {"x": x, "x2": {"field": "to_share"}, "y": y, "fill": look, "stroke": look}},
            {
                "transform": [{"filter": f"datum.part == '{rest}'"}],
                "mark": {"type": "bar", "style": "shade"},
                "encoding": {"x": x, "x2": {"field": "to_share"}, "y": y},
            },
            {
                "mark": {"type": "text", "style": "label", "clip": True},
                "encoding": {
                    "x": x | {"field": "middle"},
                    "y": y,
                    "text": {"field": "share", "format": ".0%"},
                    "opacity": {"condition": {"test": room, "value": 1}, "value": 0},
                },
            },
            edge | {"encoding": {"x": {"datum": 1, "type": "quantitative"}, "tooltip": {"value": None}}},
        ],
    }
