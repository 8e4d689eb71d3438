"""A ruling as a record that can be cited and checked: what was claimed, measured where, and found.

One JSON file.  It names each sealed run by its folder and the SHA-256 of its files, so that whoever has the
runs can say whether they are the same and whether the same verdicts come of them
(:mod:`profiler.claims.recheck`).  The same runs give the same bytes: nothing in it depends on when or where
it was written.

History of the schema (every version is read):
1  first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from profiler import __version__, host_facts, index, store
from profiler.claims import ledger
from profiler.claims.nouns import Cell, Claim, Evidence, Finding, Ruling, Setting, Side, Verdict
from profiler.errors import InputError
from profiler.schema import Estimate
from profiler.store import RunResult

VERSION = 1
FILES = (*index.FILES, "engine.log")


class SideRecord(Struct, frozen=True, kw_only=True):
    """As ``nouns.Side``; ``runs`` are names of run folders."""

    values: tuple[float, ...] = ()
    exact: float | None = None
    within: Estimate | None = None
    runs: tuple[str, ...] = ()
    facts: dict[str, Any] = {}


class CellRecord(Struct, frozen=True, kw_only=True):
    """A cell with its figures and what was found; ``ratio`` is subject / baseline with the interval, one of
    ``confidence``, that the verdict rests on; ``statistical`` the same without the systematic part."""

    cell: Cell
    verdict: Verdict
    why: str
    ratio: Estimate | None = None
    confidence: float | None = None
    statistical: Estimate | None = None
    fieller: Estimate | None = None
    p: float | None = None
    systematic_frac: float = 0.0
    remarks: tuple[str, ...] = ()
    subject: SideRecord
    baseline: SideRecord
    doubts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class RulingRecord(Struct, frozen=True, kw_only=True):
    """A claim, as it was written, in one setting.  ``claim_sha256`` is of all of it that shapes a verdict
    (``ledger.digest``); ``looks`` as in ``nouns.Case``."""

    claim: Claim
    claim_sha256: str
    setting: Setting | None = None
    verdict: Verdict
    why: str
    region: tuple[str, ...] = ()
    crossovers: tuple[tuple[Cell, Estimate], ...] = ()
    cells: tuple[CellRecord, ...] = ()
    looks: tuple[float, ...] | None = None
    missing: tuple[str, ...] = ()


class RunRecord(Struct, frozen=True, kw_only=True):
    """A sealed run that a ruling rests on.  ``sha256`` by name of a file in its folder; ``machine`` is what
    runs are compared by; ``trial`` the name of the trial it was held in."""

    folder: str
    utc: str
    tool_version: str
    model: str
    weights: str
    engine: str
    engine_version: str | None
    scenario_hash: str
    machine: dict[str, str]
    sha256: dict[str, str]
    trial: str | None = None


class TrialRecord(Struct, frozen=True, kw_only=True):
    """The ledger of a trial that runs were held in: without it nobody knows how often they were looked at."""

    id: str
    sha256: str


class Record(Struct, frozen=True, kw_only=True):
    """``command`` makes the same rulings of the same runs; ``tool_version`` made these."""

    schema_version: int = VERSION
    tool: str = "moe-profiler"
    tool_version: str
    command: str
    rulings: tuple[RulingRecord, ...]
    runs: tuple[RunRecord, ...] = ()
    trials: tuple[TrialRecord, ...] = ()


# ----------------------------------------------------------------------------------------------- making


def of(rulings: Sequence[Ruling], runs: Sequence[RunResult], command: str) -> Record:
    """The record of ``rulings``, which rest on some of ``runs``.  Raises InputError where one of those cannot
    be read."""
    known = {str(run.folder): run for run in runs}
    used = [known[folder] for folder in _folders(rulings) if folder in known]
    trials = {str(path): path for run in used for path in _ledgers(run)}
    held = {run: ledger.read(path).id for path in trials.values() for run in ledger.read(path).runs()}
    return Record(
        tool_version=__version__,
        command=command,
        rulings=tuple(_ruling(each) for each in rulings),
        runs=tuple(_run(run, held.get(run.folder.name)) for run in used),
        trials=tuple(TrialRecord(id=path.stem, sha256=_sha256(path)) for path in trials.values()),
    )


def _folders(rulings: Iterable[Ruling]) -> list[str]:
    """All run folders they rest on, each once."""
    folders = [
        folder
        for ruling in rulings
        for each in ruling.case.evidence
        for side in (each.subject, each.baseline)
        for folder in side.runs
    ]
    return list(dict.fromkeys(folders))


def _ruling(ruling: Ruling) -> RulingRecord:
    case = ruling.case
    return RulingRecord(
        claim=case.claim,
        claim_sha256=ledger.digest(case.claim),
        setting=case.setting,
        verdict=ruling.verdict,
        why=ruling.why,
        region=ruling.region,
        crossovers=ruling.crossovers,
        cells=tuple(_cell(each) for each in ruling.findings),
        looks=case.looks,
        missing=ruling.missing,
    )


def _cell(finding: Finding) -> CellRecord:
    evidence: Evidence = finding.evidence
    return CellRecord(
        cell=evidence.cell,
        verdict=finding.verdict,
        why=finding.why,
        ratio=finding.ratio,
        confidence=finding.confidence,
        statistical=finding.statistical,
        fieller=finding.fieller,
        p=finding.p,
        systematic_frac=evidence.systematic_frac,
        remarks=finding.remarks,
        subject=_side(evidence.subject),
        baseline=_side(evidence.baseline),
        doubts=evidence.doubts,
        missing=evidence.missing,
        notes=evidence.notes,
    )


def _side(side: Side) -> SideRecord:
    """Folders by their names: where they lay is nobody's business."""
    names = tuple(dict.fromkeys(Path(run).name for run in side.runs))
    return SideRecord(
        values=side.values, exact=side.exact, within=side.within, runs=names, facts=dict(side.facts)
    )


def _run(run: RunResult, trial: str | None) -> RunRecord:
    manifest = run.manifest
    return RunRecord(
        folder=run.folder.name,
        utc=manifest.utc,
        tool_version=manifest.tool_version,
        model=manifest.model.name,
        weights=manifest.model.weights,
        engine=manifest.engine.kind,
        engine_version=manifest.engine.version,
        scenario_hash=manifest.scenario_hash,
        machine=host_facts.facts(manifest.host),
        sha256=hashes(run.folder),
        trial=trial,
    )


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a run folder that figures, and doubts of them, are made from."""
    return {name: _sha256(folder / name) for name in FILES if (folder / name).is_file()}


def _sha256(path: Path) -> str:
    from hashlib import file_digest

    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _ledgers(run: RunResult) -> Iterator[Path]:
    """Of trials that held the run, beside its folder."""
    results = run.folder.resolve().parent
    for trial in ledger.holding(ledger.read_all(results), [run.manifest.run_id]):
        yield ledger.path_of(results, trial)


# ---------------------------------------------------------------------------------------- the file


def encoded(record: Record) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def digest(record: Record) -> str:
    """SHA-256 of the file: what a citation names."""
    return sha256(encoded(record)).hexdigest()


def write(path: Path, record: Record) -> None:
    """Whole or not at all.  Raises StoreError."""
    with store.replacing(path) as beside:
        beside.write_bytes(encoded(record))


def read(path: Path) -> Record:
    """Raises InputError where it is no such record, or of a newer version."""
    try:
        raw = path.read_bytes()
        version = msgspec.json.decode(raw).get("schema_version")
        if not isinstance(version, int) or not 1 <= version <= VERSION:
            raise InputError(f"{path} has version {version}, this profiler reads up to {VERSION}: update it")
        return msgspec.json.decode(raw, type=Record)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, AttributeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: no record of a ruling: {error}") from None
