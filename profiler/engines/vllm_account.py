"""vLLM's memory account: from its workers if they can be asked, else from its log and ``/metrics``.

Sums are over all devices of the engine.  What one version prints another may not; whatever is missing
is None.  Log figures have two decimals of a GiB.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from profiler.schema import Memory, Model, ModelFacts

GIB = 1 << 30
MOST = 1 << 62  # of bytes and tokens: a garbled line says more, and no file holds it
PARTS = ("dense_bytes", "routed_expert_bytes", "shared_expert_bytes", "embedding_bytes")
BESIDE = ("kv_resident_bytes", "torch_reserved_bytes", "runtime_bytes")

# Wordings of 0.6.6 … 0.33; each is printed by every worker or, by later versions, by one for all.  "GB" of
# the older ones is 2^30 bytes too.  A figure below 0 (memory came back meanwhile) says nothing.
_WEIGHTS = re.compile(r"(?:Model loading|Loading model weights) took (?P<gib>[\d.]+) Gi?B")
_KV_POOL = re.compile(
    r"(?:Available KV cache memory:|the rest of the memory reserved for KV Cache is) (?P<gib>[\d.]+) ?GiB"
)
_KV_GIVEN = re.compile(r"reserved (?P<gib>[\d.]+) GiB memory for KV Cache as specified")
_CPU_KV_POOL = re.compile(r"(?:Explicitly|Auto) set \((?P<gib>[\d.]+)/[\d.]+\) GiB for KV cache")
_CPU_TOTAL = re.compile(r"(?:Explicitly|Auto) set \([\d.]+/(?P<gib>[\d.]+)\) GiB for KV cache")
_KV_TOKENS = re.compile(r"KV cache size: (?P<tokens>[\d,]+) tokens")
_KV_BLOCKS = re.compile(r"# (?:GPU|CUDA|cuda) blocks: (?P<blocks>\d+)")
_PEAK = re.compile(r"(?<![-\d.])(?P<gib>[\d.]+) GiB for peak activation")
_PEAK_PROFILED = re.compile(
    r"(?:torch peak memory increase:|PyTorch activation peak memory takes) (?P<gib>[\d.]+) ?GiB"
)
_GRAPHS_ESTIMATE = re.compile(r"Estimated CUDA graph memory: (?P<gib>[\d.]+) GiB total")
_GRAPHS_ESTIMATE_APPLIED = "CUDA graph memory profiling is enabled"
_GRAPHS_ESTIMATE_IGNORED = "CUDA graph memory profiling is disabled"
_GRAPHS = re.compile(r"Graph capturing finished in \d+ secs, took (?P<gib>[\d.]+) GiB")
_NON_TORCH = re.compile(
    r"non_torch_memory takes (?P<gib>[\d.]+) ?GiB|(?<![-\d.])(?P<gib2>[\d.]+) GiB for non-torch memory"
)
_CONSUMED = re.compile(r"(?<![-\d.])(?P<gib>[\d.]+) GiB for consumed memory \(weights \+ non-torch\)")
V0_BLOCK_TOKENS = 16  # default block size of the versions that print blocks and not tokens


def cache_config(metrics: str) -> dict[str, str]:
    """Labels of ``vllm:cache_config_info``; empty when /metrics has none."""
    match = re.search(r"^vllm:cache_config_info\{(.*)\} ", metrics, re.MULTILINE)
    return dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[1])) if match else {}


def memory_account(
    log: str,
    config: Mapping[str, str],
    *,
    ranks: int,
    replicas: int = 1,
    facts: ModelFacts | None,
    device_total_bytes: int | None,
) -> Memory:
    """The account of an engine of ``ranks`` workers, in ``replicas`` data-parallel groups.

    ``kv_bytes`` is what vLLM set aside for the KV cache: the explicit size where one was given (on a
    CPU by VLLM_CPU_KVCACHE_SPACE, which vLLM 0.32 turns into ``kv_cache_memory_bytes`` and allocates
    whole blocks of), else the size in the log, else blocks × block size × bytes per token of a plain
    16-bit cache.
    """
    explicit = _whole(config, "kv_cache_memory_bytes")
    logged = (_per_worker(each, log) for each in (_KV_POOL, _KV_GIVEN, _CPU_KV_POOL))
    pool = explicit if explicit is not None else next((each for each in logged if each), None)
    tokens = _whole(config, "kv_cache_size_tokens") or _logged_tokens(log)
    if tokens is None:
        tokens = _plain_tokens(config) or _logged_blocks(log, config)
    return Memory(
        weights_bytes=_times(_per_worker(_WEIGHTS, log), ranks),
        kv_bytes=_times(pool, ranks) or _times(_derived_kv_bytes(config, facts), replicas),
        kv_tokens=_times(tokens, replicas),
        activation_peak_bytes=_times(_activation_peak(log), ranks),
        graphs_bytes=_times(_per_worker(_GRAPHS, log), ranks),
        device_total_bytes=device_total_bytes or _per_worker(_CPU_TOTAL, log),
        runtime_bytes=_times(_runtime(log), ranks),
    )


def counted(memory: Memory, workers: Iterable[Mapping[str, Any]], ranks: int) -> Memory:
    """``memory`` with what the workers themselves count (``vllm_inside``) in the place of what the log says.

    Of several data-parallel groups one answers for all: they hold the same.  What a worker leaves out stays
    as it was; the parts of the weights count only together.
    """
    told = list(workers)
    if not told:
        return memory

    def total(name: str) -> int | None:
        values = [int(value) for each in told if (value := each.get(name)) is not None and value >= 0]
        return round(sum(values) * ranks / len(told)) if len(values) == len(told) else None

    parts = {name: size for name in PARTS if (size := total(name)) is not None}
    if len(parts) < len(PARTS):
        parts = {}
    beside = {name: size for name in BESIDE if (size := total(name)) is not None}
    # Neither weights nor a cache of no bytes were counted: they were not found.
    weights = total("loaded_bytes") or sum(parts.values()) or memory.weights_bytes
    pool = total("kv_bytes") or memory.kv_bytes
    peak = memory.activation_peak_bytes
    if peak is None:
        peak = _beyond(total("allocated_peak_bytes"), weights, pool)
    sums = {"weights_bytes": weights, "kv_bytes": pool, "activation_peak_bytes": peak}
    return msgspec.structs.replace(memory, **parts, **beside, **sums)


def _beyond(whole: int | None, *parts: int | None) -> int | None:
    """What is left of the whole; None where one is not known, or where they do not fit into it."""
    known = [part for part in parts if part is not None]
    if whole is None or len(known) < len(parts):
        return None
    return whole - sum(known) if whole >= sum(known) else None


def start_notes(log: str, config: Mapping[str, str], model: Model) -> tuple[str, ...]:
    """What a reader of the figures should know about this start."""
    notes = []
    if caching := config.get("enable_prefix_caching"):
        notes.append(f"prefix caching {'on' if caching == 'True' else 'off'}")
    utilisation = config.get("gpu_memory_utilization")
    if utilisation and _whole(config, "kv_cache_memory_bytes") is None:
        notes.append(
            f"gpu_memory_utilization {utilisation} (vLLM's default is 0.92 since 0.20, before it 0.90)"
        )
    if _GRAPHS_ESTIMATE_APPLIED in log or _GRAPHS_ESTIMATE_IGNORED in log:
        applied = _GRAPHS_ESTIMATE_APPLIED in log
        notes.append(
            f"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS={applied:d}: the KV cache was sized "
            f"{'with' if applied else 'without'} room for CUDA graphs"
        )
    if "Using default MoE config" in log:
        notes.append("no tuned MoE kernel config for this GPU and shape: MoE speed may be below its best")
    if cores := re.findall(r"local_rank=\d+, core ids=\[([\d, ]*)\]", log):
        notes.append(f"computing threads bound to CPU cores {'; '.join(cores)}")
    if model.weights == "random":
        notes.append("dummy weights, uniform in ±0.001, the same in all tensors of one shape")
    return tuple(notes)


def _activation_peak(log: str) -> int | None:
    """Bytes a worker needs for a step beyond weights and KV cache.

    Since 0.21 vLLM counts its estimate of the CUDA graphs into the peak it prints (gpu_worker.py,
    ``peak_activation_memory``); it is taken out again, as the graphs are an item of their own.
    None where the two do not agree.
    """
    peak = _per_worker(_PEAK, log)
    if peak is None:
        return _per_worker(_PEAK_PROFILED, log)
    if _GRAPHS_ESTIMATE_APPLIED not in log:
        return peak
    graphs = _per_worker(_GRAPHS_ESTIMATE, log)
    return peak - graphs if graphs is not None and graphs <= peak else None


def _runtime(log: str) -> int | None:
    """Bytes a worker holds outside torch's allocator: printed, or (since 0.21) printed with the weights."""
    printed, consumed, weights = (_per_worker(each, log) for each in (_NON_TORCH, _CONSUMED, _WEIGHTS))
    if printed is not None or consumed is None or weights is None:
        return printed
    return consumed - weights if consumed >= weights else None


def _per_worker(pattern: re.Pattern[str], log: str) -> int | None:
    """Mean over the workers that print it, in bytes; None where a line is garbled (two workers' in one)."""
    told = [next(filter(None, match.groups())) for match in pattern.finditer(log)]
    try:
        found = [float(each) for each in told]
    except ValueError:
        return None
    mean = sum(found) / len(found) * GIB if found else math.inf
    return round(mean) if mean < MOST else None


def _derived_kv_bytes(config: Mapping[str, str], facts: ModelFacts | None) -> int | None:
    tokens = _plain_tokens(config)
    if tokens is None or facts is None or config.get("cache_dtype") not in ("auto", "bfloat16", "float16"):
        return None
    return _times(tokens, facts.kv_bytes_per_token)


def _plain_tokens(config: Mapping[str, str]) -> int | None:
    return _times(_whole(config, "num_gpu_blocks"), _whole(config, "block_size"))


def _logged_tokens(log: str) -> int | None:
    match = _KV_TOKENS.search(log)
    return _number(match["tokens"].replace(",", "")) if match else None


def _logged_blocks(log: str, config: Mapping[str, str]) -> int | None:
    match = _KV_BLOCKS.search(log)
    blocks = _number(match["blocks"]) if match else None
    return _times(blocks, _whole(config, "block_size") or V0_BLOCK_TOKENS)


def _whole(config: Mapping[str, str], name: str) -> int | None:
    return _number(config.get(name, ""))


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _times(one: int | None, factor: int | None) -> int | None:
    found = one * factor if one is not None and factor is not None else MOST
    return found if found < MOST else None
