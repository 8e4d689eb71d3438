"""What lies in a results folder: manifests, tables, indices, records of sweeps, trials and rulings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from profiler import figures, index, store
from profiler.claims import ledger as trials
from profiler.claims import record as rulings
from profiler.schema import Manifest
from profiler.storage import open_home
from profiler.sweep import ledger as sweeps
from profiler.sweep.nouns import Record
from tests import make
from tests.fuzz.nouns import Target, fresh, scratch
from tests.fuzz.toml_files import keys, refusing


@cache
def sealed() -> Path:
    """A run folder as it is written now, made once a process."""
    windows = [make.steady(0, 10.0, requests=3)]
    run = make.writer(scratch() / "made", windows, run_id="sealed")
    run.seal()
    return run.folder


def _beside(folder: Path) -> None:
    """The tables of the sealed run, where they are not there yet."""
    for name in (store.REQUESTS, store.TELEMETRY):
        if not (folder / name).exists():
            (folder / name).write_bytes((sealed() / name).read_bytes())


def edited(data: bytes) -> None:
    """A manifest with checksums is the one that was written, or it is refused.

    The fuzzer sees what is compared, and so learns digests that fit: a forger knows them too, and checksums
    promise nothing against one."""
    folder = fresh(store.MANIFEST, data).parent
    _beside(folder)
    found = store.load(folder).manifest
    if found.schema_version > 1 and found.checksums == store.load(sealed()).manifest.checksums:
        assert found == store.load(sealed()).manifest, "changed, and nothing said"


def old(data: bytes) -> None:
    """A manifest without checksums: read or refused; what is made of it says what it is made of."""
    folder = fresh(store.MANIFEST, data).parent
    _beside(folder)
    run = store.load(folder)
    if run.manifest.schema_version > 1:
        return
    msgspec.json.decode(msgspec.json.encode(run.manifest), type=Manifest)
    assert run.requests.num_rows == 3


def measured(data: bytes) -> None:
    """The same as figures: what a manifest without checksums says of a run may be anything."""
    folder = fresh(store.MANIFEST, data).parent
    _beside(folder)
    for each in figures.of_run(store.load(folder)):
        msgspec.msgpack.decode(msgspec.msgpack.encode(each), type=figures.Figures)


def table(data: bytes) -> None:
    """A table that is no longer what was written: refused, as far as it has no checksum by its own form."""
    folder = fresh(f"table/{store.REQUESTS}", data).parent
    manifest = folder / store.MANIFEST
    if not manifest.exists():
        manifest.write_bytes(OLD)
        (folder / store.TELEMETRY).write_bytes((sealed() / store.TELEMETRY).read_bytes())
    assert store.load(folder).requests.num_rows >= 0


def journal(data: bytes) -> None:
    """A run that was broken off: its requests lie in parts, its samples end anywhere."""
    folder = fresh(f"broken/{store.JOURNAL}", data).parent
    (folder / store.PARTS).mkdir(exist_ok=True)
    (folder / store.PARTS / store.SAMPLES).write_bytes(b"1000\tgpu:0\tpower_w\t312.5\n2000\tgp")
    run = store.load(folder)
    assert run.samples.num_rows == 1
    assert run.requests.num_rows == 0


def kept_figures(data: bytes) -> None:
    """An index of figures: whatever is in it, an entry that counts is whole."""
    from profiler.index import _load, _made_with

    path = fresh(index.FILE, bytes(_made_with()) + data)
    for entry in _load(str(path.parent)).values():
        assert isinstance(entry.is_whole, bool)
        if entry.is_whole:
            msgspec.msgpack.decode(entry.body, type=list[list[figures.Figures]])


def sweep_record(data: bytes) -> None:
    path = fresh("x.json", data)
    folder = path.parent / sweeps.FOLDER
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(data)
    found = sweeps.read(open_home(str(path.parent)), "x")
    assert found is not None
    msgspec.json.encode(found)


def trial_record(data: bytes) -> None:
    msgspec.json.encode(trials.read(fresh("t.json", data)))


def ruling(data: bytes) -> None:
    rulings.encoded(rulings.read(fresh("r.json", data)))


# -------------------------------------------------------------------------------------------- seeds


def example(node: inspect.Type) -> Any:
    """A value that a schema takes, with everything in it once."""
    simple: dict[type, Any] = {inspect.StrType: "x", inspect.BoolType: True, inspect.NoneType: None}
    if type(node) in simple:
        return simple[type(node)]
    if isinstance(node, inspect.IntType | inspect.FloatType):
        return max(1, node.ge or 0) if (node.le or 1) >= 1 else node.le
    if isinstance(node, inspect.LiteralType):
        return node.values[0]
    if isinstance(node, inspect.UnionType):
        return example(next(each for each in node.types if not isinstance(each, inspect.NoneType)))
    if isinstance(node, inspect.StructType):
        return {field.encode_name: example(field.type) for field in node.fields}
    return _of_collection(node)


def _of_collection(node: inspect.Type) -> Any:
    if isinstance(node, inspect.DictType):
        return {"x": example(node.value_type)}
    if isinstance(node, inspect.TupleType):
        return [example(each) for each in node.item_types]
    if isinstance(node, inspect.VarTupleType | inspect.ListType | inspect.CollectionType):
        return [example(node.item_type)]
    return "x"


def _examples(schema: type[msgspec.Struct], **changes: Any) -> Callable[[], Iterator[bytes]]:
    found = example(inspect.type_info(schema)) | changes
    return lambda: iter([msgspec.json.encode(found), b"[" * 3000, b'{"version": ' + b"[" * 3000])


def _manifests() -> Iterator[bytes]:
    yield (sealed() / store.MANIFEST).read_bytes()
    yield b'{"schema_version": 2, "x": ' + b"[" * 3000


def _indices() -> Iterator[bytes]:
    body = msgspec.msgpack.encode([])
    entry = index.Entry("r", (1, 2), 0, msgspec.Raw(body), 0)
    whole = msgspec.structs.replace(entry, check=index._check("r", (1, 2), 0, msgspec.Raw(body)))
    yield msgspec.msgpack.encode([whole])
    yield msgspec.msgpack.encode([whole, entry])


def _unsigned(**changes: Any) -> bytes:
    """A manifest as version 1 wrote it."""
    told = msgspec.to_builtins(make.manifest("old", schema_version=1, **changes))
    told.pop("checksums", None)
    return msgspec.json.encode(told)


OLD = _unsigned(status="complete", windows=(make.window(0, 10.0, 12.0),))
BROKEN = _unsigned()
_ROWS: tuple[
    tuple[str, Callable[[bytes], None], Callable[[], Iterator[bytes]], Any, type[msgspec.Struct]], ...
] = (
    ("manifest", edited, _manifests, "json", Manifest),
    ("manifest_old", old, lambda: iter([OLD]), "json", Manifest),
    ("figures", measured, lambda: iter([OLD]), "json", Manifest),
    ("journal", journal, lambda: iter([BROKEN]), "json", Manifest),
    ("sweep_record", sweep_record, _examples(Record, version=1), "json", Record),
    ("trial_record", trial_record, _examples(trials.Trial, version=1, looks_at=[1]), "json", trials.Trial),
    ("ruling", ruling, _examples(rulings.Record, schema_version=1), "json", rulings.Record),
)
TARGETS = (
    *(
        Target(name, partial(refusing, run), seeds, form, keys(schema), most_bytes=12_000)
        for name, run, seeds, form, schema in _ROWS
    ),
    Target(
        "requests",
        partial(refusing, table),
        lambda: iter([(sealed() / store.REQUESTS).read_bytes()]),
        most_bytes=16_000,
    ),
    Target("index", partial(refusing, kept_figures), _indices),
)
