"""Sealed runs → the document that a report shows: the answer, figures, tables, verdicts, caveats."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from profiler import alike, comparison, host_facts, prices
from profiler.charts import kinds, loads, theme
from profiler.charts.words import one_line
from profiler.claims.nouns import Ruling
from profiler.comparison import Answer, Question, money
from profiler.figures import Figures
from profiler.report import page, table
from profiler.report.html import drawn, evidence, opening, results, tables
from profiler.report.html.nouns import (
    Block,
    Document,
    Figure,
    Form,
    Gaps,
    Item,
    Notes,
    Paragraph,
    Section,
    Table,
)
from profiler.store import RunResult

# What is said of single runs (searches, limits, routing) is said of so many at most.
MOST_RUNS = 24
CAPTIONS = {
    "over": "Over the baseline at the same load",
    "counter J": "Energy",
    "MBU": "Against the machine's ceilings",
}


class Asked(Struct, frozen=True, kw_only=True):
    """How a report was asked for beside its runs; ``score``: the benchmark of cost against quality."""

    question: Question = Question()
    title: str | None = None
    score: str | None = None


PLAINLY = Asked()


def document(
    runs: Sequence[RunResult],
    found: Sequence[Figures],
    rulings: Sequence[Ruling] = (),
    asked: Asked = PLAINLY,
) -> Document:
    """All there is to say.  ``found``: the figures of ``runs``; ``rulings``: claims judged by them.

    The same on any day: prices are as old as they were when the last run was made.  Raises InputError where
    the question is wrong or nothing is left by it."""
    with prices.as_of(_last_day(runs)):
        return _whole(runs, found, rulings, asked)


def _whole(
    runs: Sequence[RunResult], found: Sequence[Figures], rulings: Sequence[Ruling], asked: Asked
) -> Document:
    answer, kept = _answered(runs, found, asked.question)
    baseline = _baseline(kept, asked.question)
    wanted = kinds.Asked(terms=asked.question.terms, baseline=baseline, score=asked.score)
    figures = drawn.of(kept, wanted)
    sections = [
        *figures.sections,
        *_tables(kept, answer, asked.question, figures.keys()),
        *_section("claims", "Verdicts", evidence.blocks(rulings, _models(kept))),
        *_section("hosts", "Hosts and runs", _hosts(kept)),
        *_section("missing", "What is not shown, and why", _gaps(figures.gaps)),
    ]
    return _page(kept, answer, found, asked, sections)


def compared(runs: Sequence[RunResult], found: Sequence[Figures], asked: Asked = PLAINLY) -> Document:
    """The same without figures and verdicts, which take seconds."""
    with prices.as_of(_last_day(runs)):
        answer, kept = _answered(runs, found, asked.question)
        sections = [
            *_tables(kept, answer, asked.question),
            *_section("hosts", "Hosts and runs", _hosts(kept)),
        ]
        return _page(kept, answer, found, asked, sections)


def _last_day(runs: Sequence[RunResult]) -> datetime.date:
    return datetime.date.fromisoformat(max(opening.day(run.manifest) for run in runs))


def _answered(
    runs: Sequence[RunResult], found: Sequence[Figures], question: Question
) -> tuple[Answer, list[RunResult]]:
    """The lines that were asked for, and the runs that have any of them or never had one."""
    answer = comparison.answer(found, question)
    wanted = {folder for line in answer.lines for folder in line.folders}
    measured = {each.run for each in found}
    return answer, [run for run in runs if str(run.folder) in wanted or str(run.folder) not in measured]


def _page(
    runs: Sequence[RunResult],
    answer: Answer,
    found: Sequence[Figures],
    asked: Asked,
    sections: Sequence[Section],
) -> Document:
    lead, *findings = results.sentences(runs, found, asked.question, _baseline(runs, asked.question))
    priced = table.price_lines([line.row() for line in answer.lines[: tables.MOST_LINES]], with_ages=False)
    terms = [Item("Cost", "; ".join(line.removeprefix("price: ") for line in priced[:2]))] if priced else []
    page_ = Document(
        title=one_line(asked.title) if asked.title else opening.title(runs),
        kicker="Profile report",
        lead=lead,
        findings=tuple(findings),
        warnings=loads.caveats(runs),
        facts=(*opening.facts(runs, found), *terms),
        sections=tuple(sections),
    )
    return numbered(page_, _models(runs))


def _baseline(runs: Sequence[RunResult], question: Question) -> str | None:
    """Where it is a model; figures know no other."""
    return question.baseline if question.baseline in _models(runs) else None


def _models(runs: Sequence[RunResult]) -> list[str]:
    return list(dict.fromkeys(run.manifest.model.name for run in runs))


def _section(name: str, title: str, blocks: Sequence[Block]) -> Iterator[Section]:
    if blocks:
        yield Section(id=name, title=title, blocks=tuple(blocks))


def _gaps(items: Sequence[Item]) -> tuple[Block, ...]:
    """Each reason once."""
    each = dict.fromkeys((item.name, item.text) for item in items)
    return (Gaps(tuple(Item(*pair) for pair in each)),) if each else ()


# ---------------------------------------------------------------------------------------------- tables


def _tables(
    runs: Sequence[RunResult], answer: Answer, question: Question, drawn_keys: Collection[str] = ()
) -> Iterator[Section]:
    """The table of all loads with the form of its money, those beside it, and the caveats below all."""
    lines = answer.lines if question.sort else comparison.together(answer.lines)
    rows = [line.row() for line in lines[: tables.MOST_LINES]]
    asked = page.Asked(notes=answer.notes, in_order=True, brief=len(runs) > MOST_RUNS, undated=True)
    first, *others = page.parts(rows, runs, asked)
    caveats = list(map(_plain, first.lines))
    blocks: list[Block] = []
    if rows:
        beyond = [line for line in lines[tables.MOST_DATA :] if money.key(line.found) in drawn_keys]
        paid = money.of_lines([*lines[: tables.MOST_DATA], *beyond], question.terms)
        blocks.append(Form("On what terms", paid))
        told, caveats = caveats[:1], caveats[1:]
        caption = f"Speed, memory, energy and cost of {len(lines):,} loads"
        blocks.append(tables.of_loads(lines, name="loads", caption=caption, notes=told))
    for part in others:
        if part.shown:
            headers = [each.header for each in part.shown]
            caption = next(caption for header, caption in CAPTIONS.items() if header in headers)
            name = caption.split()[0].lower()
            notes = tuple(map(_plain, part.lines))
            blocks.append(tables.of_rows(part.rows, part.shown, name=name, caption=caption, notes=notes))
        else:
            caveats += map(_plain, part.lines)
    yield from _section("tables", "Every load in numbers", blocks)
    yield from _section("caveats", "What to know of all this", (Notes(tuple(caveats)),) if caveats else ())


def _plain(line: str) -> str:
    return one_line(line.removeprefix(page.BULLET))


# ----------------------------------------------------------------------------------------------- hosts


def _hosts(runs: Sequence[RunResult]) -> tuple[Block, ...]:
    """Machines and software, how they differ, and the runs by name."""
    differ = alike.host_differences(runs)[: tables.MOST_LINES]
    kinds_ = list(dict.fromkeys(tuple(host_facts.facts(run.manifest.host).items()) for run in runs))
    heads = ["host", *(name for name, _ in kinds_[0])] if kinds_ else []
    lines = [[f"{place}", *(text for _, text in each)] for place, each in enumerate(kinds_, 1)]
    found: list[Block] = []
    if len(kinds_) > 1:
        found.append(
            Paragraph(
                f"The runs were made on {len(kinds_)} kinds of host or software: figures of unlike hosts "
                "are not to be ranked against each other.",
                is_warning=True,
            )
        )
    if lines:
        found.append(tables.of_texts("hosts", "Machines and software", heads, lines))
    if differ:
        found.append(Notes(tuple(map(one_line, differ)), "Differences"))
    found.append(_runs(runs, kinds_))
    return tuple(found)


def _runs(runs: Sequence[RunResult], kinds_: Sequence[tuple[tuple[str, str], ...]]) -> Table:
    heads = ["run", "model", "scenario", "date (UTC)", "status", "windows", "profile", "host"]
    lines = [
        [
            run.folder.name,
            run.manifest.model.name,
            run.manifest.scenario.name,
            opening.day(run.manifest),
            run.manifest.status,
            f"{len(run.manifest.windows)}",
            run.manifest.tool_version,
            f"{kinds_.index(tuple(host_facts.facts(run.manifest.host).items())) + 1}",
        ]
        for run in runs
    ]
    return tables.of_texts("runs", "Runs", heads, lines)


# --------------------------------------------------------------------------------------------- numbers


def numbered(document: Document, models: Sequence[str]) -> Document:
    """Figures and tables counted through, and one colour a model in all of them."""
    counts = {Figure: 0, Table: 0}

    def count(block: Block) -> Block:
        if isinstance(block, Figure):
            counts[Figure] += 1
            spec = theme.in_order(block.chart.spec, models)
            return replace(block, chart=replace(block.chart, spec=spec), number=counts[Figure])
        if isinstance(block, Table):
            counts[Table] += 1
            return replace(block, number=counts[Table])
        return block

    def each(section: Section) -> Section:
        blocks, folded = tuple(map(count, section.blocks)), tuple(map(count, section.folded))
        return replace(section, blocks=blocks, folded=folded, parts=tuple(map(each, section.parts)))

    return replace(document, sections=tuple(map(each, document.sections)))
