"""Rulings as text: the docket, a line a claim and setting; or each of them with its cells, what was found in
them, and what would have to be measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from profiler import stats
from profiler.charts.words import NA, one_line, significant
from profiler.claims import making, metrics
from profiler.claims.nouns import Case, Claim, Finding, Ruling, Side, Verdict
from profiler.report import sections
from profiler.report.sections import Section, View
from profiler.report.table import Row, Shown, in_markdown

if TYPE_CHECKING:
    from rich.console import Console

ORDER: tuple[Verdict, ...] = (
    "refuted",
    "direction only",
    "supported",
    "undecided",
    "not comparable",
    "not testable here",
)
MOST_MISSING = 6  # lines; a grid may lack a hundred
OF_A_CLASS = "said of all MoE or dense models, judged pair by pair: one pair tells nothing of the others"
MARKS = dict(zip(ORDER, "✗~✓?≠–", strict=True))


def show(rulings: Sequence[Ruling], console: Console, in_detail: bool) -> None:
    """``in_detail``: the cells of each; else the docket."""
    sections.show(_sections(rulings, in_detail, one_line), console)


def markdown(rulings: Sequence[Ruling], in_detail: bool) -> str:
    return sections.markdown(_sections(rulings, in_detail, in_markdown))


def as_json(rulings: Sequence[Ruling]) -> str:
    """All of it, unrounded: each ruling with its claim, its evidence and its findings."""
    counted = Counter(each.verdict for each in rulings)
    document = {
        "counted": {verdict: counted[verdict] for verdict in ORDER},
        "rulings": msgspec.to_builtins(rulings),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n"


def headline(rulings: Sequence[Ruling]) -> str:
    """``14 claims: 3 supported, 1 refuted, 10 not testable here``."""
    counted = Counter(each.verdict for each in rulings)
    claims = len({each.case.claim.id for each in rulings})
    settings = f" in {len(rulings)} settings" if len(rulings) > claims else ""
    parts = [f"{counted[verdict]} {verdict}" for verdict in ORDER if counted[verdict]]
    return f"{claims} claim{'s' * (claims != 1)}{settings}: {', '.join(parts) or 'nothing was asked'}"


def _sections(rulings: Sequence[Ruling], in_detail: bool, tame: Any) -> list[Section]:
    """``tame``: what makes any text safe where it is printed."""
    found = _details(rulings) if in_detail else _docket(rulings)
    return [
        section._replace(
            view=section.view._replace(title=tame(section.view.title)),
            rows=[
                {name: tame(x) if isinstance(x, str) else x for name, x in row.items()}
                for row in section.rows
            ],
            lines=[tame(line) for line in section.lines],
        )
        for section in found
    ]


def _section(title: str, rows: Sequence[Row], shown: Sequence[Shown], lines: Sequence[str]) -> Section:
    columns = [each.column for each in shown]
    view = View(title, columns, lambda _: list(rows), shown, lambda *_: lines)
    return Section("claims", view, rows, lines)


# --------------------------------------------------------------------------------------------- the docket


def _text(row: Row, column: str) -> str:
    return NA if row[column] is None else str(row[column])


def _gap(row: Row, column: str) -> str:
    return "" if row[column] is None else str(row[column])


SETTLED = (
    Shown("claim", "claim", _text),
    Shown("subject / baseline", "pair", _text),
    Shown("on", "where", _text),
    Shown("verdict", "verdict", _text),
    Shown("holds in", "holds", _gap),
    Shown("ratio", "ratio", _gap),
    Shown("why", "why", _text),
)
UNHEARD = (Shown("claim", "claim", _text), Shown("verdict", "verdict", _text), Shown("why", "why", _text))


def _docket(rulings: Sequence[Ruling]) -> list[Section]:
    """Claims that something bears on, and those that nothing here does."""
    found = ordered(rulings)
    heard = [each for each in found if each.case.setting is not None]
    unheard = [each for each in found if each.case.setting is None]
    rows, places = list(map(_row, heard)), {_where(each) for each in heard}
    shown = [each for each in SETTLED if each.column != "where" or len(places) > 1]
    told = [
        *(f"all on {place}" for place in places if len(places) == 1),
        "holds in: cells of its grid; ratio: subject / baseline with the interval the verdict rests on",
        *_how_sure(heard),
        *([OF_A_CLASS] if any(_is_of_a_class(each.case.claim) for each in heard) else []),
    ]
    last = "profile claims --claim ID: the cells of one claim, and what would have to be measured"
    told_of = [
        _section("Claims on trial", rows, shown, told),
        _section("Nothing here bears on", list(map(_row, unheard)), UNHEARD, []),
    ]
    return [*(each for each in told_of if each.rows), _section(headline(rulings), [], UNHEARD, [last])]


def ordered(rulings: Sequence[Ruling]) -> list[Ruling]:
    """Rulings of one claim stand together, and claims by the first verdict of ORDER that they have."""
    best: dict[str, int] = {}
    for each in rulings:
        name, rank = each.case.claim.id, ORDER.index(each.verdict)
        best[name] = min(rank, best.get(name, rank))
    return sorted(
        rulings, key=lambda each: (best[each.case.claim.id], each.case.claim.id, ORDER.index(each.verdict))
    )


def _row(ruling: Ruling) -> Row:
    setting, cells = ruling.case.setting, len(ruling.findings)
    held = sum(each.verdict == "supported" for each in ruling.findings)
    judged = any(each.ratio is not None for each in ruling.findings)
    return {
        "claim": ruling.case.claim.id,
        "pair": f"{_short(setting.subject)} / {_short(setting.baseline)}" if setting else None,
        "where": _where(ruling),
        "verdict": f"{MARKS[ruling.verdict]} {ruling.verdict}",
        "holds": f"{held} of {cells}" if judged else None,
        "ratio": ratios(ruling.findings),
        "why": ruling.why,
    }


def _short(model: str) -> str:
    """Without its maker, which a table has no room for."""
    return model.rpartition("/")[2]


def _where(ruling: Ruling) -> str | None:
    setting = ruling.case.setting
    return f"{setting.machine}, {setting.engine}" if setting else None


def ratios(findings: Sequence[Finding]) -> str | None:
    """One ratio with its interval, or the least and the most of several."""
    found = [each.ratio for each in findings if each.ratio is not None]
    if not found:
        return None
    if len(found) == 1:
        low, high = found[0].low, found[0].high
        bounds = "" if low is None or high is None else f" [{significant(low)}, {significant(high)}]"
        return significant(found[0].value) + (bounds if low != high else "")
    values = [each.value for each in found]
    return f"{significant(min(values))} … {significant(max(values))}"


def _how_sure(rulings: Sequence[Ruling]) -> Iterator[str]:
    if any(each.case.looks is None and any(map(_scatters, each.findings)) for each in rulings):
        yield (
            "figures that come from no trial are judged at 98 %: nobody knows how often they were looked at "
            "(docs/statistics.md); profile claims run CLAIM holds a trial"
        )


# ---------------------------------------------------------------------------------------------- one claim


def _count(row: Row, column: str) -> str:
    return "any" if row[column] is None else f"{row[column]:,}"


def _interval(row: Row, column: str) -> str:
    """The ends of the interval; one that the figures do not bound is a question mark."""
    ends = row[column]
    if ends is None or ends == (None, None):
        return ""
    return f"[{', '.join('?' if each is None else significant(each) for each in ends)}]"


CELLS = (
    Shown("batch", "batch", _count),
    Shown("input\ntokens", "input_tokens", _count),
    Shown("output\ntokens", "output_tokens", _count),
    Shown("subject", "subject", _gap),
    Shown("baseline", "baseline", _gap),
    Shown("starts", "starts", _gap),
    Shown("ratio", "ratio", _gap),
    Shown("interval", "interval", _interval),
    Shown("Fieller", "fieller", _interval, spare=True),
    Shown("verdict", "verdict", _text),
    Shown("why", "why", _text),
)


def _details(rulings: Sequence[Ruling]) -> list[Section]:
    """What each claim says, and below it a section for each setting it was judged in."""
    found = []
    for claim, own in groupby(rulings, key=lambda each: each.case.claim):
        about = [f"claimed: {stated(claim)} ({_source(claim)})"]
        about += [f"would not be comparable: {line}" for line in claim.not_comparable]
        about += [OF_A_CLASS] if _is_of_a_class(claim) else []
        found.append(_section(f"{claim.id}: “{claim.text}”", [], CELLS, about))
        found += list(map(detail, own))
    return found


def detail(ruling: Ruling) -> Section:
    setting = ruling.case.setting
    where = f"{setting.pair} on {setting.machine}, {setting.engine}: " if setting else ""
    rows = [_cell(each, ruling.case.claim.metric) for each in ruling.findings]
    return _section(f"{where}{ruling.verdict.upper()}", rows, CELLS, list(dict.fromkeys(_lines(ruling))))


def _cell(finding: Finding, metric: str) -> Row:
    evidence, cell = finding.evidence, finding.evidence.cell
    sides = (evidence.subject, evidence.baseline)
    scatter = any(side.exact is None for side in sides)
    return {
        "batch": cell.batch,
        "input_tokens": cell.input_tokens,
        "output_tokens": cell.output_tokens,
        "subject": _figure(_middle(evidence.subject), metric),
        "baseline": _figure(_middle(evidence.baseline), metric),
        "starts": " / ".join(map(_starts, sides)) if scatter else None,
        "ratio": significant(finding.ratio.value) if finding.ratio else None,
        "interval": (finding.ratio.low, finding.ratio.high) if finding.ratio else None,
        "fieller": (finding.fieller.low, finding.fieller.high) if finding.fieller else None,
        "verdict": f"{MARKS[finding.verdict]} {finding.verdict}",
        "why": finding.why,
    }


def _middle(side: Side) -> float | None:
    if side.exact is not None:
        return side.exact
    if side.values:
        return stats.over_repeats(side.values).value
    return side.within.value if side.within else None


def _figure(value: float | None, metric: str) -> str | None:
    """With as much of a unit as makes it short."""
    if value is None:
        return None
    if metrics.of(metric).unit == "bytes":
        return f"{significant(value / 2**30)} GiB"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{significant(value / size)} {letter}"
    return significant(value)


def _starts(side: Side) -> str:
    return "exact" if side.exact is not None else str(len(side.values) or NA)


def _lines(ruling: Ruling) -> Iterator[str]:
    """All that is to know beside the cells, the reason first."""
    yield ruling.why
    yield from ruling.region
    yield from _rests_on(ruling.case, ruling.findings)
    yield from _remarks(ruling.findings)
    yield from (f"missing: {line}" for line in _shortened(ruling.missing))


def _shortened(missing: Sequence[str]) -> Iterator[str]:
    """The first few, and the last, which is the command that makes them."""
    few = missing if len(missing) <= MOST_MISSING else missing[: MOST_MISSING - 2]
    yield from few
    if len(few) < len(missing):
        yield f"and {len(missing) - len(few) - 1} more (--format json has them all)"
        yield missing[-1]


def _remarks(findings: Sequence[Finding]) -> Iterator[str]:
    """Each note once, with the cells it is of where it is not of all."""
    held: dict[str, list[str]] = {}
    for each in findings:
        for note in (*each.evidence.notes, *each.remarks):
            held.setdefault(note, []).append(making.place(each.evidence.cell))
    for note, places in held.items():
        yield note if len(places) == len(findings) else f"{'; '.join(places)}: {note}"


def _is_of_a_class(claim: Claim) -> bool:
    return claim.subject.kind is not None or claim.baseline.kind is not None


def stated(claim: Claim) -> str:
    """``output_tokens_per_s of the subject is at least 1.74 times that of the baseline, practical …``."""
    many = f"{claim.factor:g} times" if claim.factor else ""
    said = {
        "more": f"at least {many} that of the baseline" if many else "more than that of the baseline",
        "less": f"at least {many} less than that of the baseline"
        if many
        else "less than that of the baseline",
        "equal": "that of the baseline",
        "about": f"about {many} that of the baseline",
    }[claim.relation]
    margin = "" if claim.untestable else f", practical margin {metrics.margin_frac(claim) * 100:.3g} %"
    return f"{claim.metric} of the subject is {said}{margin}"


def _source(claim: Claim) -> str:
    parts = (claim.source.name, claim.source.date, claim.source.url)
    return ", ".join(part for part in parts if part)


def _rests_on(case: Case, findings: Sequence[Finding]) -> Iterator[str]:
    """At which confidence it is judged, and why."""
    sure = sorted({each.confidence for each in findings if each.confidence and _scatters(each)})
    if not sure:
        return
    words = " and ".join(f"{each * 100:.4g} %" for each in sure)
    if case.looks is None:
        yield (
            f"intervals of {words}: nobody knows how often figures that come from no trial were looked at "
            "(docs/statistics.md)"
        )
    else:
        share = math.floor(case.looks[-1] * 100)
        yield f"intervals of {words}: look {len(case.looks)} of its trial, {share} % of the planned starts in"


def _scatters(finding: Finding) -> bool:
    """Whether its interval is one of a test."""
    sides = (finding.evidence.subject, finding.evidence.baseline)
    return finding.confidence is not None and any(side.exact is None for side in sides)
