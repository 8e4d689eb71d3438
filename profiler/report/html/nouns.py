"""What a page is made of, before it is HTML: sections of paragraphs, facts, figures, tables, verdicts, notes.

Nothing here is markup: every text is shown as it stands, whoever wrote it.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from profiler.charts.nouns import Chart
from profiler.comparison.money import Money

Mark = Literal["good", "bad", "open", "plain"]


class Item(Struct, frozen=True):
    """A fact by its name."""

    name: str
    text: str


class Paragraph(Struct, frozen=True):
    """``is_warning``: who reads only the figures must see it."""

    text: str
    is_warning: bool = False


class Facts(Struct, frozen=True):
    items: tuple[Item, ...]


class Notes(Struct, frozen=True):
    """Caveats, a line each."""

    lines: tuple[str, ...]
    title: str | None = None


class Figure(Struct, frozen=True):
    """``number`` counts through the document; the page calls it Figure 3.  ``notes``: those of the chart that
    are said below it; the others hold for the whole section, which says them once."""

    chart: Chart
    number: int = 0
    notes: tuple[str, ...] = ()


class Gaps(Struct, frozen=True):
    """Figures and tables that cannot be made of these runs: what, and why."""

    items: tuple[Item, ...]


class Head(Struct, frozen=True, kw_only=True):
    """A column of a table.  ``key``: its name among the table's ``data`` where it is one of them."""

    label: str
    key: str | None = None
    unit: str | None = None
    is_number: bool = True


class Cell(Struct, frozen=True):
    """``text`` is what is read, ``spread`` the ± after it in lighter ink, ``value`` the full figure by which
    rows are put in order (None: not measured, which comes last).  ``money``: the column that is computed
    again for it where a reader changes a price."""

    text: str
    value: float | str | None = None
    spread: str | None = None
    mark: Mark | None = None
    is_best: bool = False
    money: str | None = None

    @property
    def is_missing(self) -> bool:
        return self.text == "n/a"


class Line(Struct, frozen=True):
    """A row of a table; ``key`` as ``comparison.money.key`` makes it."""

    cells: tuple[Cell, ...]
    key: str | None = None


class Data(Struct, frozen=True, kw_only=True):
    """All columns of a table's lines, unrounded, in the same order: ``fields`` their names, ``keys`` those of
    the lines.  Columns that are not among the heads can be shown beside them, and all of it be had as CSV."""

    fields: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    keys: tuple[str, ...] = ()


class Table(Struct, frozen=True, kw_only=True):
    """``id``: a slug of its own on the page.  ``notes`` stand below it; ``more`` says what it leaves out."""

    id: str
    caption: str
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    more: str | None = None
    number: int = 0
    data: Data | None = None


class Form(Struct, frozen=True):
    """On what terms money is shown: an input for each of the fields of ``money`` that changes anything, and
    what the page needs to compute its rows again."""

    title: str
    money: Money
    notes: tuple[str, ...] = ()


class Evidence(Struct, frozen=True, kw_only=True):
    """A claim, its verdict and what that rests on; ``table`` holds the cells one by one."""

    id: str
    text: str
    verdict: str
    mark: Mark
    why: str
    about: str = ""
    lines: tuple[str, ...] = ()
    table: Table | None = None


class Docket(Struct, frozen=True):
    claims: tuple[Evidence, ...]


Block = Paragraph | Facts | Notes | Figure | Gaps | Table | Form | Docket


class Section(Struct, frozen=True, kw_only=True):
    """``id``: a slug; ``folded`` are blocks behind a line that opens; ``parts`` are sections inside it."""

    id: str
    title: str
    blocks: tuple[Block, ...] = ()
    folded: tuple[Block, ...] = ()
    parts: tuple[Section, ...] = ()


class Document(Struct, frozen=True, kw_only=True):
    """A page: ``kicker`` says of what kind it is, ``lead`` answers in a sentence, ``findings`` say more,
    ``warnings`` what none of it may be read without, ``facts`` what was measured on what.  ``links`` (name →
    address) stand above a page of a server; a file has none."""

    title: str
    kicker: str
    lead: str
    findings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: tuple[Item, ...] = ()
    sections: tuple[Section, ...] = ()
    links: tuple[Item, ...] = ()

    def blocks(self) -> list[Block]:
        """All of them, in the order of the page."""
        return [block for section in self.sections for block in _blocks(section)]


def _blocks(section: Section) -> list[Block]:
    return [*section.blocks, *section.folded, *(block for part in section.parts for block in _blocks(part))]
