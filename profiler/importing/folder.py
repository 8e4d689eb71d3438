"""What a tool told, and what the user adds → a sealed run folder."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from profiler import __version__, catalog, models, prices, scenario, stats, store
from profiler.catalog import GpuSpec
from profiler.errors import InputError
from profiler.importing import steady
from profiler.importing.content import Content
from profiler.importing.nouns import Found, Held
from profiler.plain import check_name, in_a_path
from profiler.records import write_records
from profiler.schema import (
    SCHEMA_VERSION,
    EngineFacts,
    Gpu,
    Host,
    Imported,
    ImportedPoint,
    LoadPoint,
    Manifest,
    Memory,
    Model,
    Price,
    RequestRecord,
    Window,
)
from profiler.settings import EngineSettings, Load, Scenario, Workload

S = 1_000_000_000
MAX_MODEL_NAME = 200
MAX_GPUS = 100_000
MAX_UNIX_NS = 4_102_444_800 * S  # 2100: what is later is no date
NOWHERE = Host(
    hostname_hash=None,
    os=None,
    cpu=None,
    cores=None,
    memory_bytes=None,
    gpus=(),
    driver=None,
    python=None,
    packages={},
)


HeldWindow = tuple[Window, tuple[RequestRecord, ...]]


class Given(Struct, frozen=True, kw_only=True):
    """What the user says of a run, above what its file says; None: nothing.

    ``scenario`` names what was asked, so that runs of the same stand beside each other.  ``whole``: figures
    of all of the run, its start and its end included, as the tools make them.
    """

    model: str | None = None
    gpu: str | None = None
    gpus: int | None = None
    engine: str | None = None
    scenario: str | None = None
    price: str | None = None
    whole: bool = False


class Prepared(Struct, frozen=True):
    """All that is written of a run: its manifest without windows, and each window with its requests."""

    manifest: Manifest
    windows: tuple[HeldWindow, ...]


class Written(Struct, frozen=True):
    """``new``: whether the folder was made now, or was there from an earlier import of the same file."""

    folder: Path
    manifest: Manifest
    new: bool


# ------------------------------------------------------------------------------------------- preparing


def prepare(content: Content, found: Found, given: Given, part: int) -> Prepared:
    """The ``part``-th run of a file.

    Raises InputError where neither the file nor the user says what must be known.
    """
    for word, option in ((given.scenario, "--scenario"), (given.engine, "--engine")):
        check_name(word or "", option)
    model, renamed = _model(content, found, given)
    gpus, of_gpus = _gpus(content, found, given)
    points, windows = _points(found.held, given.whole)
    told = Imported(
        tool=found.tool,
        version=found.version,
        file=content.path.name,
        sha256=found.sha256 or content.sha256,
        precision=found.precision,
        gaps_known=found.gaps_known,
        points=tuple(points),
    )
    engine, version = _engine(given.engine or found.engine)
    is_dated = found.unix_ns is not None and 0 < found.unix_ns < MAX_UNIX_NS
    dated = () if is_dated else ("the file does not say when it was measured: dated as it was written",)
    facts = EngineFacts(
        kind=engine,
        version=version,
        device="none",
        gpus=tuple(gpu.uuid for gpu in gpus),
        notes=(f"imported from {told.by} ({told.file})", *dated, *renamed, *of_gpus, *found.notes),
    )
    manifest = _manifest(told, model, facts, _scenario(found, given))
    unix_ns = found.unix_ns if is_dated and found.unix_ns else content.mtime_ns
    utc = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(unix_ns // S))
    own = sha256(f"{told.sha256} {part}".encode()).hexdigest()[:8]
    run_id = f"{in_a_path(model.name)}-{in_a_path(told.tool)}-{utc}-{own}"
    manifest = replace(
        manifest,
        run_id=run_id,
        group=run_id,
        utc=utc,
        unix_ns=unix_ns,
        host=replace(NOWHERE, gpus=gpus),
        price=_price(given.price, gpus),
    )
    return Prepared(manifest, tuple(windows))


def _manifest(told: Imported, model: Model, engine: EngineFacts, asked: Scenario) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        run_id="",
        group="",
        tool_version=__version__,
        status="running",
        reason=None,
        utc="",
        unix_ns=0,
        clock_ns=S,
        scenario=asked,
        scenario_hash=scenario.digest(asked),
        model=model,
        settings=asked.engine,
        exclusive=False,
        engine=engine,
        memory=Memory(),
        host=NOWHERE,
        probes=(),
        imported=told,
    )


def _model(content: Content, found: Found, given: Given) -> tuple[Model, tuple[str, ...]]:
    """By the user's name for it, else the file's; of a folder somewhere only the last part."""
    told = found.model
    if told is not None and re.match(r"[/.~\\]|[A-Za-z]:\\", told):
        told = re.split(r"[/\\]", told.rstrip("/\\"))[-1]
    name = given.model or told
    if not name:
        raise InputError(f"{content.path}: does not say which model was measured; give --model NAME")
    if not name.isprintable() or len(name) > MAX_MODEL_NAME:
        raise InputError(f"{content.path}: the model's name is {name[:40]!r}; give --model NAME")
    renamed = (f"the file calls the model {told}",) if told and told != name else ()
    return replace(models.remote(name), weights="unknown"), renamed


def _gpus(content: Content, found: Found, given: Given) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The boards, as many as there were; none where nobody says which."""
    name, count = given.gpu or found.gpu, given.gpus or found.gpus
    if name is None and given.gpus is not None:
        raise InputError(f"--gpus {given.gpus}: of which kind? give --gpu NAME")
    if name is None:
        return (), ()
    if count is None:
        raise InputError(f"{content.path}: how many {name}? give --gpus N")
    if count > MAX_GPUS:
        raise InputError(f"{content.path}: {count:,} GPUs; no run is known on more than {MAX_GPUS:,}")
    kinds = catalog.find_gpus(name)
    if not kinds and given.gpu:
        raise InputError(f"--gpu {name}: no such GPU{catalog.nearest_gpus(name)}; see: profile list gpus")
    board = _driver_name(kinds[0]) if kinds else name
    size = kinds[0].memory_bytes if kinds else None
    others = ", ".join(kind.gpu for kind in kinds[1:])
    note = (f"{name} was taken for {kinds[0].gpu}, not {others}",) if others else ()
    return tuple(Gpu(uuid=f"imported-{n}", name=board, memory_bytes=size) for n in range(count)), note


def _driver_name(kind: GpuSpec) -> str:
    """A name by which the catalog knows the board again."""
    if catalog.match_gpu(kind.gpu, kind.memory_bytes) == kind:
        return kind.gpu
    return re.sub(r"\([^()]*\)\??", "", kind.driver_name).strip()


def _price(text: str | None, gpus: tuple[Gpu, ...]) -> Price | None:
    """The user's, else the catalog's for the board."""
    if text is not None:
        return prices.parse(text, gpus[0].name if gpus else None)
    return catalog.default_price(gpus[0]) if gpus else None


def _engine(text: str | None) -> tuple[str, str | None]:
    """``vllm 0.11.1`` or ``vllm-0.11.1`` → name and version."""
    if not text:
        return "unknown", None
    match = re.fullmatch(r"(.+?)[ -]v?(\d[\w.+-]*)", text.strip())
    return (match[1], match[2]) if match else (text.strip(), None)


def _scenario(found: Found, given: Given) -> Scenario:
    """What was asked, as far as it is told; its name groups runs of the same workload."""
    prompt, answer = found.lengths or (None, None)
    lengths = f"{prompt}/{answer}" if found.lengths else None
    named = " ".join(filter(None, (found.tool, found.asked, lengths)))
    first = found.held[0].point
    streams = {held.point.concurrency for held in found.held if held.point.concurrency}
    rates = {held.point.requests_per_s for held in found.held if held.point.requests_per_s}
    return Scenario(
        name=given.scenario or named,
        about=f"as {found.tool} measured it",
        workload=Workload(input_tokens=prompt, output_tokens=answer),
        load=Load(
            mode=first.mode,
            concurrency=tuple(sorted(streams)),
            requests=first.concurrency if first.mode == "batch" else None,
            requests_per_s=tuple(sorted(rates)),
        ),
        engine=EngineSettings(args=found.args),
    )


# ------------------------------------------------------------------------------------------- windows


def _points(held: Sequence[Held], whole: bool) -> tuple[list[ImportedPoint], list[HeldWindow]]:
    """Every load with what was told of it, and the windows of those whose requests were kept: one after the
    other, on a clock of their own that begins at 1 s."""
    by_point: dict[LoadPoint, list[Held]] = {}
    for each in held:
        by_point.setdefault(each.point, []).append(each)
    points: list[ImportedPoint] = []
    windows: list[HeldWindow] = []
    for point, repeats in by_point.items():
        notes = [note for each in repeats for note in each.notes]
        for each in (each for each in repeats if each.records):
            opened_ns = windows[-1][0].closed_ns + S if windows else S
            repeat = sum(window.point == point for window, _ in windows)
            window = _window(each, opened_ns, len(windows), repeat, whole)
            windows.append(window)
            notes.append(steady.window(point, each.records, whole).note)
        points.append(_told(point, repeats, tuple(dict.fromkeys(notes))))
    return points, windows


def _window(held: Held, opened_ns: int, index: int, repeat: int, whole: bool) -> HeldWindow:
    found = steady.window(held.point, held.records, whole)
    shifted = tuple(_later(each, index, opened_ns) for each in held.records)
    ends = [max(each.due_ns, each.last_ns or 0, each.done_ns or 0) for each in shifted]
    is_steady = found.start_ns is not None and found.end_ns is not None
    window = Window(
        index=index,
        repeat=repeat,
        engine_start=0,
        point=held.point,
        opened_ns=opened_ns,
        steady_start_ns=opened_ns + found.start_ns if found.start_ns is not None else None,
        steady_end_ns=opened_ns + found.end_ns if found.end_ns is not None else None,
        closed_ns=max(ends),
        trouble=None if is_steady else found.note,
    )
    return window, shifted


def _later(record: RequestRecord, window: int, by_ns: int) -> RequestRecord:
    times = {name: getattr(record, name) for name in ("due_ns", "sent_ns", "first_ns", "last_ns", "done_ns")}
    moved = {name: None if each is None else each + by_ns for name, each in times.items()}
    arrivals = [each + by_ns for each in record.arrivals_ns]
    return replace(record, window=window, arrivals_ns=arrivals, **moved)


def _told(point: LoadPoint, repeats: Sequence[Held], notes: tuple[str, ...]) -> ImportedPoint:
    """A figure that every repeat has, over the repeats."""
    first, *others = (each.figures for each in repeats)
    shared = {name: each for name, each in first.items() if all(name in other for other in others)}
    if others:
        together = {name: [each.figures[name].value for each in repeats] for name in shared}
        shared = {name: stats.over_repeats(values) for name, values in together.items()}
    return ImportedPoint(
        point=point,
        figures=shared,
        requests_ok=_sum([each.requests_ok for each in repeats]),
        requests_failed=_sum([each.requests_failed for each in repeats]),
        notes=notes,
    )


def _sum(values: Sequence[int | None]) -> int | None:
    known = [each for each in values if each is not None]
    return sum(known) if len(known) == len(values) else None


# ------------------------------------------------------------------------------------------- writing


def earlier(out: Path, run: Prepared) -> Written | None:
    """The folder of an earlier import of the same part of the same file.

    Raises InputError where that was imported with other words about it: it would count twice.
    """
    digest = run.manifest.run_id.rpartition("-")[2]
    for there in (store.load(each) for each in out.glob(f"*-{digest}")):
        if _said(there.manifest) != _said(run.manifest):
            raise InputError(
                f"this file was imported before, with other words about it, as {there.folder}; remove that "
                "folder to import it anew"
            )
        return Written(there.folder, there.manifest, new=False)
    return None


def write(out: Path, run: Prepared) -> Written:
    """Seal the run under ``out``, whole or not at all."""
    store.check_writable(out)
    writer = store.RunWriter.create(out, run.manifest)
    try:
        for window, records in run.windows:
            write_records(writer.records_path(window.index), records)
            writer.add(window)
        writer.seal()
    except BaseException:
        writer.discard()
        raise
    return Written(writer.folder, writer.manifest, new=True)


def _said(manifest: Manifest) -> tuple[Any, ...]:
    """All that an import is made of, but for the name of its file and the profiler that read it."""
    told, engine, price = manifest.imported, manifest.engine, manifest.price
    return (
        manifest.model.name,
        (engine.kind, engine.version),
        manifest.host.gpus,
        manifest.scenario.name,
        price.usd_per_hour if price else None,
        told.points if told else (),
    )
