"""vLLM's memory account, read from its start-up log and from ``/metrics``.

Sums are over all devices of the engine.  What one version prints another may not; whatever is missing
is None.  Log figures have two decimals of a GiB.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from profiler.schema import Memory, Model, ModelFacts

GIB = 1 << 30

# Wording of 0.11 … 0.33; each is printed by every worker or, by later versions, by one for all.
_WEIGHTS = re.compile(r"Model loading took (?P<gib>[\d.]+) GiB")
_KV_POOL = re.compile(r"Available KV cache memory: (?P<gib>[\d.]+) GiB")
_CPU_KV_POOL = re.compile(r"(?:Explicitly|Auto) set \((?P<gib>[\d.]+)/[\d.]+\) GiB for KV cache")
_CPU_TOTAL = re.compile(r"(?:Explicitly|Auto) set \([\d.]+/(?P<gib>[\d.]+)\) GiB for KV cache")
_KV_TOKENS = re.compile(r"KV cache size: (?P<tokens>[\d,]+) tokens")
_PEAK = re.compile(r"(?P<gib>[\d.]+) GiB for peak activation")
_PEAK_DEBUG = re.compile(r"torch peak memory increase: (?P<gib>[\d.]+) ?GiB")
_GRAPHS_ESTIMATE = re.compile(r"Estimated CUDA graph memory: (?P<gib>[\d.]+) GiB total")
_GRAPHS_ESTIMATE_APPLIED = "CUDA graph memory profiling is enabled"
_GRAPHS = re.compile(r"Graph capturing finished in \d+ secs, took (?P<gib>[\d.]+) GiB")


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
    16-bit cache.  The CPU build does not say how large weights and activations are.
    """
    explicit = _whole(config, "kv_cache_memory_bytes")
    pool = explicit if explicit is not None else _per_worker(_KV_POOL, log) or _per_worker(_CPU_KV_POOL, log)
    tokens = _whole(config, "kv_cache_size_tokens") or _logged_tokens(log)
    return Memory(
        weights_bytes=_times(_per_worker(_WEIGHTS, log), ranks),
        kv_bytes=_times(pool, ranks) or _times(_derived_kv_bytes(config, facts), replicas),
        kv_tokens=_times(tokens if tokens is not None else _plain_tokens(config), replicas),
        activation_peak_bytes=_times(_activation_peak(log), ranks),
        graphs_bytes=_times(_per_worker(_GRAPHS, log), ranks),
        device_total_bytes=device_total_bytes or _per_worker(_CPU_TOTAL, log),
    )


def start_notes(log: str, config: Mapping[str, str], model: Model) -> tuple[str, ...]:
    """What a reader of the figures should know about this start."""
    notes = []
    if caching := config.get("enable_prefix_caching"):
        notes.append(f"prefix caching {'on' if caching == 'True' else 'off'}")
    utilisation = config.get("gpu_memory_utilization")
    if utilisation and _whole(config, "kv_cache_memory_bytes") is None:
        notes.append(f"gpu_memory_utilization {utilisation}")
    if "Using default MoE config" in log:
        notes.append("no tuned MoE kernel config for this GPU and shape: MoE speed may be below its best")
    if cores := re.findall(r"local_rank=\d+, core ids=\[([\d, ]*)\]", log):
        notes.append(f"computing threads bound to CPU cores {'; '.join(cores)}")
    if model.weights == "random":
        notes.append("dummy weights, uniform in ±0.001: expert routing is not a trained router's")
    return tuple(notes)


def _activation_peak(log: str) -> int | None:
    """Bytes a worker needs for a step beyond weights and KV cache.

    Since 0.21 vLLM counts its estimate of the CUDA graphs into the peak it prints (gpu_worker.py,
    ``peak_activation_memory``); it is taken out again, as the graphs are an item of their own.
    None where the two do not agree.
    """
    peak = _per_worker(_PEAK, log)
    if peak is None:
        return _per_worker(_PEAK_DEBUG, log)
    if _GRAPHS_ESTIMATE_APPLIED not in log:
        return peak
    graphs = _per_worker(_GRAPHS_ESTIMATE, log)
    return peak - graphs if graphs is not None and graphs <= peak else None


def _per_worker(pattern: re.Pattern[str], log: str) -> int | None:
    """Mean over the workers that print it, in bytes."""
    found = [float(match["gib"]) for match in pattern.finditer(log)]
    return round(sum(found) / len(found) * GIB) if found else None


def _derived_kv_bytes(config: Mapping[str, str], facts: ModelFacts | None) -> int | None:
    tokens = _plain_tokens(config)
    if tokens is None or facts is None or config.get("cache_dtype") not in ("auto", "bfloat16", "float16"):
        return None
    return tokens * facts.kv_bytes_per_token


def _plain_tokens(config: Mapping[str, str]) -> int | None:
    return _times(_whole(config, "num_gpu_blocks"), _whole(config, "block_size"))


def _logged_tokens(log: str) -> int | None:
    match = _KV_TOKENS.search(log)
    return int(match["tokens"].replace(",", "")) if match else None


def _whole(config: Mapping[str, str], name: str) -> int | None:
    text = config.get(name, "")
    return int(text) if text.isdigit() else None


def _times(one: int | None, factor: int | None) -> int | None:
    return one * factor if one is not None and factor is not None else None
