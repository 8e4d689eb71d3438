"""Can this machine hold the model?  Asked before anything is launched or downloaded.

Memory has three parts: weights (parameters × bytes each), KV cache (tokens held at once × bytes per
token) and overhead (runtime, activations, graphs).  A machine that holds the weights and one request
can run the model: an engine queues what its cache cannot hold.  Less than that is refused here, with
the GPU sets that would do and the nearest model that fits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from profiler import arch, catalog
from profiler.errors import InputError
from profiler.schema import Gpu, Model, ModelFacts
from profiler.settings import EngineSettings, Load, Workload
from profiler.weight_sizes import block, vision_bytes, weight_bytes_each
from profiler.workload import Extent, extent

GIB = 1 << 30
USABLE_FRAC = 0.9  # vLLM's default gpu_memory_utilization; on a CPU the rest is the system's
GPU_OVERHEAD_BYTES = 2 * GIB  # each: CUDA context and graphs, activations of one prefill step
CPU_OVERHEAD_BYTES = 1 * GIB  # interpreter, libraries, activations
CPU_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"
MAX_SEQUENCES = 256  # vLLM's default max_num_seqs
CGROUP = Path("/sys/fs/cgroup")
CPU_COMFORT_BYTES = 4 * GIB  # a CPU reads 20 to 60 GB/s: weights beyond this give few tokens per second


class Need(Struct, frozen=True):
    """Bytes wanted over all devices together."""

    weights_bytes: int
    kv_bytes: int
    overhead_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.overhead_bytes


def need(
    facts: ModelFacts, dtype_bytes: float, kv_tokens: int, *, sequences: int = 1, devices: int = 0
) -> Need:
    """Memory for ``facts`` at ``dtype_bytes`` a weight with ``kv_tokens`` cached by ``sequences`` requests.

    ``devices`` GPUs; 0 is a CPU.  The cache has 2-byte numbers (4 with 4-byte weights); layers with a
    window keep at most the window of every sequence, recurrent ones a fixed state.
    """
    scale = 2 if dtype_bytes >= 4 else 1
    window = facts.attention_window_tokens or kv_tokens
    windowed = min(kv_tokens, window * sequences)
    cache = facts.kv_bytes_per_token * kv_tokens + facts.kv_windowed_bytes_per_token * windowed
    return Need(
        weights_bytes=round(facts.total_params * dtype_bytes),
        kv_bytes=cache * scale + facts.kv_state_bytes_per_sequence * sequences,
        overhead_bytes=devices * GPU_OVERHEAD_BYTES or CPU_OVERHEAD_BYTES,
    )


def check_fit(
    model: Model,
    settings: EngineSettings,
    workload: Workload,
    load: Load,
    gpus: tuple[Gpu, ...],
    host_memory_bytes: int,
) -> EngineSettings:
    """``settings`` with what was left open decided: ``max_model_len`` is the scenario's longest request, and
    on GPUs ``tensor_parallel`` the smallest power of two that divides the attention heads and holds the
    whole load; where none does, the largest that holds the weights and one request.  vLLM on a CPU gets
    a KV cache for the whole load, as far as memory goes (``env["VLLM_CPU_KVCACHE_SPACE"]``, GiB a rank).

    ``host_memory_bytes`` is what may be used now (``available_memory_bytes``); it counts without GPUs only.
    Models we know nothing about, and remote ones, pass.  Raises InputError, of several lines.
    """
    if model.facts is None or model.weights == "remote" or settings.kind in ("endpoint", "simulated"):
        return settings
    size = extent(workload, load)
    settings = msgspec.structs.replace(settings, max_model_len=settings.max_model_len or size.longest_total)
    _check_context(model.name, model.facts, size, settings)
    job = _Job(model, model.facts, settings, workload, load)
    if not gpus:
        if job.one(0).total_bytes > host_memory_bytes * USABLE_FRAC:
            raise InputError(_advice(job, gpus, host_memory_bytes))
        return _with_cpu_cache(job, host_memory_bytes)
    sizes = [size for size in _sizes(job, len(gpus)) if job.fits(job.one(size), size, _smallest(gpus))]
    if not sizes:
        raise InputError(_advice(job, gpus, host_memory_bytes))
    full = [size for size in sizes if job.fits(job.full(size), size, _smallest(gpus))]
    return msgspec.structs.replace(settings, tensor_parallel=full[0] if full else sizes[-1])


def cache_room(
    held_bytes: float,
    devices: int,
    device_bytes: float,
    kv_heads: int | None,
    usable_frac: float = USABLE_FRAC,
) -> float:
    """Bytes of cache that ``devices`` GPUs have room for beside ``held_bytes`` of weights and runtime, spread
    evenly; below 0 where not even those fit.  The cache splits no finer than one head a device."""
    ways = min(devices, kv_heads or devices)
    return ways * (device_bytes * usable_frac - held_bytes / devices)


def least_bytes(model: Model, settings: EngineSettings, workload: Workload, load: Load) -> int | None:
    """The least main memory the model can run in without a GPU, with the KV cache that ``settings`` ask for:
    for deciding how many may stay up at once.  None when the architecture is unknown."""
    if model.facts is None or model.weights == "remote":
        return None
    least = _Job(model, model.facts, settings, workload, load).one(0)
    return least.total_bytes - least.kv_bytes + max(least.kv_bytes, _cpu_cache_bytes(settings) or 0)


def queue_note(
    model: Model,
    settings: EngineSettings,
    workload: Workload,
    load: Load,
    gpus: tuple[Gpu, ...],
    host_memory_bytes: int,
) -> str | None:
    """A line for the reader when the machine holds less cache than the load can fill: the engine will queue
    requests, so high concurrencies measure the queue.  None when all fits or nothing can be known, as of an
    open loop's concurrency.

    ``settings`` are those :func:`check_fit` returned for the same machine.
    """
    remote = model.weights == "remote" or settings.kind in ("endpoint", "simulated")
    if model.facts is None or remote or load.mode in ("open", "replay"):
        return None
    job = _Job(model, model.facts, settings, workload, load)
    devices = (settings.tensor_parallel or 1) if gpus else 0
    least, wanted = job.one(devices), job.full(devices).kv_bytes
    if gpus:
        room = job.cache_room(least, devices, _smallest(gpus))
    elif (told := _cpu_cache_bytes(settings)) is not None:
        room = told
    else:
        room = host_memory_bytes * USABLE_FRAC - least.weights_bytes - least.overhead_bytes
    if wanted <= room:
        return None
    filled = f"{job.sequences} requests can fill {_gib(wanted)}"
    return f"{_gib(max(0, room))} for KV cache, {filled}: the engine will queue some"


def available_memory_bytes() -> int:
    """Main memory this process may still use: what the system has free, within its cgroup's limit."""
    import psutil

    return min([int(psutil.virtual_memory().available), *_cgroup_headrooms()])


# --------------------------------------------------------------------------------- one job's account


class _Job(Struct, frozen=True):
    """One model under one scenario: what it needs on how many GPUs."""

    model: Model
    facts: ModelFacts
    settings: EngineSettings
    workload: Workload
    load: Load

    @property
    def sequences(self) -> int:
        """Requests at once; where the server decides that (an open loop), as many as it takes at most."""
        if self.load.mode == "batch":
            return self.load.requests or 1
        return max(self.load.concurrency) if self.load.mode == "closed" else MAX_SEQUENCES

    @property
    def tokens_each(self) -> int:
        return self._extent.mean_input + self._extent.mean_output

    @property
    def longest_each(self) -> int:
        return self._extent.longest_total

    @property
    def _extent(self) -> Extent:
        return extent(self.workload, self.load)

    @property
    def usable_frac(self) -> float:
        given = self.settings.args.get("gpu_memory_utilization")
        return float(given) if isinstance(given, int | float) else USABLE_FRAC

    def full(self, devices: int) -> Need:
        """For the scenario's largest load, all its requests in the cache at once."""
        return self._need(self.sequences * self.tokens_each, self.sequences, devices)

    def worst(self, devices: int) -> Need:
        """As ``full``, with every request as long as the scenario's longest."""
        return self._need(self.sequences * self.longest_each, self.sequences, devices)

    def one(self, devices: int) -> Need:
        """For a single request as long as the engine accepts: the least that can run at all."""
        return self._need(max(self.longest_each, self.settings.max_model_len or 0), 1, devices)

    def _need(self, tokens: int, sequences: int, devices: int) -> Need:
        each = weight_bytes_each(self.model, self.settings.dtype)
        wanted = need(self.facts, each, tokens, sequences=sequences, devices=devices)
        vision = round(vision_bytes(self.model, self.settings.dtype))
        return msgspec.structs.replace(wanted, weights_bytes=wanted.weights_bytes + vision)

    def fits(self, wanted: Need, devices: int, device_bytes: int) -> bool:
        """Each device holds its share; KV heads split no finer than one head a device."""
        return wanted.kv_bytes <= self.cache_room(wanted, devices, device_bytes)

    def cache_room(self, wanted: Need, devices: int, device_bytes: int) -> float:
        """Bytes of cache that the GPUs hold beside the weights; below 0 where not even those fit."""
        held = wanted.weights_bytes + wanted.overhead_bytes
        return cache_room(held, devices, device_bytes, self.facts.kv_heads, self.usable_frac)

    def obstacle(self, devices: int) -> str | None:
        """What so many GPUs cannot divide; of a model that is known only in part, the heads."""
        if self.model.config is not None and not self.facts.missing:
            return arch.tensor_obstacle(arch.shape(self.model.config), devices, block=block(self.model))
        heads = self.facts.attention_heads or devices
        return f"{heads} attention heads" if heads % devices else None


# --------------------------------------------------------------------------------- the cache on a CPU


def _with_cpu_cache(job: _Job, memory_bytes: int) -> EngineSettings:
    """vLLM allocates its whole cache at the start; told nothing, it would take most of the machine.

    It refuses to start where less is free than it is told, so beside weights and overhead a second
    overhead is kept back (the server is two processes); one request is always given its room.
    """
    settings, ranks = job.settings, job.settings.tensor_parallel or 1
    # The variable overrides --kv-cache-memory-bytes, so it is left out where that is given.
    arguments = {name.replace("-", "_") for name in settings.args}
    sized = _cpu_cache_bytes(settings) or arguments & {"kv_cache_memory_bytes", "gpu_memory_utilization"}
    if settings.kind != "vllm" or sized:
        return settings
    least = job.one(0)
    left = memory_bytes * USABLE_FRAC - least.weights_bytes - least.overhead_bytes - CPU_OVERHEAD_BYTES
    wished = math.ceil(job.worst(0).kv_bytes / ranks / GIB)
    gib = max(1, math.ceil(least.kv_bytes / ranks / GIB), min(wished, int(left / ranks / GIB)))
    return msgspec.structs.replace(settings, env={**settings.env, CPU_CACHE_VARIABLE: str(gib)})


def _cpu_cache_bytes(settings: EngineSettings) -> int | None:
    """What vLLM's variable asks for, over all ranks; None where it is not set.  Raises InputError."""
    given = settings.env.get(CPU_CACHE_VARIABLE, os.environ.get(CPU_CACHE_VARIABLE))
    if settings.kind != "vllm" or not given:
        return None
    if not given.isdecimal() or int(given) == 0:
        raise InputError(f"{CPU_CACHE_VARIABLE} is {given!r}; give a whole number of GiB, 1 or more")
    return int(given) * GIB * (settings.tensor_parallel or 1)


def _smallest(gpus: tuple[Gpu, ...]) -> int:
    """The smallest GPU bounds a tensor-parallel group; unknown memory is taken to suffice."""
    return min((gpu.memory_bytes for gpu in gpus if gpu.memory_bytes is not None), default=1 << 62)


def _sizes(job: _Job, gpus: int) -> list[int]:
    """Tensor-parallel sizes to try here: the user's own, or powers of two that divide the heads."""
    given = job.settings.tensor_parallel
    if given is None:
        limit = 1 if job.settings.kind == "transformers" else gpus
        return [size for size in powers(limit) if not job.obstacle(size)]
    if given > gpus:
        raise InputError(f"engine.tensor_parallel = {given}, but this machine has {gpus} GPU(s)")
    if obstacle := job.obstacle(given):
        possible = [size for size in range(1, gpus + 1) if not job.obstacle(size)]
        raise arch.refusal(f"engine.tensor_parallel = {given}", job.model.name, obstacle, possible)
    return [given]


def powers(limit: int) -> list[int]:
    """1, 2, 4 … up to ``limit``."""
    return [1 << exponent for exponent in range(limit.bit_length())]


def _check_context(name: str, facts: ModelFacts, size: Extent, settings: EngineSettings) -> None:
    limit, tokens = facts.max_context_tokens, size.longest_total
    if limit is None or max(tokens, settings.max_model_len or 0) <= limit:
        return
    if tokens > limit:
        raise InputError(
            f"{name} has a context of {limit} tokens, the scenario's longest request needs {tokens}; "
            f"shorten {size.longest_at or 'workload.input_tokens or workload.output_tokens'}"
        )
    raise InputError(
        f"engine.max_model_len = {settings.max_model_len} is beyond {name}'s context of {limit} tokens"
    )


# -------------------------------------------------------------------------------------------- advice


def _advice(job: _Job, gpus: tuple[Gpu, ...], host_memory_bytes: int) -> str:
    wanted, least = job.full(len(gpus)), job.one(len(gpus))
    least_said = "at least " if job.facts.missing else ""
    lines = [
        f"{job.model.name} does not fit on this machine ({_machine(gpus, host_memory_bytes)}).",
        f"It needs {least_said}{_gib(wanted.total_bytes)}: weights {_gib(wanted.weights_bytes)} "
        f"({_weights(job)}), "
        f"KV cache {_gib(wanted.kv_bytes)} for {job.sequences} requests of {job.tokens_each} tokens, "
        f"runtime {_gib(wanted.overhead_bytes)}; for a single request {_gib(least.total_bytes)}.",
        f"GPU sets that would do: {', '.join(gpu_sets(partial(_count, job))) or 'none of the catalog'}.",
        f"Try instead: {' or '.join(_alternatives(job, gpus, host_memory_bytes))}.",
    ]
    return "\n".join(lines)


def _weights(job: _Job) -> str:
    """What the weights are held in, and what the published checkpoint would take where that differs."""
    each = weight_bytes_each(job.model, job.settings.dtype)
    published = weight_bytes_each(msgspec.structs.replace(job.model, weights="hub"), job.settings.dtype)
    if published == each:
        return f"{each:.3g} bytes each"
    size = _gib(job.facts.total_params * published)
    return f"random, {each:.3g} bytes each; the published checkpoint is quantized: {size}"


def _machine(gpus: tuple[Gpu, ...], host_memory_bytes: int) -> str:
    if not gpus:
        return f"no GPU, {_gib(host_memory_bytes)} of memory free"
    return f"{len(gpus)} × {gpus[0].name}, {_gib(_smallest(gpus))} each"


def gpu_sets(count_on: Callable[[int], int | None], most: int = 8) -> list[str]:
    """The smallest set of each kind of GPU that holds the whole load, cheapest first by rental price.

    ``count_on`` gives how many GPUs of so many bytes it takes, None where none do.

    Kinds with at least two offers; of a chip's variants (SXM, PCIe, 40 or 80 GB) the one with the smallest
    set, then the most offered.  Sets of more than 8 span machines: listed only when no other would do.
    """
    sets = []
    for spec in catalog.gpus():
        price, offers = catalog.default_price(spec), len(catalog.offers(spec))
        count = count_on(spec.memory_bytes)
        if price is not None and offers >= 2 and count is not None:
            sets.append((count, -offers, count * price.usd_per_hour, spec.gpu))
    chips: dict[str, tuple[float, str]] = {}
    for count, _, usd, name in sorted([each for each in sets if each[0] <= 8] or sets):
        chip = " ".join(name.split()[: 2 if name.startswith("RTX") else 1])
        chips.setdefault(chip, (usd, f"{count} × {name} (about {usd:.3g} USD/h)"))
    return [text for _, text in sorted(chips.values())][:most]


def _count(job: _Job, device_bytes: int) -> int | None:
    """Beyond one machine's 8, layers are divided and not heads: a pipeline of machines."""
    counts = (n for n in powers(64) if not job.obstacle(min(n, 8)) and job.fits(job.full(n), n, device_bytes))
    return next(counts, None)


def _alternatives(job: _Job, gpus: tuple[Gpu, ...], host_memory_bytes: int) -> list[str]:
    """The largest model that fits here, of the same family if there is one, else of the same maker, else of
    the same kind; and a built-in one, which runs anywhere."""
    budget = len(gpus) * _smallest(gpus) if gpus else host_memory_bytes
    room = budget * USABLE_FRAC if gpus else min(budget * USABLE_FRAC, CPU_COMFORT_BYTES)
    fitting = []
    for entry in catalog.models().values():
        facts = arch.model_facts(entry.config, entry.source)
        model = Model(name=entry.id, weights=job.model.weights, config=entry.config, facts=facts)
        if _Job(model, facts, job.settings, job.workload, job.load).one(len(gpus)).total_bytes <= room:
            kin = catalog.kinship(entry.id, job.model.name), facts.kind == job.facts.kind
            fitting.append((kin, facts.total_params, entry.computed_vision_params == 0, entry.id))
    near = [max(fitting)[-1]] if fitting else []
    builtin = "tiny-moe" if job.facts.kind == "moe" else "tiny-dense"
    return [f"--model {name}" for name in (*near, builtin)]


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _cgroup_headrooms() -> Iterator[int]:
    """What the cgroup (v2, then v1) leaves; nothing where there is no limit."""
    for limit, used in (
        (CGROUP / "memory.max", CGROUP / "memory.current"),
        (CGROUP / "memory/memory.limit_in_bytes", CGROUP / "memory/memory.usage_in_bytes"),
    ):
        try:
            yield max(0, int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):
            continue
