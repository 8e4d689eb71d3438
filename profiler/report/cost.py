"""The sections of ``profile cost`` by their names, in the order in which they are printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath

from profiler.charts.words import NA
from profiler.comparison import ordered
from profiler.cost import answers, at_slo, invoice, listed, summary
from profiler.cost.basis import Hourly
from profiler.cost.listed import TokenPrice
from profiler.cost.question import Question
from profiler.figures import Figures
from profiler.prices import Missing
from profiler.report import decisions
from profiler.report.decisions import ratio
from profiler.report.sections import View
from profiler.report.table import Row, Shown, load_text, number, plain, with_interval

TTFT = "TTFT"


def _model(row: Row, column: str) -> str:
    """Without its maker, which a table has no room for."""
    return plain(row, column).rpartition("/")[2]


def _load(row: Row, _column: str) -> str:
    return load_text(row)


def _run(row: Row, column: str) -> str:
    return PurePath(row[column]).name.rsplit("-", 1)[-1]


def _share(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{row[column]:.1%}"


def _count(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{row[column]:,.0f}"


def _usd(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{row[column]:,.4f}"


WHICH = (
    Shown("scenario", "scenario", plain),
    Shown("load", "load", _load),
    Shown("model", "model", _model),
    Shown("run", "run", _run),
)


def _at(rows: Iterable[Row]) -> str:
    """``tiny-moe, trio at 8, 32``."""
    loads: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        loads.setdefault((row["model"], row["scenario"]), {})[load_text(row)] = None
    return "; ".join(f"{model}, {scenario} at {', '.join(at)}" for (model, scenario), at in loads.items())


def _grouped(rows: Sequence[Row], column: str) -> Iterator[tuple[str, str]]:
    """Each text of a column once, and where it holds."""
    for text in dict.fromkeys(row[column] for row in rows if row[column]):
        yield text, _at(row for row in rows if row[column] == text)


def _repeats(rows: Sequence[Row]) -> str:
    if all(value is None for row in rows for name, value in row.items() if name.endswith("_low")):
        return "without intervals: nothing was repeated, or the tool that measured kept none"
    counts = sorted({row["repeats"] for row in rows if row["repeats"]})
    if not counts:
        return "without intervals: these runs keep no repeats"
    if counts == [1]:
        return "±: half the 95 % interval, of one window: precision within that run only"
    return f"±: half the 95 % interval over {'–'.join(str(n) for n in {counts[0]: 0, counts[-1]: 0})} repeats"


def _money(question: Question, of: Sequence[Figures] | None = None) -> Iterator[str]:
    """On what basis, at which price of whose word and date, at which utilisation; what does not hold for all
    loads, with those for which it does."""
    said: dict[str, list[Row]] = {}
    loads = question.figures if of is None else of
    for found in loads:
        for line in _of_hour(question, found.model, question.price(found)):
            said.setdefault(line, []).append(invoice.which(found))
    for line, where in said.items():
        yield line if len(where) == len(loads) else f"{_at(where)}: {line}"
    if question.terms.basis == "electricity":
        yield "electricity is spread over the kinds by engine time; their own energy: compare --show split"


def _of_hour(question: Question, model: str, hour: Hourly | TokenPrice | Missing) -> Iterable[str]:
    if isinstance(hour, Missing):
        return [f"USD n/a: {hour.reason}"]
    return hour.lines if isinstance(hour, Hourly) else _offers(question, model, hour)


def _offers(question: Question, model: str, offer: TokenPrice) -> Iterator[str]:
    name = question.api or model
    yield f"api: list price of {offer.provider} for {name}, {offer.date}; no engine time is in it"
    known = listed.prices(name, question.terms)
    if not isinstance(known, Missing) and len(known.offers) > 1:
        lows = [min(getattr(each, kind) for each in known.offers) for kind in ("input", "output")]
        highs = [max(getattr(each, kind) for each in known.offers) for kind in ("input", "output")]
        yield (
            f"{name}: {len(known.offers)} providers ask {lows[0]:g} to {highs[0]:g} USD per million input "
            f"and {lows[1]:g} to {highs[1]:g} per million output tokens"
        )


# --------------------------------------------------------------------------------------------- summary

SUMMARY, EVERY = "summary", "all"
SUMMARY_SHOWN = (
    Shown("scenario", "scenario", plain),
    Shown("model", "model", _model),
    Shown("load", "load", _load),
    Shown("run", "run", _run),
    Shown("tokens/s\nout", summary.RATE, with_interval, spare=True),
    Shown("per M", "unit", plain, spare=True),
    Shown("input", "per_m_input_tokens", with_interval),
    Shown("cached", "per_m_cached_input_tokens", with_interval),
    Shown("output", "per_m_output_tokens", with_interval),
    Shown("blended", invoice.BLENDED, with_interval, spare=True),
    Shown("all on\noutput", invoice.WHOLE, with_interval),
    Shown("USD/1000\nrequests", summary.REQUESTS, with_interval, spare=True),
    Shown("× first", summary.RATIO, ratio),
)


def _summary_lines(question: Question, rows: Sequence[Row]) -> Iterator[str]:
    yield from summary.without(question)
    if not rows:
        yield "no token was measured at any load of these runs"
        return
    for at in dict.fromkeys(row["at"] for row in rows):
        models = dict.fromkeys(row["model"] for row in rows if row["at"] == at)
        yield f"{', '.join(models)}: {at}"
    units = "/".join(dict.fromkeys(row["unit"] for row in rows))
    yield (
        f"{units} per million tokens: input, cached and output by their counts, and idle time, are the bill; "
        f"all on output: that whole bill over the output tokens, never to be added; {_blend(question)}"
    )
    if any(row[summary.RATIO] is not None for row in rows):
        yield "× first: all on output over the first model's, with its 95 % interval where both have one"
    yield _over(rows)
    if question.terms.basis != "api":
        yield from _ways(rows)
    yield from _money(question, [each.choice.found for each in at_slo.best_of_each(question)])


def _over(rows: Sequence[Row]) -> str:
    """What the intervals are over."""
    if all(row[f"{summary.RATE}_low"] is None for row in rows):
        return _repeats(rows)
    over = sorted({(row["n"], row["over"] or "figures", row["runs"] or 1) for row in rows})
    told = (
        f"{n} {what}" + (f" of {runs} runs" if runs > 1 and what != "runs" else "") for n, what, runs in over
    )
    return f"±: half the 95 % interval over {' or '.join(dict.fromkeys(told))}"


# --------------------------------------------------------------------------------------------- kinds

KINDS_SHOWN = (
    *WHICH,
    Shown("per M", "unit", plain),
    Shown("input", "per_m_input_tokens", with_interval),
    Shown("cached", "per_m_cached_input_tokens", with_interval),
    Shown("output", "per_m_output_tokens", with_interval),
    Shown("idle", "idle_frac", _share, spare=True),
    Shown("blended", invoice.BLENDED, with_interval),
    Shown("all on\noutput", invoice.WHOLE, with_interval),
)


def _kind_lines(question: Question, rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        yield "no token was measured at any load of these runs"
        return
    if question.terms.basis == "api":
        yield (
            "list price per million tokens of each kind; all on output: what this load's tokens of all kinds "
            f"would be sold for, over its output tokens; {_blend(question)}"
        )
        yield from _money(question)
        return
    yield (
        "per million tokens of a kind, engine seconds and USD: input, cached and output by their counts, and "
        "the idle time, are the bill; all on output is that whole bill over the output tokens: never add it"
    )
    yield f"idle: share of the window without a request; {_blend(question)}, idle carried by output"
    yield _repeats(rows)
    yield from _ways(rows)
    yield from _money(question)


def _ways(rows: Sequence[Row]) -> Iterator[str]:
    """How the kinds were told apart, or why they were not."""
    for way, where in _grouped(rows, "way"):
        answers_too = any(row["way"] == way and row["per_m_output_tokens"] is not None for row in rows)
        rest = ", output is what it leaves" if answers_too else ""
        yield f"{where}: input by {way}{rest}{_remark(way, rows)}"
    for why, where in _grouped(rows, "missing"):
        yield f"{where}: input and output are not told apart: {why}"
    for why, where in _grouped(rows, "cached_missing"):
        yield f"{where}: cached input n/a: {why}"


def _blend(question: Question) -> str:
    names = ("input", "output", "cached")
    parts = [f"{share:.4g} {name}" for share, name in zip(question.terms.blend, names, strict=False)]
    return f"blended: {' + '.join(parts)}"


def _remark(way: str, rows: Sequence[Row]) -> str:
    is_higher = any(row["way"] == way and (row["concurrency"] or 2) > 1 for row in rows)
    if not way.startswith(TTFT) or not is_higher:
        return ""
    return " (beyond concurrency 1 prompts are read together: a run of scenario prefill says what they take)"


# --------------------------------------------------------------------------------------------- invoice


def _of_tokens(write: Callable[[Row, str], str]) -> Callable[[Row, str], str]:
    """Empty on lines that are not of tokens."""
    return lambda row, column: "" if row["tokens"] is None else write(row, column)


INVOICE_SHOWN = (
    *WHICH,
    Shown("line", "line", plain),
    Shown("tokens", "tokens", _of_tokens(_count)),
    Shown("s/M", "gpu_s_per_m_tokens", _of_tokens(with_interval)),
    Shown("USD/M", "usd_per_m_tokens", _of_tokens(with_interval)),
    Shown("USD", "usd", _usd),
    Shown("share", "share_frac", _share),
)


def _invoice_lines(question: Question, rows: Sequence[Row]) -> Iterator[str]:
    if question.terms.basis == "api":
        yield (
            "what the tokens that this load worked off in an hour would be sold for"
            + ("" if rows else ": n/a, nobody knows how long the prompts were")
        )
    elif rows:
        works = sorted({row["utilization_frac"] for row in rows})
        share = " to ".join(f"{each:.4g}" for each in dict.fromkeys((works[0], works[-1])))
        yield (
            f"one hour that is paid for, {share} of it at work: the tokens of that time at what they cost "
            "then, the time without a request between them (idle) and the rest of the hour (not used); the "
            "lines add up to its price; s: GPU-seconds, or the machine's where it has none"
        )
        yield _repeats(rows)
    yield from _money(question)


# --------------------------------------------------------------------------------------------- requests

REQUESTS_SHOWN = (
    *WHICH,
    Shown("requests", "requests", plain),
    Shown("n", "n", _count),
    Shown("tokens\nin", "input_tokens_mean", number),
    Shown("tokens\nout", "output_tokens_mean", number),
    Shown("USD/request", "usd_per_request", with_interval),
    Shown("USD/1000\nrequests", "usd_per_1000_requests", with_interval),
)


def _request_lines(question: Question, rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield (
        "all requests: the whole bill over them, at their mean lengths; output is every token the model "
        f"wrote, thinking included; {_repeats(rows)}"
    )
    unknown = [row for row in rows if row["usd_per_request"] is None and not row["price_missing"]]
    whole = [row for row in unknown if row["requests"] == answers.ALL]
    if whole:
        yield f"{_at(whole)}: USD per request n/a: the run does not say {_lacking(question)}"
    mixed = [row for row in rows if row["requests"] != answers.ALL]
    if mixed:
        yield "a kind of a mix: its tokens by what input and output tokens take at this load, idle on output"
    for why, where in _grouped([row for row in mixed if row["usd_per_request"] is None], "missing"):
        yield f"{where}: kinds of a mix n/a: {why}"
    yield from _money(question)


def _lacking(question: Question) -> str:
    api = question.terms.basis == "api"
    return "how long prompts and answers were" if api else "how many requests ended in a second"


# --------------------------------------------------------------------------------------------- solved

SOLVED_SHOWN = (
    *WHICH,
    Shown("benchmark", "benchmark", plain),
    Shown("solved", "accuracy_frac", with_interval),
    Shown("tokens\nout", "output_tokens_mean", number),
    Shown("USD/answer", "usd_per_request", with_interval),
    Shown("USD/\nsolved task", "usd_per_solved_task", with_interval),
)


def _solved_lines(question: Question, rows: Sequence[Row]) -> Iterator[str]:
    if not question.scores:
        return
    lacking = answers.unmatched(question)
    if lacking:
        named = ", ".join(dict.fromkeys(score.model for score in question.scores))
        yield f"no score of {', '.join(lacking)} in the file, which has {named}: solved tasks n/a"
    if rows:
        yield (
            "USD per solved task: USD per answer over the share of tasks solved, errors in quadrature; it "
            "holds where the benchmark's prompts and answers are as long as this scenario's"
        )
        yield from (f"{where}: {why}" for why, where in _grouped(rows, "solved_note"))
        yield from dict.fromkeys(
            f"{row['benchmark']}: {row['score_source']}, {row['score_date'] or 'undated'}" for row in rows
        )
        yield from _money(question)


LOADS = ("scenario", "load", "concurrency", "load_requests_per_s")
VIEWS: dict[str, View] = {
    SUMMARY: View(
        "What it costs", summary.COLUMNS, summary.rows, SUMMARY_SHOWN, _summary_lines, ("scenario",)
    ),
    "kinds": View(
        "Kinds of tokens",
        invoice.KIND_COLUMNS,
        lambda question: ordered(invoice.kind_rows(question)),
        KINDS_SHOWN,
        _kind_lines,
        LOADS,
    ),
    "invoice": View(
        "Invoice",
        invoice.LINE_COLUMNS,
        lambda question: ordered(invoice.line_rows(question)),
        INVOICE_SHOWN,
        _invoice_lines,
        (*LOADS, "model", "run"),
    ),
    "requests": View(
        "Requests",
        answers.REQUEST_COLUMNS,
        lambda question: ordered(answers.request_rows(question)),
        REQUESTS_SHOWN,
        _request_lines,
        LOADS,
    ),
    "solved": View(
        "Solved tasks",
        answers.SOLVED_COLUMNS,
        lambda question: ordered(answers.solved_rows(question)),
        SOLVED_SHOWN,
        _solved_lines,
        LOADS,
    ),
    **decisions.VIEWS,
}


def asked_for(question: Question) -> list[str]:
    """The sections where none is named: the summary, and whatever else an option was given for."""
    given = {"at-slo": question.slo, "solved": question.scores, "break-even": question.api}
    return [SUMMARY, *(name for name, value in given.items() if value)]


def others() -> str:
    """What else there is to ask for."""
    return f"more: --show {', '.join(name for name in VIEWS if name != SUMMARY)} or {EVERY}"


def chosen(names: Sequence[str]) -> dict[str, View]:
    """The sections of these names, or all of them, in the order in which they are printed."""
    return {name: view for name, view in VIEWS.items() if name in names or EVERY in names}
