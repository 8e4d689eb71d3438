"""Rulings → the docket of a page: each claim that something here bears on, and what its verdict rests on."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.charts.words import one_line, slug
from profiler.claims.nouns import Ruling, Verdict
from profiler.report import claims
from profiler.report.html import tables
from profiler.report.html.nouns import Block, Docket, Evidence, Mark, Paragraph

MOST = 40  # rulings; a results folder of years has more settings than anybody reads
MARKS: dict[Verdict, Mark] = {
    "supported": "good",
    "refuted": "bad",
    "direction only": "open",
    "undecided": "open",
    "not comparable": "plain",
    "not testable here": "plain",
}


def blocks(rulings: Sequence[Ruling], models: Sequence[str]) -> tuple[Block, ...]:
    """The docket of what is claimed of ``models``, and how many claims nothing here bears on."""
    heard = [each for each in claims.ordered(rulings) if _bears(each, models)]
    silent = len({each.case.claim.id for each in rulings} - {each.case.claim.id for each in heard})
    if not heard:
        return (Paragraph(_silent(silent)),) if silent else ()
    shown = heard[:MOST]
    told = [Paragraph(one_line(claims.headline(heard)) + ".")]
    docket = Docket(tuple(_evidence(each, place) for place, each in enumerate(shown, 1)))
    more = f"{len(heard) - MOST:,} further rulings: profile claims RUN…" if len(heard) > MOST else ""
    last = [line for line in (more, _silent(silent) if silent else "") if line]
    return (*told, docket, *(Paragraph(line) for line in last))


def _bears(ruling: Ruling, models: Sequence[str]) -> bool:
    """Whether it rests on runs at hand, or is of their models: others are judged by configs and price lists
    alone, whatever was measured."""
    setting = ruling.case.setting
    if setting is None:
        return False
    sides = [side for each in ruling.findings for side in (each.evidence.subject, each.evidence.baseline)]
    return any(side.runs for side in sides) or {setting.subject, setting.baseline} <= set(models)


def _silent(claims_: int) -> str:
    one = claims_ == 1
    return (
        f"Nothing in these runs bears on {claims_} further claim{'' if one else 's'} of the catalog "
        "(profile claims RUN… names what would have to be measured)."
    )


def _evidence(ruling: Ruling, place: int) -> Evidence:
    section = claims.detail(ruling)
    claim, setting = ruling.case.claim, ruling.case.setting
    name = f"{slug(claim.id)}-{place}"
    where = f"{setting.pair} on {setting.machine}, {setting.engine}" if setting else ""
    table = tables.of_section(section._replace(lines=[]), f"cells-{name}") if section.rows else None
    return Evidence(
        id=name,
        text=one_line(claim.text),
        verdict=ruling.verdict,
        mark=MARKS[ruling.verdict],
        why=one_line(_found(ruling)),
        about=one_line(f"{where}. Claimed: {claims.stated(claim)}"),
        lines=tuple(map(one_line, section.lines)),
        table=table,
    )


def _found(ruling: Ruling) -> str:
    """``Ratio 1.5 [1.4, 1.6], in 3 of 3 cells: why``."""
    ratio, cells = claims.ratios(ruling.findings), len(ruling.findings)
    if ratio is None:
        return ruling.why
    held = sum(each.verdict == "supported" for each in ruling.findings)
    return f"Ratio {ratio}, holds in {held} of {cells} cell{'' if cells == 1 else 's'}: {ruling.why}"
