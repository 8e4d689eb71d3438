"""Where the memory of a run went: rows that add up to the device, with a remainder that is shown.

The *device* is all GPUs of the engine together; on a CPU it is the engine's process tree (its proportional
set size), since the machine is not the engine's.  A row says how it is known:

``engine``    counted or printed by the engine itself, at the end of the run
``computed``  from the model's config
``sampled``   seen from outside while the load was held, at the moment of the highest use

What an engine holds is not what a model needs: vLLM takes ``gpu_memory_utilization`` of the device whatever
it serves.  ``Use.required_bytes`` is what this load asked for: weights, activations, graphs, what runs beside
torch, and of the cache the part that held tokens.  docs/memory.md has the traps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from profiler import arch, energy, experts, routing
from profiler.board_memory import Boards, boards_at_peak
from profiler.errors import InputError
from profiler.routing.nouns import RoutingReport
from profiler.samples import between, series
from profiler.schema import LoadPoint, Memory, ModelFacts, Window
from profiler.store import RunResult
from profiler.weight_sizes import WeightSizes, unused_expert_bytes, vision_bytes, weight_sizes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Known = Literal["engine", "computed", "sampled"]
PARTS = {
    "dense part": "dense_bytes",
    "routed experts": "routed_expert_bytes",
    "shared experts": "shared_expert_bytes",
    "embeddings": "embedding_bytes",
}
REMAINDER = "unexplained"
FIGURES = (
    "memory_routed_expert_bytes",
    "memory_kv_used_bytes_mean",
    "memory_kv_used_bytes_max",
    "memory_required_bytes",
    "memory_unexplained_bytes",
)


class Row(Struct, frozen=True, kw_only=True):
    """One line of the account.  A row that is ``part_of`` another is inside it and not added again."""

    name: str
    bytes: int | None
    known: Known | None = None
    part_of: str | None = None
    note: str | None = None


class Use(Struct, frozen=True, kw_only=True):
    """What one load point used: bytes of the cache that held tokens (mean and highest of the samples in its
    steady windows), the mean number of running requests, and the bytes of experts that a decode step of so
    many tokens leaves unread: by uniform routing (a lower bound: skew leaves more), and as recorded."""

    point: LoadPoint
    kv_mean_bytes: int | None
    kv_max_bytes: int | None
    batch: float | None
    idle_uniform_bytes: int | None
    idle_recorded_bytes: int | None
    required_bytes: int | None


class MemoryAccount(Struct, frozen=True, kw_only=True):
    """The account of one run.  ``total_bytes``: of the device, None where nothing was sampled; the rows that
    are not part of another add up to it exactly, by the last of them."""

    device: str
    total_bytes: int | None
    rows: tuple[Row, ...]
    uses: tuple[Use, ...]
    kv_tokens: int | None
    kv_bytes_per_token: float | None
    notes: tuple[str, ...] = ()

    def bytes_of(self, name: str) -> int | None:
        """Of a row by its name, None where it is missing or unknown."""
        return _bytes_of(self.rows, name)


def _bytes_of(rows: Sequence[Row], name: str) -> int | None:
    return next((row.bytes for row in rows if row.name == name), None)


def account(run: RunResult) -> MemoryAccount:
    """The memory account of a run; raises InputError when its recorded routing is damaged."""
    memory, facts, recorded = run.manifest.memory, _facts(run), routing.report(run)
    weights, parts = _weights(run, memory, facts)
    held = [weights, *_with_unused(parts, recorded), *_pools(memory)]
    rest, total = (_on_gpus if run.manifest.engine.gpus else _on_host)(run, held)
    rows = [*held, *rest]
    if total is not None:
        rows.append(_remainder(rows, total))
    gpus = len(run.manifest.engine.gpus)
    pool, tokens = memory.kv_bytes, memory.kv_tokens
    return MemoryAccount(
        device=f"{gpus} GPU{'s' * (gpus > 1)}" if gpus else "the engine's processes",
        total_bytes=total,
        rows=tuple(rows),
        uses=tuple(_uses(run, rows, facts, recorded)),
        kv_tokens=tokens,
        kv_bytes_per_token=pool / tokens if pool and tokens else None,
        notes=tuple(_notes(run)),
    )


# ------------------------------------------------------------------------------------------- weights


def _facts(run: RunResult) -> ModelFacts | None:
    """The facts in the folder; computed anew where the folder is older than the parts it should name."""
    model = run.manifest.model
    if model.facts is None or model.facts.embedding_params is not None or model.config is None:
        return model.facts
    try:
        return arch.model_facts(model.config, model.facts.source)
    except InputError:
        return model.facts


def _weights(run: RunResult, memory: Memory, facts: ModelFacts | None) -> tuple[Row, list[Row]]:
    """The weights and their parts: counted by the engine, else shares of what it says it loaded by the sizes
    that the config implies, else those sizes themselves."""
    sizes = {name: getattr(memory, field) for name, field in PARTS.items()}
    if None not in sizes.values() and memory.weights_bytes is not None:
        beside = memory.weights_bytes - sum(sizes.values())
        parts = [_part(name, size, "engine") for name, size in sizes.items() if size or name == "dense part"]
        if beside:
            parts.append(_part("beside parameters", beside, "engine"))
        return Row(name="weights", bytes=memory.weights_bytes, known="engine"), parts
    unknown = facts is None or (facts.embedding_params or 0) <= 0 or facts.missing
    if facts is None or unknown or run.manifest.model.weights in ("remote", "unknown"):
        known = _by_engine(memory.weights_bytes)
        return Row(name="weights", bytes=memory.weights_bytes, known=known, note=_no_split(run)), []
    model, dtype = run.manifest.model, run.manifest.settings.dtype
    implied = weight_sizes(model, facts, dtype)
    implied = replace(implied, dense=implied.dense + vision_bytes(model, dtype))
    total = memory.weights_bytes if memory.weights_bytes is not None else round(implied.total)
    row = Row(
        name="weights",
        bytes=total,
        known=_by_engine(memory.weights_bytes) or "computed",
        note="by the config: the engine does not say" if memory.weights_bytes is None else None,
    )
    return row, _shares(implied, total)


def _no_split(run: RunResult) -> str:
    elsewhere = run.manifest.model.weights in ("remote", "unknown")
    return "the engine does not say" if elsewhere else "no parts: the architecture is not known"


def _shares(implied: WeightSizes, total: int) -> list[Row]:
    """``total`` split as the config implies; what rounding leaves is the dense part's."""
    sizes = {"routed experts": implied.routed, "shared experts": implied.shared}
    sizes["embeddings"] = implied.embedding
    scaled = {name: round(size * total / implied.total) for name, size in sizes.items() if size}
    note = "split by the config, not counted"
    dense = _part("dense part", total - sum(scaled.values()), "computed", note)
    return [dense, *(_part(name, size, "computed", note) for name, size in scaled.items())]


def _part(name: str, size: int, known: Known, note: str | None = None) -> Row:
    return Row(name=name, bytes=size, known=known, part_of="weights", note=note)


# ------------------------------------------------------------------------------------------- experts


def _with_unused(parts: Sequence[Row], recorded: RoutingReport | None) -> Iterator[Row]:
    """Below the routed experts, what those of them hold that no token used."""
    for row in parts:
        yield row
        if row.name != "routed experts" or row.bytes is None:
            continue
        yield Row(
            name="of experts no token used",
            bytes=unused_expert_bytes(row.bytes, recorded.used_frac if recorded else None),
            known="engine" if recorded else None,
            part_of=row.name,
            note=f"in {recorded.requests} recorded requests" if recorded else "the routing was not recorded",
        )


# --------------------------------------------------------------------------------- cache, activations


def _pools(memory: Memory) -> Iterator[Row]:
    cache, resident = memory.kv_bytes, memory.kv_resident_bytes
    touched = cache is not None and resident is not None and resident < cache
    yield Row(
        name="KV cache",
        bytes=resident if touched else cache,
        known=_by_engine(cache),
        note=f"the touched part of a pool of {cache:,} bytes" if touched else None,
    )


def _by_engine(size: int | None) -> Known | None:
    return None if size is None else "engine"


# ------------------------------------------------------------------------------------------ a host's


def _on_host(run: RunResult, _held: Sequence[Row]) -> tuple[list[Row], int | None]:
    """The rows of an engine in main memory, and the highest memory its processes had."""
    memory = run.manifest.memory
    rows = [
        Row(
            name="runtime",
            bytes=memory.runtime_bytes,
            known=_by_engine(memory.runtime_bytes),
            note="interpreters and libraries, before a model was loaded",
        )
    ]
    first, last = _span(run)
    source = f"process:{run.manifest.model.name}"
    return rows, energy.peak_memory(run.samples, first, last, source) if last > first else None


def _span(run: RunResult) -> tuple[int, int]:
    windows = run.manifest.windows
    if not windows:
        return 0, 0
    return min(w.opened_ns for w in windows), max(w.closed_ns for w in windows)


# ------------------------------------------------------------------------------------------ GPUs


def _on_gpus(run: RunResult, held: Sequence[Row]) -> tuple[list[Row], int | None]:
    memory = run.manifest.memory
    board = boards_at_peak(run.samples, *_span(run), _sizes(run))
    sizes = {"activation peak": memory.activation_peak_bytes, "CUDA graphs": memory.graphs_bytes}
    rows = [Row(name=name, bytes=size, known=_by_engine(size)) for name, size in sizes.items()]
    ours = [*held, *rows]
    if memory.torch_reserved_bytes is not None:
        beyond = memory.torch_reserved_bytes - _sum(ours)
        rows.append(
            Row(
                name="torch's allocator beside these",
                bytes=beyond,
                known="engine",
                note="kept for the next step" if beyond >= 0 else "less was needed than the peak foresaw",
            )
        )
    rows.append(_context(memory, board, [*held, *rows]))
    if board is None:
        return rows, None
    for name, size in (("other programs", board.foreign), ("reserved by the driver", board.reserved)):
        rows.append(Row(name=name, bytes=size, known=None if size is None else "sampled"))
    # Without the board's size, or what is free of it, the account is of what is in use.
    if board.total is None or board.free is None:
        return rows, board.used + (board.reserved or 0)
    return [*rows, Row(name="free", bytes=board.free, known="sampled")], board.total


def _sizes(run: RunResult) -> dict[str, int | None]:
    known = {gpu.uuid: gpu.memory_bytes for gpu in run.manifest.host.gpus}
    return {uuid: known.get(uuid) for uuid in run.manifest.engine.gpus}


def _context(memory: Memory, board: Boards | None, ours: Sequence[Row]) -> Row:
    """CUDA context, libraries and communication buffers: by the engine, else what is left of the memory in
    use (and then the account is no check of the engine's word)."""
    foreign = (board.foreign or 0) if board else 0
    name, told = "CUDA context and other", memory.runtime_bytes
    if told is not None:
        # A worker sees all that is outside its allocator, other programs' memory too.
        mixed = memory.torch_reserved_bytes is not None and told >= foreign
        return Row(name=name, bytes=told - foreign if mixed else told, known="engine")
    left = board.used - _sum(ours) - foreign - (board.unlisted or 0) if board else -1
    if left < 0 or any(row.bytes is None for row in ours if row.name in ("weights", "KV cache")):
        return Row(name=name, bytes=None)
    return Row(name=name, bytes=left, known="sampled", note="what is left of the memory in use")


# ------------------------------------------------------------------------------------------ the sum


def _sum(rows: Sequence[Row]) -> int:
    return sum(row.bytes or 0 for row in rows if row.part_of is None)


def _remainder(rows: Sequence[Row], total: int) -> Row:
    size = total - _sum(rows)
    unknown = [row.name for row in rows if row.part_of is None and row.bytes is None]
    held = f"holds what is not known: {', '.join(unknown)}" if unknown else None
    return Row(
        name=REMAINDER,
        bytes=size,
        known="sampled",
        note="counted twice above, or given back since" if size < 0 else held,
    )


# ------------------------------------------------------------------------------------------ use


def _uses(
    run: RunResult, rows: Sequence[Row], facts: ModelFacts | None, recorded: RoutingReport | None
) -> Iterator[Use]:
    source = f"engine:{run.manifest.model.name}"
    routed = _bytes_of(rows, "routed experts")
    held: dict[LoadPoint, list[Window]] = {}
    for window in run.manifest.windows:
        held.setdefault(window.point, []).append(window)
    for point, windows in held.items():
        usage = _values(run, windows, source, "kv_cache_usage_frac")
        running = _values(run, windows, source, "requests_running")
        running = running[running > 0]  # a step has at least one
        pool = run.manifest.memory.kv_bytes if usage.any() else None  # all 0: samples fell between requests
        most = None if pool is None else round(float(usage.max()) * pool)
        batch = float(running.mean()) if len(running) else point.concurrency
        yield Use(
            point=point,
            kv_mean_bytes=None if pool is None else round(float(usage.mean()) * pool),
            kv_max_bytes=most,
            batch=batch,
            idle_uniform_bytes=unused_expert_bytes(routed, _uniform_frac(facts, batch)),
            idle_recorded_bytes=unused_expert_bytes(routed, _recorded_frac(recorded, batch)),
            required_bytes=_required(rows, most),
        )


def _values(run: RunResult, windows: Sequence[Window], source: str, name: str) -> Floats:
    """All samples of a name inside the steady windows."""
    import numpy as np

    found = [
        series(between(run.samples, w.steady_start_ns, w.steady_end_ns), source, name)[1]
        for w in windows
        if w.steady_start_ns is not None and w.steady_end_ns is not None
    ]
    return np.concatenate(found) if found else np.array([])


def _uniform_frac(facts: ModelFacts | None, batch: float | None) -> float | None:
    if batch is None or facts is None or not facts.experts or not facts.experts_per_token:
        return None
    return experts.distinct_uniform(facts.experts, facts.experts_per_token, batch) / facts.experts


def _recorded_frac(recorded: RoutingReport | None, batch: float | None) -> float | None:
    touched = recorded.decode_coverage(batch) if recorded and batch else None
    return touched.value / recorded.experts if recorded and touched else None


def _required(rows: Sequence[Row], kv_used: int | None) -> int | None:
    """Weights, activations, graphs, what runs beside, and the used part of the cache; None without weights
    or use.  Activations that are not known apart (on a CPU) are in the remainder, which then counts."""
    sizes = {row.name: row.bytes for row in rows}
    if sizes["weights"] is None or kv_used is None:
        return None
    wanted = ("weights", "activation peak", "CUDA graphs", "CUDA context and other", "runtime")
    rest = 0 if sizes.get("activation peak") is not None else max(0, sizes.get(REMAINDER) or 0)
    return kv_used + rest + sum(sizes.get(name) or 0 for name in wanted)


def _notes(run: RunResult) -> Iterator[str]:
    gpus = run.manifest.engine.gpus
    made_up = {gpu.name for gpu in run.manifest.host.gpus if gpu.simulated and gpu.uuid in gpus}
    yield from (f"{name}: no such board is here, its memory is made up" for name in sorted(made_up))
    for note in run.manifest.engine.notes:
        if "gpu_memory_utilization" in note or "CUDAGRAPHS" in note:
            yield note
    if run.manifest.engine.device == "cpu":
        yield "on a CPU the account is of the engine's processes; activations are not told apart"


# ------------------------------------------------------------------------------------------ columns


def figures(found: MemoryAccount, point: LoadPoint) -> dict[str, int | None]:
    """The comparison's columns of one load point, by their names in FIGURES."""
    use = next((each for each in found.uses if each.point == point), None)
    values = (
        found.bytes_of("routed experts"),
        use.kv_mean_bytes if use else None,
        use.kv_max_bytes if use else None,
        use.required_bytes if use else None,
        found.bytes_of(REMAINDER),
    )
    return dict(zip(FIGURES, values, strict=True))
