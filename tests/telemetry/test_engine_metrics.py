"""The scrape of a vLLM metrics page: recorded text, served by a real HTTP server."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from profiler.telemetry import engine_metrics
from profiler.telemetry.engine_metrics import EngineMetricsProbe, parse

RECORDED = (Path(__file__).parent / "vllm_metrics.txt").read_text()


@contextmanager
def serving(text: str, status: int = 200, delay_s: float = 0.0) -> Iterator[str]:
    """A server that answers every GET with ``text``; yields the URL of its metrics page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(delay_s)
            self.send_response(status if self.path == "/metrics" else 404)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # a client that gave up
                self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


def values(probe: EngineMetricsProbe) -> dict[str, float]:
    return {s.name: s.value for s in probe.sample()}


def test_recorded_page_of_two_engine_replicas() -> None:
    with serving(RECORDED) as url:
        probe = EngineMetricsProbe("tiny", url)
        before = time.perf_counter_ns()
        samples = list(probe.sample())
        after = time.perf_counter_ns()
    assert {s.source for s in samples} == {"engine:tiny"}
    assert all(before < s.t_ns < after for s in samples)
    assert {s.name: s.value for s in samples} == {
        "kv_cache_usage_frac": pytest.approx((0.25 + 0.75) / 2),
        "requests_running": 7 + 5,
        "requests_waiting": 3 + 0,
        "preemptions": 2 + 1,
        "prompt_tokens": 51200 + 49152,
        "generation_tokens": 12_345_678 + 1024,
        "prefix_cache_query_tokens": 51200 + 49152,
        "prefix_cache_hit_tokens": 16 + 0,
    }
    assert probe.status().usable


def test_older_spellings_mean_the_same() -> None:
    old = (
        'vllm:gpu_cache_usage_perc{model_name="m"} 0.5\n'
        'vllm:gpu_prefix_cache_hits_total{model_name="m"} 8.0 1700000000000\n'
    )
    assert parse(old) == {"kv_cache_usage_frac": 0.5, "prefix_cache_hit_tokens": 8.0}


def test_labels_may_hold_anything_and_bad_lines_are_passed_over() -> None:
    text = (
        'vllm:num_requests_running{model_name="a} 9 {b\\" c"} 4.0\n'
        "vllm:num_requests_waiting NaN\n"
        "vllm:prompt_tokens_total\n"
        "vllm:generation_tokens_total twelve\n"
        'vllm:generation_tokens_created{engine="0"} 1.7e9\n'
        "other_metric 3\n"
        "# vllm:prompt_tokens_total 5\n"
    )
    assert parse(text) == {"requests_running": 4.0}


def test_a_failing_server_is_counted_and_recovers() -> None:
    with serving("", status=503) as url:
        probe = EngineMetricsProbe("tiny", url)
        assert values(probe) == {"scrape_failures": 1}
        assert values(probe) == {"scrape_failures": 2}
    assert "503" in probe.status().detail
    assert values(probe) == {"scrape_failures": 3}  # nobody listens any more
    assert not probe.status().usable


def test_a_slow_server_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_metrics, "TIMEOUT_S", 0.1)
    with serving(RECORDED, delay_s=0.6) as url:
        started = time.perf_counter()
        assert values(EngineMetricsProbe("slow", url)) == {"scrape_failures": 1}
        assert time.perf_counter() - started < 0.5


def test_a_page_without_our_metrics_says_so() -> None:
    with serving("python_info 1\n") as url:
        probe = EngineMetricsProbe("other", url)
        assert values(probe) == {}
        assert "none of the metrics" in probe.status().detail
