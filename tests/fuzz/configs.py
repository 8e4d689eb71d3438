"""A model's config.json: its shape, its weights' sizes, whether it fits."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator

from profiler import arch, catalog, fit, models, scenario
from profiler.arch.work import Batch, kv_bytes, step
from profiler.errors import InputError
from profiler.schema import Gpu
from profiler.settings import EngineSettings
from profiler.weight_sizes import block, weight_bytes_each, widths
from tests.fuzz.nouns import Target, fresh

GPUS = (Gpu(uuid="u", name="NVIDIA H100 80GB HBM3", memory_bytes=80 << 30),) * 8
MACHINE = 64 << 30
FACTS = arch.model_facts(catalog.tiny_models()["tiny-moe"], "built in")
ENGINE = EngineSettings(kind="vllm")
MOST_WORK = 1 << 40
WORDS = tuple(
    sorted({key for entry in catalog.models().values() for key in entry.config})
    + sorted({each for names in arch.keys.NAMES.values() for each in names})
    + ["quant_method", "weight_block_size", "bits", "group_size", "modules_to_not_convert", "config_groups"]
    + ["fp8", "gptq", "awq", "mxfp4", "compressed-tensors", "bitsandbytes", "modelopt", "targets", "weights"]
    + ["mamba", "attention", "full_attention", "linear_attention", "sliding_attention", "text_config"]
    + sorted({str(entry.config["model_type"]) for entry in catalog.models().values()})
)


def config(data: bytes) -> None:
    """Refused in one line, or counts that are counts: whole, not negative, adding up."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    folder = fresh("config.json", data).parent
    try:
        model = models.resolve(str(folder), "random")
    except InputError as error:
        _check_line(error)
        return
    facts = model.facts
    if facts is None or model.config is None:
        assert model.notes, "no facts, and no word why"
        return
    assert 0 < facts.active_params <= facts.total_params, (facts.active_params, facts.total_params)
    assert 0 <= facts.routed_expert_params <= facts.total_params
    assert facts.kv_bytes_per_token >= 0
    assert facts.kv_windowed_bytes_per_token >= 0
    shape = arch.shape(model.config)
    assert shape.total_params == facts.total_params
    assert sum(kind.count for kind in shape.layers) == facts.layers == len(arch.layers(model.config))
    try:
        each = weight_bytes_each(model, "bfloat16")
        held = widths(model, "bfloat16")
    except InputError as error:
        _check_line(error)
        return
    assert 0 < each <= 1 << 20, f"{each} bytes a weight"
    batch = Batch(prefill_sequences=1, prefill_tokens=100, decode_sequences=7, decode_context=50)
    if facts.total_params < MOST_WORK:
        work = step(shape, held, batch)
        assert all(math.isfinite(op.flops + op.weight_bytes + op.cache_bytes) for op in work)
        assert kv_bytes(shape, held, 100, 1) >= 0
    arch.parallel_sizes(shape, 8, block=block(model))
    _fits(model)


def _fits(model: models.Model) -> None:
    what = SMOKE
    for gpus, memory_bytes in (((), MACHINE), (GPUS, 0)):
        if fit.USABLE_FRAC * (memory_bytes or 8 * 80 << 30) < 3 * (model.facts or FACTS).total_params:
            continue  # what would do instead takes long to find
        try:
            settings = fit.check_fit(model, ENGINE, what.workload, what.load, gpus, memory_bytes)
        except InputError:
            continue
        fit.queue_note(model, settings, what.workload, what.load, gpus, memory_bytes)
        least = fit.least_bytes(model, settings, what.workload, what.load)
        assert least is None or least > 0


def _check_line(error: InputError) -> None:
    assert "\n" not in str(error), f"more than a line: {error}"
    assert len(str(error)) < 1500, f"a long line: {error!s:.200}"


SMOKE = scenario.load("smoke")


def configs() -> Iterator[bytes]:
    known = {str(entry.config["model_type"]): entry.config for entry in catalog.models().values()}
    for found in (*catalog.tiny_models().values(), *known.values()):
        yield json.dumps(found).encode()


TARGETS = (Target("config", config, configs, "json", WORDS, most_bytes=8192),)
