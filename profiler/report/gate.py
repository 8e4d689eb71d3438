"""What a gate found as terminal table, Markdown, JSON and JUnit XML: one list of cells, four renderings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from profiler.charts.words import NA, one_line, significant
from profiler.gate.nouns import FAILURES, Cell, Report
from profiler.report.table import in_markdown
from profiler.windows import LATENCIES

if TYPE_CHECKING:
    from rich.table import Table

HEADERS = (
    "model",
    "scenario",
    "load",
    "metric",
    "baseline",
    "new",
    "change",
    "95 %",
    "limit",
    "verdict",
    "needs",
)
MARKS = {"pass": "✓", "fail": "✗", "undecided": "?"}
WORDS = {"pass": "PASS", "fail": "FAIL", "undecided": "UNDECIDED"}
MOST = 10.0  # times the baseline: beyond it an interval says no more than that it is wide
# What XML 1.0 has no way to write: a name may hold anything.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def headline(report: Report) -> str:
    """The verdict and what it rests on, in one line."""
    counted = Counter(str(cell.verdict) for cell in report.cells)
    parts = [f"{counted[verdict]} {verdict}" for verdict in MARKS if counted[verdict]]
    parts += [f"{len(report.missing)} not comparable"] if report.missing else []
    return f"gate: {WORDS[report.verdict]} ({', '.join(parts) or 'nothing was compared'})"


def lines(report: Report) -> Iterator[str]:
    """What is said below the table."""
    yield from (f"{_name(cell)}: {cell.why}" for cell in report.cells if cell.verdict == "fail")
    yield from _undecided([cell for cell in report.cells if cell.verdict == "undecided"])
    yield from report.missing
    if report.under_test:
        yield f"under test: {'; '.join(report.under_test)}"
    yield from report.notes
    yield from _rests_on(report.cells)


def _undecided(cells: Sequence[Cell]) -> Iterator[str]:
    """One line a reason, with the cells it holds for."""
    waiting = [cell.needed for cell in cells if cell.needed]
    if waiting:
        half = sorted(waiting)[(len(waiting) - 1) // 2]
        some = f", {half} half of them" if half < max(waiting) else ""
        yield (
            f"{len(waiting)} undecided for want of replicas: {max(waiting)} a side would decide{some}, "
            "if the changes are as seen"
        )
    reasons: dict[str, list[Cell]] = {}
    for cell in cells:
        if not cell.needed:
            reasons.setdefault(cell.why, []).append(cell)
    for why, held in reasons.items():
        others = f" and {len(held) - 1} more" if len(held) > 1 else ""
        yield f"{_name(held[0])}{others}: {why}"


def _rests_on(cells: Sequence[Cell]) -> Iterator[str]:
    counts = {(cell.n_base, cell.n_new, cell.replica) for cell in cells if cell.metric != FAILURES}
    for base, new, replica in sorted(counts):
        words = "engine starts" if replica == "starts" else "repeats within one start"
        yield f"replicas: {base} → {new} {words}"


def _name(cell: Cell) -> str:
    subject = cell.subject
    return f"{subject.model}, {subject.scenario}, {subject.load}, {cell.metric}"


def _texts(cell: Cell) -> list[str]:
    subject = cell.subject
    base, new = (_value(cell.metric, value) for value in (cell.base, cell.new))
    change, interval = _change(cell)
    limit = f"{cell.limit_frac * 100:.3g}%" + (" points" if cell.metric == FAILURES else "")
    verdict = f"{MARKS[cell.verdict]} {cell.verdict}"
    found = [subject.model, subject.scenario, subject.load, cell.metric]
    return [
        *found,
        base,
        new,
        change,
        interval,
        limit,
        verdict,
        "" if cell.needed is None else str(cell.needed),
    ]


def _value(metric: str, value: float | None) -> str:
    """With its unit where the metric's name has another than a reader wants."""
    if value is None:
        return NA
    if metric == FAILURES:
        return f"{value * 100:.3g}%"
    if metric.startswith(LATENCIES):
        return f"{significant(value * 1e3)} ms"
    if metric.endswith("_bytes"):
        return f"{significant(value / 2**30)} GiB"
    return significant(value)


def _change(cell: Cell) -> tuple[str, str]:
    if cell.change is None:
        return NA, NA
    low, high = cell.change.low, cell.change.high
    ends = NA if low is None or high is None else f"{_percent(low)} to {_percent(high)}"
    return f"{_percent(cell.change.value)}%", f"{ends}%" if ends != NA else NA


def _percent(ratio: float) -> str:
    if ratio > MOST:
        return f">+{(MOST - 1) * 100:.0f}"
    return f"{(ratio - 1) * 100:+.1f}".replace("-", "−")


def _columns(cells: Sequence[Cell]) -> tuple[Sequence[str], list[list[str]]]:
    """Headers and rows, less what is the same or empty in every row."""
    rows = [_texts(cell) for cell in cells]
    spare = {"model", "scenario", "load"} if len(rows) > 1 else set()
    shown = [
        place
        for place, header in enumerate(HEADERS)
        if not (header in spare and len({row[place] for row in rows}) == 1)
        and any(row[place] for row in rows)
    ]
    return [HEADERS[place] for place in shown], [[row[place] for place in shown] for row in rows]


def rich_table(report: Report) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    headers, rows = _columns(report.cells)
    for header in headers:
        left = header in ("model", "scenario", "load", "metric", "verdict")
        table.add_column(header, justify="left" if left else "right", overflow="fold")
    for place, (cell, texts) in enumerate(zip(report.cells, rows, strict=True)):
        last = place + 1 == len(report.cells) or report.cells[place + 1].subject != cell.subject
        style = {"fail": "bold red", "undecided": "yellow"}.get(cell.verdict)
        table.add_row(*(escape(one_line(text)) for text in texts), end_section=last, style=style)
    return table


def markdown(report: Report) -> str:
    """A summary for a pull request: the verdict, what did not pass, and the whole table below a fold."""
    text = [f"### {in_markdown(headline(report))}", ""]
    text += [f"- {in_markdown(line)}" for line in lines(report)]
    if report.cells:
        text += ["", "<details><summary>all cells</summary>", ""]
        headers, rows = _columns(report.cells)
        text += ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
        text += ["| " + " | ".join(map(in_markdown, row)) + " |" for row in rows]
        text += ["", "</details>"]
    return "\n".join(text) + "\n"


def as_json(report: Report) -> str:
    document = {"verdict": report.verdict} | msgspec.to_builtins(report)
    return msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n"


def junit(report: Report) -> str:
    """A test case a cell: failed, or skipped where undecided, with the reason; what could not be compared is
    a skipped case of its own."""
    from xml.etree import ElementTree

    root = ElementTree.Element("testsuites", name="profile gate")
    for name, cases in _suites(report).items():
        counted = Counter(each.verdict for each in cases)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_xml(name),
            tests=str(len(cases)),
            failures=str(counted["fail"]),
            errors="0",
            skipped=str(counted["undecided"]),
        )
        for each in cases:
            element = ElementTree.SubElement(suite, "testcase", classname=_xml(name), name=_xml(each.name))
            if each.verdict == "pass":
                ElementTree.SubElement(element, "system-out").text = _xml(each.said)
            else:
                kind = "failure" if each.verdict == "fail" else "skipped"
                ElementTree.SubElement(element, kind, message=_xml(each.why)).text = _xml(each.said)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


class Case(NamedTuple):
    name: str
    verdict: str
    why: str
    said: str


def _suites(report: Report) -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = {}
    for cell in report.cells:
        subject = cell.subject
        case = Case(f"{subject.load} {cell.metric}", cell.verdict, cell.why, _said(cell))
        found.setdefault(f"{subject.model}.{subject.scenario}", []).append(case)
    if report.missing:
        found["not comparable"] = [Case(line, "undecided", line, line) for line in report.missing]
    return found


def _said(cell: Cell) -> str:
    return ", ".join(f"{header} {text}" for header, text in zip(HEADERS, _texts(cell), strict=True))


def _xml(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)
