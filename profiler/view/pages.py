"""What is asked of a folder → a document: its runs, a report, a comparison, the claims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from profiler import index, store
from profiler.charts import words
from profiler.charts.words import one_line
from profiler.claims import docket, reading
from profiler.report.html import document, evidence, opening
from profiler.report.html.document import Asked
from profiler.report.html.nouns import Cell, Document, Head, Item, Line, Notes, Paragraph, Section, Table

if TYPE_CHECKING:
    from profiler.figures import Figures
    from profiler.report.html.nouns import Block, Mark
    from profiler.schema import Manifest
    from profiler.view.folder import Entry, Folder

LINKS = (Item("Runs", "/"), Item("Claims", "/claims"))
HEADS = (
    Head(label="run", is_number=False),
    Head(label="model", is_number=False),
    Head(label="engine", is_number=False),
    Head(label="machine", is_number=False),
    Head(label="scenario", is_number=False),
    Head(label="loads"),
    Head(label="highest output", unit="tokens/s"),
    Head(label="at load"),
    Head(label="status", is_number=False),
    Head(label="measured", unit="UTC", is_number=False),
)
NOTHING = Cell("n/a")
MARKS: dict[str, Mark] = {"complete": "good", "running": "open", "interrupted": "open", "failed": "bad"}


def listing(folder: Folder) -> Document:
    """All runs, the newest first; a line's key is the run's name."""
    entries, broken = folder.entries()
    blocks: list[Block] = [Table(id="runs", caption="Runs", heads=HEADS, lines=tuple(map(_line, entries)))]
    if broken:
        blocks.append(_unread(broken))
    models = {entry.run.manifest.model.name for entry in entries}
    lead = f"{_many(len(entries), 'run')} of {_many(len(models), 'model')} in {folder.path}."
    if not entries:
        lead = (
            f"No runs in {folder.path} yet: profile run --out {folder.path} makes one. It will appear here."
        )
    return Document(
        title="Sealed runs",
        kicker="profile view",
        lead=one_line(lead),
        findings=(),
        facts=(),
        sections=(Section(id="all", title="Pick runs to look at", blocks=tuple(blocks)),),
        links=LINKS,
    )


def report(folder: Folder, names: Sequence[str], asked: Asked) -> Document:
    """Figures, tables and verdicts of the runs named, as ``profile report`` writes them."""
    runs, found = _read(folder, names)
    rulings = docket.docket(list(reading.shipped()), runs)
    return _linked(document.document(runs, found, rulings, asked))


def compared(folder: Folder, names: Sequence[str], asked: Asked) -> Document:
    """The tables of the runs named, without figures."""
    runs, found = _read(folder, names)
    return _linked(document.compared(runs, found, asked))


def claims(folder: Folder, names: Sequence[str]) -> Document:
    """The shipped claims, judged by the runs named, by all that can be read where none is."""
    entries, broken = ((), []) if names else folder.entries()
    runs, found = _read(folder, names or [entry.run.folder.name for entry in entries if entry.figures])
    rulings = docket.docket(list(reading.shipped()), runs)
    models = list(dict.fromkeys(run.manifest.model.name for run in runs))
    blocks = list(evidence.blocks(rulings, models)) or [Paragraph("No claim is on file.")]
    blocks += [_unread(broken)] if broken else []
    return Document(
        title="Claims on trial",
        kicker="profile view",
        lead=f"What {_many(len(runs), 'run')} in {one_line(str(folder.path))} say of the claims on file.",
        findings=(),
        facts=opening.facts(runs, found),
        sections=(Section(id="claims", title="Verdicts", blocks=tuple(blocks)),),
        links=LINKS,
    )


def _unread(broken: Sequence[str]) -> Notes:
    return Notes(tuple(map(one_line, broken)), "Folders that cannot be read")


def _read(folder: Folder, names: Sequence[str]) -> tuple[list[store.RunResult], list[Figures]]:
    found = index.runs(folder.named(names))
    return [store.load(each.folder) for each in found], [one for each in found for one in each.figures]


def _linked(made: Document) -> Document:
    from msgspec.structs import replace

    return replace(made, links=LINKS)


def _line(entry: Entry) -> Line:
    manifest, best = entry.run.manifest, _fastest(entry.figures)
    name = entry.run.folder.name
    texts = (name, manifest.model.name, opening.engine(manifest), opening.machine(manifest))
    return Line(
        (
            *(_text(each) for each in texts),
            _text(manifest.scenario.name),
            _count(len(entry.figures)),
            _rate(best),
            Cell(words.load(best.point)) if best else NOTHING,
            Cell(manifest.status, manifest.status, mark=MARKS.get(manifest.status)),
            _text(_moment(manifest)),
        ),
        name,
    )


def _fastest(figures: Iterable[Figures]) -> Figures | None:
    told = [each for each in figures if "output_tokens_per_s" in each.estimates]
    return max(told, key=lambda each: each.estimates["output_tokens_per_s"].value, default=None)


def _text(text: str) -> Cell:
    return Cell(one_line(text), one_line(text))


def _count(n: int) -> Cell:
    return Cell(f"{n}", n) if n else NOTHING


def _rate(best: Figures | None) -> Cell:
    if best is None:
        return NOTHING
    rate = best.estimates["output_tokens_per_s"]
    text, _, spread = words.interval(rate).partition(" ")
    return Cell(text, rate.value, spread or None)


def _moment(manifest: Manifest) -> str:
    """``2026-11-22 18:26``."""
    return f"{opening.day(manifest)} {manifest.utc[9:11]}:{manifest.utc[11:13]}"


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
