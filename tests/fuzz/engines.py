"""What engines say of themselves: logs, metrics, accounts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from profiler import arch, catalog
from profiler.engines import vllm_account, vllm_log
from profiler.errors import InputError
from profiler.samples import COLUMNS, decode
from profiler.schema import Memory, Model
from profiler.telemetry import engine_metrics
from tests.fuzz.nouns import ROOT, Target, fresh

FIXTURES = ROOT / "tests" / "engines" / "fixtures"
FACTS = arch.model_facts(catalog.tiny_models()["tiny-moe"], "built in")
MOST_TOTAL = 1 << 70  # of bytes and tokens; beyond it a figure is no float's and no file's


def log(data: bytes) -> None:
    """At most one line of advice and eight telling ones, whatever an engine printed."""
    text = data.decode(errors="replace")
    for code in (None, 1, -9, -11, -35):
        advice = vllm_log.explain(text, code)
        assert advice is None or (advice and len(advice) < 1500), advice
    telling = vllm_log.telling_lines(text)
    assert len(telling) <= vllm_log.TELLING_LINES
    assert all(len(line) <= vllm_log.LINE_CHARS for line in telling)
    vllm_log.is_port_taken(text)


def account(data: bytes) -> None:
    """Whole numbers that are not negative, or None; the page of metrics stands after a form feed."""
    said, _, page = data.decode(errors="replace").partition("\f")
    config = vllm_account.cache_config(page)
    for ranks in (1, 4):
        found = vllm_account.memory_account(said, config, ranks=ranks, facts=FACTS, device_total_bytes=None)
        _check(found)
        _check(vllm_account.counted(found, [{"kv_bytes": 5, "loaded_bytes": 7}] * ranks, ranks))
    vllm_account.start_notes(said, config, Model(name="m", weights="random"))


def _check(found: Memory) -> None:
    msgspec.json.decode(msgspec.json.encode(found), type=Memory)
    for name, value in msgspec.structs.asdict(found).items():
        if isinstance(value, int | float):
            assert 0 <= value < MOST_TOTAL, f"{name} is {value}"


def metrics(data: bytes) -> None:
    """Finite numbers by names of ours."""
    found = engine_metrics.parse(data.decode(errors="replace"))
    assert found.keys() <= set(engine_metrics.METRICS)
    assert all(math.isfinite(value) for value in found.values()), found


def samples(data: bytes) -> None:
    """What the sampler wrote, as long as it did: both readers see the same lines, whatever a crash left."""
    from profiler.samples import complete_bytes, read_samples

    path = fresh("telemetry.part", data)
    try:
        table = read_samples(path)
    except InputError:
        return
    assert table.column_names == list(COLUMNS)
    list(decode(data[: complete_bytes(data)]))


PAGE = b"""# HELP vllm:num_requests_running x
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0 1700000000000
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:gpu_cache_usage_perc NaN
vllm:prompt_tokens_total{model_name="a b"} 1e+06
vllm:generation_tokens_total 12
vllm:num_preemptions_total +Inf
"""
SAMPLED = b"""1000\tgpu:0\tpower_w\t312.5
2000\trapl:package-0\tenergy_uj\t123456789
3000\tengine:m\trequests_running\t4
4000\tprocess:engine\trss_bytes\t1e9
5000\tgpu:0\tthrottle
"""


def logs() -> Iterator[bytes]:
    yield from (path.read_bytes()[-4000:] for path in sorted(FIXTURES.glob("*.log")))
    yield b"torch.OutOfMemoryError: CUDA out of memory.\nERROR 11-21 22:28:01 [core.py:4] x\n(W pid=1) y"


def accounts() -> Iterator[bytes]:
    page = (FIXTURES / "cache_config.prom").read_bytes()[:2500]
    yield from (path.read_bytes()[:6000] + b"\f" + page for path in sorted(FIXTURES.glob("start_*.log")))
    pool = b'vllm:cache_config_info{block_size="16",num_gpu_blocks="7",cache_dtype="auto"} 1.0\n'
    words = (
        b"Model loading took 1.25 GiB\nAvailable KV cache memory: 2.50 GiB\nGPU KV cache size: 1,024 tokens\n"
        b"0.30 GiB for peak activation\nGraph capturing finished in 3 secs, took 0.20 GiB\n"
        b"1.40 GiB for consumed memory (weights + non-torch)\nEstimated CUDA graph memory: 0.10 GiB total\n"
        b"CUDA graph memory profiling is enabled\n# GPU blocks: 12\nExplicitly set (1.0/8.0) GiB for KV cache"
    )
    yield words + b"\f" + pool


LOG_WORDS = (
    *("ERROR", "Traceback", "CUDA out of memory", "trust_remote_code=True", "GiB", "Killed", "Error: "),
    *("max_model_len (", "is greater than the derived max_model_len (", "divisible by tensor parallel size"),
    *("Address already in use", "No module named 'x", "error: unrecognized arguments: ", "\f", "²", "1.2.3"),
)
TARGETS = (
    Target("engine_log", log, logs, "lines", LOG_WORDS),
    Target("engine_account", account, accounts, "lines", LOG_WORDS, most_bytes=9000),
    Target("engine_metrics", metrics, lambda: iter([PAGE]), "lines", tuple(sorted(engine_metrics.KNOWN))),
    Target("samples", samples, lambda: iter([SAMPLED]), "lines", ("gpu:0", "power_w", "\t", "1e999")),
)
