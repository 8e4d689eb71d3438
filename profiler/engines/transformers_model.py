"""Loads a model and sets up the library's continuous batching (runs in the engine's process only)."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
from msgspec.structs import replace

from profiler import procfs
from profiler.engines import varlen_attention, weights
from profiler.engines.transformers import EngineArgs, ServerConfig
from profiler.schema import Memory

if TYPE_CHECKING:
    from transformers import ContinuousBatchingConfig

# Enough for 64 requests of 512 + 256 tokens with the scheduler's 15 % margin and block rounding to spare.
CPU_CACHE_TOKENS = 65_536
# A key-value cache may take this part of the memory that is free once the weights are loaded.
CPU_CACHE_FRAC = 0.25
CPU_PAGE_TOKENS = 32
# Decoding requests share a pass with the prompts that arrive: large chunks fill the cores, small ones keep
# the pause of those who decode short.  256 tokens reach the cores' full rate on AVX-512 machines.
CPU_BATCH_TOKENS = 256


def log(line: str) -> None:
    """One line of progress for whoever started the engine."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 (the server's log)


def set_threads(threads: int | None) -> None:
    """One thread per physical core unless said otherwise; hyper-threads share what decoding needs."""
    import torch

    torch.set_num_threads(threads or psutil.cpu_count(logical=False) or 1)


def own_bytes() -> int | None:
    """What this process holds with its libraries and without a model."""
    from transformers import AutoModelForCausalLM  # noqa: F401 (reads the library's files)

    return procfs.pss_bytes("self")


def load(config: ServerConfig) -> Any:
    """The model, ready to run: weights from a folder or the hub, or drawn from the config alone.

    Random weights are drawn by the library's own initialisation (normal, ``initializer_range``; norms 1)
    from ``args.seed``, directly in the device's memory.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    started = time.perf_counter()
    log(f"building model {config.name} on {device}")
    torch.manual_seed(config.args.seed)
    model = _build(config, device)
    chosen = config.args.attn_implementation
    if device == "cpu" and chosen is None and varlen_attention.can_serve(model.config.get_text_config()):
        varlen_attention.install(model)
    size = sum(weights.bytes_by_kind(model).values())
    log(f"weights ready {size / 2**30:.2f} GiB · {time.perf_counter() - started:.1f} s")
    return model.eval()


def _build(config: ServerConfig, device: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    options = {
        "dtype": getattr(torch, config.dtype),
        "attn_implementation": config.args.attn_implementation or "sdpa",
        # None is the library's choice, grouped_mm where a model has experts: it multiplies only by experts
        # that tokens were routed to and reads each once per pass, which is what decoding an MoE costs.
        # batched_mm copies an expert's weights per token (10 times slower at batch 32 on a CPU); eager does
        # the same as grouped_mm in a Python loop.
        "experts_implementation": config.args.experts_implementation,
        "trust_remote_code": config.args.trust_remote_code,  # said, for unsaid the library asks a terminal
    }
    if config.weights != "random":
        source = config.folder or config.name
        return AutoModelForCausalLM.from_pretrained(source, device_map={"": device}, **options)
    given = dict(config.config or {})
    with torch.device(device):
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(given.pop("model_type"), **given), **options
        )


def start_batching(model: Any, config: ServerConfig) -> Any:
    """The library's running ContinuousBatchingManager, warmed by one short generation."""
    from transformers import GenerationConfig

    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=-1),
        continuous_batching_config=batching(model, config.args),
    )
    if model.device.type == "cuda":
        log("capturing graphs")
        manager.warmup()
    manager.start()
    log("warming up")
    manager.add_request([0] * 16, max_new_tokens=8)
    result = manager.get_result(timeout=600)
    if result is None or result.error:
        raise RuntimeError(f"warm-up failed: {result.error if result else 'no answer'}")
    return manager


def batching(model: Any, args: EngineArgs) -> ContinuousBatchingConfig:
    """The cache and batch limits: what the user set, the library's choice on a GPU, ours on a CPU."""
    from transformers import ContinuousBatchingConfig

    limits: dict[str, Any] = {
        "num_blocks": args.num_blocks,
        "max_batch_tokens": args.max_batch_tokens,
        "max_requests_per_batch": args.max_requests_per_batch,
    }
    page = args.page_size
    if model.device.type == "cpu":
        page = page or CPU_PAGE_TOKENS
        limits["max_batch_tokens"] = limits["max_batch_tokens"] or CPU_BATCH_TOKENS
        limits["num_blocks"] = limits["num_blocks"] or _cpu_blocks(model, page)
        limits["max_requests_per_batch"] = limits["max_requests_per_batch"] or limits["max_batch_tokens"]
    if page is not None:
        limits["page_size"] = page
    if "auto_switch_to_flash" in ContinuousBatchingConfig.__dataclass_fields__:  # since 5.19
        limits["auto_switch_to_flash"] = model.device.type == "cuda"
    return ContinuousBatchingConfig(**limits, allow_block_sharing=args.allow_block_sharing)


def _cpu_blocks(model: Any, page: int) -> int:
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    token_bytes = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    affordable = int(psutil.virtual_memory().available * CPU_CACHE_FRAC) // int(token_bytes)
    return max(1, min(CPU_CACHE_TOKENS, affordable) // page)


def memory(model: Any, manager: Any, before_bytes: int | None) -> Memory:
    """The engine's account: what torch has really allocated.  ``before_bytes`` as of :func:`own_bytes`."""
    pool = manager.batch_processor.cache.cache_tensor
    parts = weights.bytes_by_kind(model)
    account = Memory(
        weights_bytes=sum(parts.values()),
        **parts,
        kv_bytes=int(pool.nbytes),
        kv_tokens=cache_tokens(manager),
    )
    if model.device.type != "cuda":
        resident = procfs.resident_bytes([(pool.data_ptr(), int(pool.nbytes))])
        return replace(account, kv_resident_bytes=resident, runtime_bytes=before_bytes)
    device = weights.cuda_memory()
    peak = device.pop("allocated_peak_bytes") - sum(parts.values()) - int(pool.nbytes)
    return replace(account, activation_peak_bytes=max(0, peak), **device)


def cache_usage_frac(manager: Any) -> float:
    """How much of the cache belongs to requests."""
    return 1.0 - float(manager.batch_processor.cache.compute_free_capacity())


def cache_tokens(manager: Any) -> int:
    """How many tokens the paged cache holds."""
    return int(manager.batch_processor.cache.num_blocks * manager.continuous_batching_config.page_size)
