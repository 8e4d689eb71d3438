"""A record of rulings as a text to cite: what was claimed, what was found of which runs, how to check it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from profiler.charts.words import one_line, significant
from profiler.claims import record as records
from profiler.claims.nouns import Claim
from profiler.claims.record import CellRecord, Record, RulingRecord, RunRecord, SideRecord
from profiler.report.table import in_markdown

NONE = "–"
_URL = re.compile(r"https?://[^\s<>]+")
Lines = Iterator[str]


def markdown(record: Record) -> str:
    """Markdown, with a BibTeX entry that names the record by its SHA-256."""
    digest = records.digest(record)
    return (
        "\n".join([*_head(record, digest), *_rulings(record), *_runs(record), *_how(record, digest)]) + "\n"
    )


def _head(record: Record, digest: str) -> Lines:
    yield "# Claims on trial: the record"
    yield ""
    yield f"{record.tool} {record.tool_version}. SHA-256 of the record: `{digest}`."


def _rulings(record: Record) -> Lines:
    claim: Claim | None = None
    for ruling in record.rulings:
        if ruling.claim != claim:
            claim = ruling.claim
            yield from _claim(ruling)
        yield from _ruling(ruling)


def _claim(ruling: RulingRecord) -> Lines:
    claim, source = ruling.claim, ruling.claim.source
    said = in_markdown(f"{source.name}, {source.date}")
    if source.url:
        said += f", <{source.url}>" if _URL.fullmatch(source.url) else f", {in_markdown(source.url)}"
    yield from ("", f"## {in_markdown(claim.id)}", "", f"> {in_markdown(claim.text)}  ")
    yield from (f"> {said}", "")
    factor = "" if claim.factor is None else f" {claim.factor:g}"
    yield (
        f"On trial: `{claim.metric}` of subject / baseline, {claim.relation}{factor}; digest of the claim "
        + (f"`{ruling.claim_sha256}`.")
    )


def _ruling(ruling: RulingRecord) -> Lines:
    where = ruling.setting
    place = f" — {where.pair}; {where.machine}; {where.engine}" if where else ""
    yield from ("", f"**{ruling.verdict}**{in_markdown(place)}: {in_markdown(ruling.why)}", "")
    if ruling.cells:
        yield "| batch | input | output | subject / baseline | interval | starts | verdict | why |"
        yield "|--:|--:|--:|--:|--:|--:|---|---|"
        yield from map(_cell, ruling.cells)
        yield ""
    yield from (f"* {in_markdown(line)}" for line in ruling.region)
    if ruling.looks is not None:
        yield f"* A trial, looked at {', '.join(f'{x:.0%}' for x in ruling.looks)} of its planned starts."
    notes = dict.fromkeys(
        note for cell in ruling.cells for note in (*cell.doubts, *cell.remarks, *cell.notes)
    )
    yield from (f"* {in_markdown(note)}" for note in notes)


def _cell(found: CellRecord) -> str:
    at, ratio = found.cell, found.ratio
    cells = (
        *(NONE if each is None else f"{each:,}" for each in (at.batch, at.input_tokens, at.output_tokens)),
        NONE if ratio is None else significant(ratio.value),
        _interval(found),
        f"{_starts(found.subject)} / {_starts(found.baseline)}",
        found.verdict,
        in_markdown(found.why),
    )
    return f"| {' | '.join(cells)} |"


def _interval(found: CellRecord) -> str:
    """Of how many percent; none of what is exact on both sides."""
    ratio, confidence = found.ratio, found.confidence
    if ratio is None or ratio.low is None or ratio.high is None or confidence is None:
        return NONE
    if ratio.low == ratio.high:
        return NONE
    return f"{significant(ratio.low)} to {significant(ratio.high)} ({100 * confidence:.4g} %)"


def _starts(side: SideRecord) -> str:
    return "exact" if side.exact is not None else str(len(side.values))


def _runs(record: Record) -> Lines:
    if not record.runs:
        return
    yield from ("", "## Runs", "", "| run | model | weights | engine | machine | SHA-256 of its manifest |")
    yield "|---|---|---|---|---|---|"
    yield from map(_run, record.runs)


def _run(run: RunRecord) -> str:
    engine = f"{run.engine} {run.engine_version or ''}".strip()
    machine = ", ".join(f"{name} {value}" for name, value in run.machine.items() if value != "absent")
    cells = [in_markdown(text) for text in (run.folder, run.model, run.weights, engine, machine)]
    return f"| {' | '.join(cells)} | `{run.sha256.get('manifest.json', NONE)}` |"


def _how(record: Record, digest: str) -> Lines:
    yield from ("", "## Check and cite", "", "The same rulings from the same runs:", "")
    yield from ("```", one_line(record.command), "```", "", "```bibtex", *_bibtex(record, digest), "```")


def _bibtex(record: Record, digest: str) -> Lines:
    found = _found(record.rulings)
    yield f"@misc{{{_key(record, digest)},"
    yield f"  title = {{{_tex(found)}}},"
    yield f"  author = {{{{{record.tool} {record.tool_version}}}}},"
    if years := sorted({run.utc[:4] for run in record.runs}):
        yield f"  year = {{{years[-1]}}},"
    yield f"  note = {{Record of a trial, SHA-256 {digest}}}"
    yield "}"


def _found(rulings: Sequence[RulingRecord]) -> str:
    """One claim with its verdict; of several how many."""
    claims = {each.claim.id: each.claim for each in rulings}
    if len(claims) != 1:
        return f"{len(claims)} claims on trial"
    verdicts = " and ".join(dict.fromkeys(each.verdict for each in rulings))
    return f"On trial: {next(iter(claims.values())).text} ({verdicts})"


def _key(record: Record, digest: str) -> str:
    ids = {each.claim.id for each in record.rulings}
    name = next(iter(ids)) if len(ids) == 1 else "claims"
    return f"{re.sub(r'[^A-Za-z0-9-]', '-', name)}-{digest[:8]}"


def _tex(text: str) -> str:
    """Braces would end the field early."""
    return re.sub(r"([&%$#_])", r"\\\1", text.translate(str.maketrans("{}\\", "() ")))
