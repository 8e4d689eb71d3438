"""Results and data of others: benchmark tools, scores, traces, texts."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from profiler import importing
from profiler.importing import content, folder
from profiler.importing.folder import Given
from profiler.importing.requests import DamagedError
from profiler.schema import Manifest
from profiler.scores import reading as score_files
from profiler.settings import Load
from profiler.tokens import texts
from profiler.workload import trace
from tests.fuzz.nouns import ROOT, Target, fresh
from tests.fuzz.toml_files import refusing

DATA = ROOT / "tests" / "importing" / "data"
GIVEN = Given(model="m", gpu="H100", gpus=1)
MOST_NS = 1 << 62


def imported(name: str, data: bytes) -> None:
    """Refused in a line, or runs that a folder can hold."""
    path = fresh(name, data)
    beside = (path.parent / "profile_export.jsonl", path.parent / "profile_export_aiperf.json")
    for other in beside:
        if other != path:
            other.unlink(missing_ok=True)
    read = content.read(path)
    for module in importing.TOOLS.values():
        if not module.claims(read):
            continue
        try:
            runs = [folder.prepare(read, found, GIVEN, n) for n, found in enumerate(module.found(read))]
        except DamagedError:
            continue
        for run in runs:
            _check(run)


def _check(run: folder.Prepared) -> None:
    manifest = run.manifest
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest).run_id == manifest.run_id
    assert "/" not in manifest.run_id, manifest.run_id
    assert not manifest.run_id.startswith("."), manifest.run_id
    for point in manifest.imported.points if manifest.imported else ():
        for name, figure in point.figures.items():
            assert math.isfinite(figure.value), f"{name} is {figure.value}"
            assert figure.n is None or figure.n >= 0, f"{name} of {figure.n}"
    for window, records in run.windows:
        assert window.opened_ns <= window.closed_ns
        for record in records:
            times = [record.due_ns, record.sent_ns, record.first_ns, record.last_ns, record.done_ns]
            assert all(each is None or 0 <= each < MOST_NS for each in (*times, *record.arrivals_ns))
            assert 0 <= record.output_tokens <= 1 << 31
            (record.error or "").encode()


def scores(name: str, data: bytes) -> None:
    for score in score_files.read(fresh(name, data)):
        assert math.isfinite(score.value)
        if score.low is not None and score.high is not None:
            assert score.low <= score.high, f"an interval from {score.low} to {score.high}"


def traced(name: str, data: bytes) -> None:
    found = trace.load_trace(str(fresh(name, data)), Load(mode="replay", trace="t"))
    assert len(found.times_s) == len(found.input_tokens) == len(found.output_tokens) >= 2
    assert all(math.isfinite(each) and each >= 0 for each in found.times_s)
    assert 0 < found.whole_s < math.inf


def languages(name: str, data: bytes) -> None:
    found = texts.read([fresh(name, data)])
    assert found.lines
    assert all(found.lines.values())
    assert len(set(map(len, found.lines.values()))) == 1


# -------------------------------------------------------------------------------------------- seeds


NOT_READ = {
    *("text", "image", "audio", "video", "total_sum", "scheduler_state", "scheduler_metrics", "total", "pdf"),
    *(
        "time_to_first_output_token_ms",
        "request_streaming_iterations_count",
        "errored_total",
        "total_token_count",
    ),
    *("root_dispatch_delay", "request_concurrency", "time_per_output_token_ms", "time_to_last_round_trip_ms"),
    *("avg_round_trip_time_ms", "prompt_tokens_per_second", "output_tokens_per_iteration", "tool_call"),
    *("iter_tokens_per_iteration", "p001", "p01", "p05", "p10", "p25", "p75", "p999", "mode", "variance"),
    *("request_args", "output", "prompt", "scheduler", "environment", "env", "profile", "constraints"),
}


def cut(value: Any, most: int = 2) -> Any:
    """The same with short lists and texts, without what is not read: a mutation shall hit what matters."""
    if isinstance(value, dict):
        return {key: cut(each, most) for key, each in value.items() if key not in NOT_READ}
    if isinstance(value, str):
        return value[:80]
    return [cut(each, most) for each in value[:most]] if isinstance(value, list) else value


def _stored(pattern: str) -> Iterator[bytes]:
    for path in sorted(DATA.glob(pattern)):
        raw = gzip.decompress(path.read_bytes())
        if ".jsonl" in path.name:
            yield b"\n".join(raw.splitlines()[:3])
        elif ".csv" in path.name:
            yield raw
        else:
            yield json.dumps(cut(json.loads(raw), 1 if len(raw) > 100_000 else 2)).encode()


TABLE = b"""model,gpu,num_gpus,concurrency,output_throughput,median_ttft_ms,p99_itl_ms,power_w,date,engine
Qwen/Qwen3-32B,H100,1,8,1200.5,120,15,650,2026-01-31,vllm
Qwen/Qwen3-32B,H100,1,16,1900,130,18,680,2026-01,vllm
"""
SCORES = b"""model,benchmark,score,low,high,n,date,source,unit
Qwen/Qwen3-32B,gsm8k,0.82,0.80,0.84,,2026-01,x,frac
Qwen/Qwen3-30B-A3B,gsm8k,0.81,,,1319,2026-01,x,frac
"""
HARNESS = b"""{"results": {"gsm8k": {"alias": "gsm8k", "exact_match,strict": 0.82, "perplexity,none": 7,
"exact_match_stderr,strict": 0.01}}, "n-samples": {"gsm8k": {"original": 1319, "effective": 100}},
"higher_is_better": {"gsm8k": {"exact_match": true}}, "date": 1750000000.5, "model_name": "m",
"config": {"model_args": "pretrained=Qwen/Qwen3-32B,dtype=auto"}}"""
OURS = b"time_s,input_tokens,output_tokens\n0,10,5\n1.5,20,6\n# x\n2,1,1\n"
AZURE = (
    b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,4808,10\n2023-11-16 18:17:04,3180,8\n"
)
BURST = b"Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,18\n45,x,1087,0\n118,y,417,276\n"
MOONCAKE = (
    b'{"timestamp": 0, "input_length": 6755, "output_length": 500, "hash_ids": [0, 1, 2]}\n'
    b'{"timestamp": 27000, "input_length": 100, "output_length": 5, "hash_ids": [0, 9]}\n'
)
TSV = "en\tmy\nhello\tမင်္ဂလာ\nyes\t\n".encode()
JSONL = '{"en": "hello", "de": "hallo"}\n{"en": "x", "de": "ß"}\n'.encode()
DEEP = b'{"results": ' + b"[" * 3000


def _seeds(*fixed: bytes, stored: str | None = None) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([*fixed, *(_stored(stored) if stored else ()), DEEP])


def _run(read: Callable[[str, bytes], None], name: str) -> Callable[[bytes], None]:
    return partial(refusing, partial(read, name))


WORDS = (
    *("completed", "request_throughput", "duration", "start_times", "ttfts", "itls", "output_lens", "errors"),
    *("input_lens", "request_rate", "max_concurrency", "inf", "burstiness", "benchmarks", "config", "model"),
    *("metadata", "metrics", "request_start_ns", "aiperf_version", "unit", "ms", "avg", "p50", "N/A"),
)
COLUMNS = (
    *("model", "gpu", "concurrency", "request_rate", "ttft_s_p50_low", "mean_tpot_ms", "batch", "source"),
)
TARGETS = (
    Target("import_vllm", _run(imported, "r.json"), _seeds(stored="vllm_*"), "json", WORDS, most_bytes=6000),
    Target(
        "import_guidellm",
        _run(imported, "g.json"),
        _seeds(stored="guidellm_*"),
        "json",
        WORDS,
        most_bytes=16_000,
    ),
    Target(
        "import_aiperf",
        _run(imported, "profile_export_aiperf.json"),
        _seeds(stored="aiperf_*aiperf.json.gz"),
        "json",
        WORDS,
        most_bytes=24_000,
    ),
    Target(
        "import_aiperf_lines",
        _run(imported, "profile_export.jsonl"),
        _seeds(stored="aiperf_*.jsonl.gz"),
        "json",
        WORDS,
        most_bytes=9000,
    ),
    Target(
        "import_aiperf_csv",
        _run(imported, "a.csv"),
        _seeds(stored="aiperf_*.csv.gz"),
        "lines",
        WORDS,
        most_bytes=8000,
    ),
    Target("import_table", _run(imported, "t.csv"), _seeds(TABLE), "lines", COLUMNS),
    Target(
        "scores_csv", _run(scores, "s.csv"), _seeds(SCORES), "lines", ("percent", "elo", "stderr", "unit")
    ),
    Target(
        "scores_harness",
        _run(scores, "s.json"),
        _seeds(HARNESS),
        "json",
        ("n-samples", "effective", "date", "pretrained"),
    ),
    Target(
        "trace_csv",
        _run(traced, "t.csv"),
        _seeds(OURS, AZURE, BURST),
        "lines",
        ("TIMESTAMP", "2023-11-16", "Timestamp"),
    ),
    Target(
        "trace_lines", _run(traced, "t.jsonl"), _seeds(MOONCAKE), "json", ("timestamp", "hash_ids", "time_s")
    ),
    Target("texts_tsv", _run(languages, "t.tsv"), _seeds(TSV), "lines", ("en", "my")),
    Target("texts_lines", _run(languages, "t.jsonl"), _seeds(JSONL), "json", ("en", "de")),
)
